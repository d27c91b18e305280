"""docs/logs.md: every command of it finds what it says, where runs, failures and queries have left their logs."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from api.desk import Ask, served
from api.desk import Desk as Folder

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "logs.md"
MARKET = {"until": "2024-07-01", "scale": 0.02, "hostile": 3}
#: `tail -f` never ends: here it reads what is there.
NOT_FOLLOWED = (
    'tail() { local a; for a; do shift; [ "$a" = -f ] && a=-n+1; set -- "$@" "$a"; done; command tail "$@"; }'
)


def commands():
    """The commands of the page, each with its continued lines."""
    text = "".join(re.findall(r"^```shell\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    found, kept = [], ""
    for line in text.splitlines(keepends=True):
        kept += line
        if not line.rstrip().endswith(("\\", "|")):
            found.append(kept)
            kept = ""
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder after a day: runs that stored, rejected, found nothing to do and failed, and queries."""
    if shutil.which("jq") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("jq is not installed")
        pytest.skip("jq is not installed")
    root = tmp_path_factory.mktemp("logs-page")
    with pytest.MonkeyPatch.context() as env, served(root, **MARKET) as vendor:
        for name in list(os.environ):
            if name.startswith(("HDI_", "TIMESCALEDB_")):
                env.delenv(name)
        desk = Folder(root / "desk", vendor)
        desk.ingest(Ask("ES.c.0", "2024-03-12", "2024-03-12", "trades"), max_reject_percent=100)
        desk.ingest(Ask("CL.c.0", "2024-03-01", "2024-03-31"), max_reject_percent=100)
        desk.ingest(Ask("CL.c.0", "2024-03-01", "2024-03-31"))
        (root / "no.dbn").write_bytes(b"DBN")
        with desk.open() as data:
            (outcome,) = data.ingest_files([root / "no.dbn"])
            assert outcome.status == "failed"
            for _ in range(2):
                assert data.query("CL.c.0", "2024-03-01", "2024-03-31").collect().height
    slow = json.loads((desk.folder / "logs/query_builder.log").read_text().splitlines()[0])
    slow["context"]["execution_time"] = 7.5
    with (desk.folder / "logs/query_builder.log").open("a") as file:
        file.write(json.dumps(slow) + "\n")
    shutil.copytree(ROOT / "configs", desk.folder / "configs")
    return desk.folder


def typed(folder, command):
    # Midnight may have passed since the rejects were exported.
    day = min(path.name[:8] for path in (folder / "dlq" / "validation_failures").glob("[0-9]*.json"))
    script = f"set -o pipefail\n{NOT_FOLLOWED}\ndate() {{ echo {day}; }}\n{command}"
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.stdout


def documents(text):
    decoder, at, found = json.JSONDecoder(), 0, []
    text = text.strip()
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_page_finds_something(folder, command):
    assert typed(folder, command).strip()


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (
            "records_processed, execution_time",
            {"records_processed", "execution_time", "processing_rate", "memory_peak"},
        ),
        ("remaining_calls", {"remaining_calls", "reset_time", "throttle_applied"}),
        ("record_count}", {"symbol", "date_range", "execution_time", "record_count"}),
        ("schema, symbol, error_type", {"schema", "symbol", "error_type", "error_message"}),
    ],
)
def test_what_is_picked_out_of_a_line_is_there(folder, words, keys):
    (command,) = [command for command in commands() if words in command]
    command = command.replace("| \\\nhead -10", "")
    for found in documents(typed(folder, command)):
        assert found.keys() == keys
        assert None not in [value for name, value in found.items() if name != "symbol"]


def test_memory_is_a_number_of_bytes_and_patterns_are_counted(folder):
    (memory,) = [command for command in commands() if "memory_usage" in command]
    assert all(1 << 20 < int(line) < 1 << 40 for line in typed(folder, memory).split())
    (pattern,) = [command for command in commands() if "Query pattern" in command]
    count, told = typed(folder, pattern).strip().split(maxsplit=1)
    assert (count, json.loads(told)["schema"]) == ("2", "ohlcv-1d")


def test_rejects_are_counted_by_rows(folder):
    (command,) = [command for command in commands() if "jq -s" in command]
    rows = sum(
        len(entries)
        for path in (folder / "dlq").rglob("[!.]*.json")
        for line in path.read_text().splitlines()
        for entries in json.loads(line).values()
    )
    assert int(typed(folder, command)) == rows > 0
