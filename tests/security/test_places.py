"""Names that come from outside lead to no other place: nothing appears beside the folders that are hdi's."""

import json
from pathlib import Path

import pytest

import dbnfiles

HOSTILE = (
    "../../escaped", "..", ".", "/escaped", "a/../../escaped", "..\\escaped", "a\0b", "x" * 300, "é\u202e\ud7ff", "~",
    "%2e%2e%2fescaped", "C:escaped", "a\nb", "-rf", "$(touch escaped)", "",
)  # fmt: skip
#: Those that the header of a file can hold; test_broken_files.py has headers that lie.
IN_FILES = tuple(name for name in HOSTILE if name.isascii() and "\0" not in name and 0 < len(name) < 70)[:6]
#: What hdi makes, and what the test does.
OURS = {"lake", "data", "dlq", "logs", "configs", "files", "out"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working folder deep enough that a name which leads out of it still stays in the test's."""
    folder = tmp_path / "a" / "b" / "home"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HDI_STORE", f"lake:{folder / 'lake'}")
    monkeypatch.setenv("HDI_DATA_DIR", str(folder / "data"))
    return folder


def strays(tmp_path):
    """What lies where nothing belongs, and what is called as nothing is."""
    home = tmp_path / "a" / "b" / "home"
    beside = [
        p for p in tmp_path.rglob("*") if home not in p.parents and p not in (home, home.parent, home.parent.parent)
    ]
    return [*beside, *(p for p in home.iterdir() if p.name not in OURS), *(p for p in tmp_path.rglob("*escaped*/*"))]


@pytest.mark.parametrize("name", IN_FILES)
def test_symbols_of_files_lead_nowhere(name, home, tmp_path, call):
    rows = dbnfiles.records("trades", 300)
    rows["size"][::60] = 0
    path = dbnfiles.write(home / "files" / "a.dbn.zst", "trades", rows, symbols=(name,))
    ran = call("ingest", "--api", "dbn", path, "--max-rejects", "5")
    assert ran.code in (0, 2, 4), ran.err
    assert strays(tmp_path) == []
    for file in (home / "data" / "raw").rglob("*.dbn*"):
        # raw/<origin>/<dataset>/<schema>/<day>/<name>
        assert len(file.relative_to(home / "data" / "raw").parts) == 5


OPTIONS = (
    ("ingest", "--api", "dbn", "FILE", "--origin", "NAME"),
    ("ingest", "--job", "NAME"), ("ingest", "--resume", "NAME"), ("ingest", "--api", "NAME", "--job", "x"),
    ("plan", "--dataset", "NAME", "--schema", "trades", "--symbols", "ESH4", "--start-date", "2024-01-02",
     "--end-date", "2024-01-02"),
    ("sync", "NAME"), ("list-jobs", "--api", "NAME"), ("runs", "NAME"), ("query", "--schema", "NAME", "--symbols", "x"),
    ("query", "--schema", "trades", "--symbols", "NAME"), ("coverage", "--schema", "NAME"), ("report", "NAME"),
    ("quarantine", "show", "NAME"), ("quarantine", "list", "--unit", "NAME"),
    ("quarantine", "replay", "--unit", "NAME"),
    ("lock", "out", "--schema", "NAME"), ("backup", "out", "--tables", "NAME"),
    ("restore", "out", "--tables", "NAME"), ("verify", "--test", "NAME"), ("maintain", "--only", "NAME"),
    ("validate", "--schema", "NAME"), ("symbols", "NAME"), ("why", "NAME", "2024-01-02", "--schema", "trades"),
)  # fmt: skip


@pytest.mark.parametrize("words", OPTIONS, ids=lambda words: " ".join(w for w in words if w[:1] != "2")[:60])
def test_names_in_arguments_lead_nowhere_and_end_with_words(words, home, tmp_path, call, monkeypatch):
    monkeypatch.setenv("DATABENTO_API_KEY", "db-" + "f" * 29)
    monkeypatch.setenv("DATABENTO_GATEWAY", "https://127.0.0.1:1")
    (home / "configs").mkdir()
    (home / "configs" / "system_config.yaml").write_text(json.dumps({"databento": {"tries": 1}}))
    file = dbnfiles.write(home / "files" / "a.dbn.zst", "trades", dbnfiles.records("trades", 5))
    assert call("ingest", "--api", "dbn", file).code == 0
    for name in HOSTILE[OPTIONS.index(words) % 3 :: 3]:  # each text goes to every third
        given = [str(file) if w == "FILE" else name if w == "NAME" else w for w in words]
        ran = call(*given)
        assert ran.code in (0, 1, 2, 3, 4, 5), (given, ran)
        assert "error: unexpected" not in ran.err, (given, ran.err)
        assert "Traceback" not in ran.err, (given, ran.err)
    assert strays(tmp_path) == []
    assert Path(file).is_file()
