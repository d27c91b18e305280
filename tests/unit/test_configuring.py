"""Settings: where they came from, all that is wrong at once, and the files that a folder begins with."""

import stat
from pathlib import Path

import pytest

from hdi import configuring, settings
from hdi.errors import ConfigError, RequestError, StoreError
from hdi.settings import written
from hdi.sources.records import columns

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "configs/system_config.yaml": "ingst: {}\nlog: {level: LOUD, dri: x}\ningest: {workers: 99}\n",
    "configs/api_specific/databento_config.yaml": (
        "databento: {tries: x, key: db-very-secret}\n"
        "jobs:\n"
        "  a: {dataset: GLBX.MDP3, schema: ohlcv-1q, symbols: ES.c.0, start_date: 2024-01-01, end_date: 2024-01-02}\n"
        "  c: {dataset: GLBX.MDP3, schema: ohlcv-1d, symbols: ESH4, stype_in: continuous, start_date: 2024-01-01,"
        " end_date: 2024-01-02}\n"
    ),
    "configs/symbol_groups.yaml": "X: ['@Y']\nZ: []\n",
    "configs/roll_rules.yaml": "rules: {q: {by: x}}\n",
    "configs/calendars.yaml": "datasets: {Q: {closed: {2024-13-01: x}}}\n",
    "configs/rules/r.yaml": (
        "ohlcv:\n"
        "  A: {check: nope > 1, severity: ERROR, message: x}\n"
        "  B: {check: volume + 1, severity: ERROR, message: x}\n"
        "  NON_POSITIVE_PRICE: {severity: BAD}\n"
        "nokind: {}\n"
    ),
    "configs/mappings/databento.yaml": "mappings:\n  ohlcv:\n    volume: nocolumn + 1\n    volme: volume\n",
    "configs/symbolgroups.yml": "x: 1\n",
    ".env": "HDI_STOER=x\n'a\n",
}
#: What is wrong in them: file, position, and a word of the message.
WRONG = [
    (".env:1", "HDI_STOER"), (".env:2", "NAME=value"), ("configs/system_config.yaml:1:1", "ingst"),
    ("configs/system_config.yaml:2:7", "LOUD"), ("configs/system_config.yaml:2:20", "dri"),
    ("configs/system_config.yaml:3:10", "99"), ("configs/api_specific/databento_config.yaml:1:13", "'x'"),
    ("configs/api_specific/databento_config.yaml:1:23", "not read from a file"),
    ("configs/api_specific/databento_config.yaml:3:3", "ohlcv-1q"),
    ("configs/api_specific/databento_config.yaml:4:3", "ESH4"), ("configs/symbol_groups.yaml:1:1", "@Y"),
    ("configs/symbol_groups.yaml:2:1", "a symbol is needed"), ("configs/roll_rules.yaml:1:13", "'x'"),
    ("configs/calendars.yaml:1:12", "calendar is missing"), ("configs/calendars.yaml:1:25", "2024-13-01"),
    ("configs/rules/r.yaml:2:7", "nope"), ("configs/rules/r.yaml:3:7", "not true or false"),
    ("configs/rules/r.yaml:4:24", "BAD"), ("configs/rules/r.yaml:5:1", "nokind"),
    ("configs/mappings/databento.yaml:3:5", "nocolumn"), ("configs/mappings/databento.yaml:4:5", "volme"),
]  # fmt: skip


