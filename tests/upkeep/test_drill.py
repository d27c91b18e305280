"""The disaster drill of docs/backup-and-maintenance.md, command by command, on both kinds of store."""

import json
import shutil
from pathlib import Path

import psycopg
import pytest

from hdi.cli import run
from migrate.stock import everything

pytestmark = pytest.mark.usefixtures("programs")


def hdi(url, *words):
    return run(["--store", url, *words])


def test_everything_is_lost_but_the_backup(stock, empty, kind, capsys):
    url = stock(kind)
    before = everything(url)
    # The daily duty.
    assert hdi(url, "maintain") == 0
    assert hdi(url, "backup", "backups", "--keep", "7") == 0
    assert hdi(url, "backup", "backups", "--verify") == 0
    # A table is dropped.
    if kind == "lake":
        shutil.rmtree(Path(url.removeprefix("lake:"), "trades_data"))
    else:
        with psycopg.connect(url) as connection:
            connection.execute("DROP TABLE trades_data CASCADE")
    assert hdi(url, "restore", "backups", "--tables", "trades_data") == 0
    assert everything(url) == before
    # The newest backup is bad.
    assert hdi(url, "backup", "backups") == 0
    older, newest = sorted(p for p in Path("backups").iterdir() if p.is_dir())
    victim = max((p for p in (newest / "store").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    victim.unlink()  # it may be a link to what the older one has, too
    data[len(data) // 3] ^= 4
    victim.write_bytes(data)
    # The disk is lost, or the server.
    if kind == "lake":
        shutil.rmtree(url.removeprefix("lake:"))
        back = url
    else:
        back = empty(kind)
    capsys.readouterr()
    assert hdi(back, "restore", "backups") == 4
    assert str(victim) in capsys.readouterr().err
    # The one before it is taken.
    assert hdi(back, "--json", "restore", str(older)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == "restored"
    assert told["tables"]
    assert everything(back) == before
    # The restore was a mistake: what is there is not touched.
    assert hdi(back, "restore", str(older)) == 2
    assert "not empty" in capsys.readouterr().err
    assert everything(back) == before
