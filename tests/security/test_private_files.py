"""What hdi keeps is its user's alone, with any umask: the modes of all that commands make."""

import os
import stat

import pytest

import dbnfiles

OTHERS = 0o077


@pytest.fixture
def open_to_all():
    """The umask that takes nothing away."""
    before = os.umask(0)
    yield
    os.umask(before)


def exposed(folder, besides=()):
    """Paths in a folder that others than their owner can get at: no folder above them is closed."""
    found, waiting = [], [folder]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if path.is_symlink() or path in besides:
                continue
            mode = stat.S_IMODE(path.stat().st_mode)
            if not mode & OTHERS:
                continue  # nobody else comes through
            if path.is_dir():
                waiting.append(path)
                if not mode & 0o007 and not mode & 0o070:
                    continue
            found.append(f"{path.relative_to(folder)} {mode:o}")
    return found


#: What somebody may have made before, open to all.
FOLDERS = ("lake", "copy", "data", "dlq", "logs", "backups", "configs")


@pytest.mark.usefixtures("open_to_all")
@pytest.mark.parametrize("before", [(), FOLDERS], ids=["new", "in open folders"])
def test_all_that_is_kept_is_for_its_owner_alone_whatever_the_umask(tmp_path, call, monkeypatch, before):
    home = tmp_path / "home"
    home.mkdir()
    for name in before:
        (home / name).mkdir(mode=0o755)
    monkeypatch.chdir(home)
    monkeypatch.setenv("HDI_STORE", f"lake:{home / 'lake'}")
    monkeypatch.setenv("HDI_DATA_DIR", str(home / "data"))
    rows = dbnfiles.records("trades", 1_000)
    rows["size"][7] = 0
    good = dbnfiles.write(tmp_path / "a.dbn.zst", "trades", rows)
    bad = dbnfiles.write(tmp_path / "b.dbn.zst", "trades", dbnfiles.records("trades", 400, side=b"X", instrument_id=2))
    done = [
        call(*words).code
        for words in (
            ("init",), ("ingest", "--api", "dbn", good, "--origin", "mine"),
            ("ingest", "--api", "dbn", bad, "--origin", "mine"),
            ("maintain",), ("backup", home / "backups", "--raw"), ("quarantine", "analyze", "--export-summary"),
            ("reconcile",), ("verify", "--test", "data_availability"), ("lock", home / "rows.lock", "--rows"),
            ("sql", "SELECT count(*) FROM trades_data"), ("schedule", "--once"), ("status", "--comprehensive"),
            ("--store", f"lake:{home / 'again'}", "restore", home / "backups"), ("alerts", "--test"),
            ("migrate", "--from", f"lake:{home / 'lake'}", "--to", f"lake:{home / 'copy'}"),
        )
    ]  # fmt: skip
    # The second file has too many bad rows, nothing was promised to verify, and there is nobody to alert.
    assert (done[0:2], done.count(0) >= 11) == ([0, 0], True), done
    assert {p.name for p in home.iterdir()} >= {"lake", "data", "dlq", "logs", "backups", "configs", ".env", "copy"}
    # Files that the user names are the user's own, as those of any program.
    found = exposed(home, {home / "rows.lock", home / "rows.lock.rows.parquet"})
    found = [path for path in found if path.removesuffix(" 755") not in before]
    assert not found, "\n".join(found)


def test_the_search_finds_what_others_can_get_at(tmp_path):
    for name, mode in (("closed", 0o700), ("open", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
        (tmp_path / name / "file").chmod(0o644)
        (tmp_path / name).chmod(mode)
    assert exposed(tmp_path) == ["open 755", "open/file 644"]