@pytest.fixture
def put(tmp_path):
    def call(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return call


def test_every_problem_of_every_file_is_found_at_once_with_its_place(put):
    folder = put(FILES)
    found = configuring.check(variables={}, cwd=folder, vendor_columns=columns)
    assert len(found.messages) == len(WRONG)
    for place, word in WRONG:
        (line,) = [text for text in found.messages if text.startswith(f"{folder / place}:")]
        assert word in line
    assert found.notes == [f"{folder / 'configs/symbolgroups.yml'} is not read: did you mean symbol_groups.yaml?"]
    assert found.settings is None
    assert "db-very-secret" not in f"{found.to_dict()}"


def test_what_ships_is_valid_and_every_file_of_it_is_read():
    found = configuring.check(ROOT / "configs", variables={}, cwd=ROOT, vendor_columns=columns)
    assert (found.messages, found.notes, len(found.jobs)) == ([], [], 18)
    shipped = {path for path in (ROOT / "configs").rglob("*") if path.is_file()}
    assert set(found.files) == shipped


def test_what_ships_is_what_the_declarations_make():
    """``python -m hdi.settings.written`` writes it again."""
    for path, text in written.files().items():
        shipped = ROOT / (".env.example" if path == written.ENV else path)
        assert shipped.read_text(encoding="utf-8") == text, f"{shipped}: run python -m hdi.settings.written"


def test_every_value_says_where_it_came_from_and_secrets_are_masked(put):
    folder = put({
        "configs/system_config.yaml": "log:\n  backups: 7\n", ".env": "# mine\nDATABENTO_API_KEY=db-very-secret\n",
    })  # fmt: skip
    env = {"HDI_STORE": "postgresql://me:p%40ss@db/x", "DATABENTO_GATEWAY": "https://127.0.0.1:1"}
    loaded = settings.load(env=env, cwd=folder, flags={"log.level": "ERROR", "ingest.batch_size": None})
    found = {value.key: value for value in configuring.values(loaded)}
    assert list(found) == [row.key for row in settings.describe()]
    assert (found["log.backups"].value, found["log.backups"].where) == (7, f"{folder}/configs/system_config.yaml:2:3")
    assert found["log.level"].where == "--log-level"
    assert found["databento.gateway"].where == "environment variable DATABENTO_GATEWAY"
    assert found["databento.key"].value == "***"
    assert found["databento.key"].where == f"{folder}/.env:2: DATABENTO_API_KEY"
    assert found["store"].value == "postgresql://me:***@db/x"
    assert found["ingest.batch_size"].where == configuring.DEFAULT
    assert "secret" not in f"{found}"


def test_settings_are_shown_by_group_and_a_misspelt_one_is_refused_with_the_closest(tmp_path):
    loaded = settings.load(env={}, cwd=tmp_path)
    assert {v.key.split(".")[0] for v in configuring.values(loaded, ["log"])} == {"log"}
    with pytest.raises(RequestError, match="'ingst'") as refused:
        configuring.values(loaded, ["ingst"])
    assert "ingest" in refused.value.hint


def test_a_new_folder_gets_private_files_that_change_nothing(tmp_path):
    folder = tmp_path / "new" / "desk"
    before = settings.load(env={}, cwd=folder).model_dump(exclude={"config_dir"})
    found = configuring.write(folder)
    assert {each.result for each in found} == {"written"}
    paths = list(folder.rglob("*"))
    assert {stat.S_IMODE(p.stat().st_mode) for p in (folder.parent, folder, *paths)} == {0o600, 0o700}
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in paths if p.is_file())
    after = settings.load(env={}, cwd=folder)
    assert after.config_dir == folder / "configs"
    assert after.model_dump(exclude={"config_dir"}) == before


def test_nothing_that_is_there_is_overwritten_and_force_keeps_the_old_one(put):
    folder = put(
        {".env": "DATABENTO_API_KEY=db-mine\n", "configs/calendars.yaml": written.files()["configs/calendars.yaml"]}
    )
    first = {each.path.name: each.result for each in configuring.write(folder)}
    assert (first[".env"], first["calendars.yaml"], first["system_config.yaml"]) == ("kept", "same", "written")
    assert (folder / ".env").read_text() == "DATABENTO_API_KEY=db-mine\n"
    again = {each.path.name: each for each in configuring.write(folder, force=True)}
    assert (again[".env"].result, again[".env"].aside) == ("replaced", folder / ".env.old-1")
    assert (folder / ".env.old-1").read_text() == "DATABENTO_API_KEY=db-mine\n"
    assert {each.result for name, each in again.items() if name != ".env"} == {"same"}


def test_a_link_to_somewhere_else_is_not_written_through(tmp_path):
    outside = tmp_path / "outside"
    folder = tmp_path / "desk"
    folder.mkdir()
    (folder / ".env").symlink_to(outside)
    assert {e.path.name: e.result for e in configuring.write(folder)}[".env"] == "kept"
    assert not outside.exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        configuring.write(tmp_path / "file" / "below")


@pytest.mark.parametrize("value", ["data/lake", "lake:./my data", "a'b\\c\"d", "x # y", "$HOME", "postgresql://u@h/d"])
def test_a_value_in_env_is_read_back_as_it_was_given(tmp_path, value):
    (tmp_path / ".env").write_text(written.env({"DATABENTO_GATEWAY": value}), encoding="utf-8")
    loaded = settings.load(env={}, cwd=tmp_path)
    assert loaded.databento.gateway == value


def test_a_value_that_no_line_can_hold_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no line"):
        configuring.write(tmp_path, given={"HDI_STORE": "a\nDATABENTO_API_KEY=b"})
    assert not (tmp_path / ".env").exists()
