"""Settings: layers, their order, and errors that say where the wrong value stands."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from hdi import document, settings
from hdi.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
KEYS = list(dict.fromkeys(row.key for row in settings.describe()))


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def load(cwd, env=None, **given):
    return settings.load(env=env or {}, cwd=cwd, **given)


def refused(cwd, env=None, **given):
    with pytest.raises(ConfigError) as caught:
        load(cwd, env, **given)
    return str(caught.value)


def get(loaded, key):
    for name in key.split("."):
        loaded = getattr(loaded, name)
    return loaded


# Layers


def test_an_empty_folder_gives_the_packaged_defaults_as_absolute_paths(tmp_path):
    loaded = load(tmp_path)
    assert loaded.store == f"lake:{tmp_path}/data/lake"
    assert (loaded.data_dir, loaded.dlq_dir, loaded.log.dir) == (tmp_path / "data", tmp_path / "dlq", tmp_path / "logs")
    assert loaded.log.level == "INFO"
    assert loaded.ingest.batch_size == 131_072
    assert (loaded.ingest.max_reject_percent, loaded.ingest.min_rejects) == (1, 100)
    assert (loaded.query.confirm_days, loaded.query.confirm_symbols) == (1, 10)
    assert loaded.config_dir is None
    assert list(tmp_path.iterdir()) == []


def test_each_layer_wins_over_the_one_before(tmp_path, write):
    seen = [load(tmp_path).log.level]
    write("configs/system_config.yaml", "log: {level: DEBUG}")
    seen.append(load(tmp_path).log.level)
    write("configs/api_specific/databento_config.yaml", "log: {level: warning}")
    seen.append(load(tmp_path).log.level)
    write(".env", "LOG_LEVEL=error\n")
    seen.append(load(tmp_path).log.level)
    env = {"LOG_LEVEL": "critical"}
    seen.append(load(tmp_path, env).log.level)
    seen.append(load(tmp_path, env, flags={"log.level": "debug"}).log.level)
    assert seen == ["INFO", "DEBUG", "WARNING", "ERROR", "CRITICAL", "DEBUG"]


def test_a_layer_changes_only_what_it_names(tmp_path, write):
    write("configs/system_config.yaml", "ingest:\n  batch_size: 1000\n  min_rejects: 5\n")
    ingest = load(tmp_path, flags={"ingest.batch_size": 2000}).ingest
    assert (ingest.batch_size, ingest.min_rejects, ingest.max_reject_percent) == (2000, 5, 1)


def test_databento_yaml_is_another_name_for_its_config_file(tmp_path, write):
    write("configs/api_specific/databento.yaml", "query: {confirm_days: 7}")
    assert load(tmp_path).query.confirm_days == 7
    write("configs/api_specific/databento_config.yaml", "query: {confirm_days: 8}")
    assert "the same settings are also in databento.yaml" in refused(tmp_path)


def test_an_empty_variable_or_a_flag_of_none_is_not_given(tmp_path, write):
    write(".env", "HDI_STORE=from-dotenv\nLOG_LEVEL=\n")
    loaded = load(tmp_path, {"HDI_STORE": "", "NO_COLOR": ""}, flags={"store": None})
    assert loaded.store == f"lake:{tmp_path}/from-dotenv"
    assert loaded.log.level == "INFO"
    assert loaded.color


def test_any_value_of_no_color_turns_colours_off(tmp_path):
    assert not load(tmp_path, {"NO_COLOR": "0"}).color


def test_a_group_with_all_its_keys_commented_out_is_fine(tmp_path, write):
    write("configs/system_config.yaml", "log:\n  # level: DEBUG\n")
    assert load(tmp_path) == load(tmp_path, config_dir=tmp_path / "configs")


def test_dotenv_takes_quotes_exports_comments_and_leaves_dollars_alone(tmp_path, write):
    write(".env", "# a comment\nexport HDI_STORE='my $HOME lake'  # where\nOTHER=ignored\n")
    assert load(tmp_path).store == f"lake:{tmp_path}/my $HOME lake"


# The store


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("lake:x", "lake:{cwd}/x"),
        ("x/../y", "lake:{cwd}/y"),
        ("/abs/z", "lake:/abs/z"),
        ("timescaledb", "timescaledb"),
        ("s3://bucket/lake", "s3://bucket/lake"),
        ("postgresql://u:p@h:5432/db", "postgresql://u:p@h:5432/db"),
    ],
)
def test_a_store_is_a_path_or_a_name_or_a_url(tmp_path, given, expected):
    assert load(tmp_path, flags={"store": given}).store == expected.format(cwd=tmp_path)


def test_the_default_store_lies_in_the_data_folder(tmp_path):
    assert load(tmp_path, {"HDI_DATA_DIR": "/big/disk"}).store == "lake:/big/disk/lake"


def test_timescaledb_host_chooses_the_store_only_where_none_is_named(tmp_path, write):
    host = {"TIMESCALEDB_HOST": "db"}
    assert load(tmp_path, host).store == "timescaledb"
    assert load(tmp_path, host | {"HDI_STORE": "x"}).store == f"lake:{tmp_path}/x"
    assert load(tmp_path, host, flags={"store": "x"}).store == f"lake:{tmp_path}/x"
    write("configs/system_config.yaml", "store: y")
    assert load(tmp_path, host).store == f"lake:{tmp_path}/y"


def test_a_misspelt_timescaledb_does_not_become_a_folder(tmp_path):
    assert "did you mean timescaledb?" in refused(tmp_path, flags={"store": "timescale"})
    assert load(tmp_path, flags={"store": "lake:timescale"}).store == f"lake:{tmp_path}/timescale"


# The config folder


def test_a_config_folder_that_is_named_must_exist(tmp_path, write):
    assert "--config-dir: " in refused(tmp_path, config_dir=Path("nowhere"))
    assert "environment variable HDI_CONFIG_DIR: " in refused(tmp_path, {"HDI_CONFIG_DIR": "nowhere"})
    write(".env", "\nHDI_CONFIG_DIR=nowhere\n")
    assert f"{tmp_path}/.env:2: HDI_CONFIG_DIR: {tmp_path}/nowhere is not a folder" in refused(tmp_path)


def test_the_flag_wins_over_the_variable_for_the_config_folder(tmp_path, write):
    write("a/system_config.yaml", "query: {confirm_days: 2}")
    write("b/system_config.yaml", "query: {confirm_days: 3}")
    assert load(tmp_path, {"HDI_CONFIG_DIR": "a"}).query.confirm_days == 2
    assert load(tmp_path, {"HDI_CONFIG_DIR": "a"}, config_dir=Path("b")).query.confirm_days == 3


def test_overlays_are_the_yaml_files_of_a_folder_by_name(tmp_path, write):
    for name in ("b.yaml", "a.yml", "notes.txt"):
        write(f"configs/rules/{name}", "")
    loaded = load(tmp_path)
    assert [path.name for path in loaded.overlays("rules")] == ["a.yml", "b.yaml"]
    assert loaded.overlays("schemas") == ()


# Errors


def test_an_unknown_key_names_file_line_column_and_the_closest_key(tmp_path, write):
    path = write("configs/system_config.yaml", "log:\n  level: INFO\n\ningest:\n  batchsize: 5\n")
    message = refused(tmp_path)
    assert message.startswith(f"{path}:5:3: ingest.batchsize: unknown key batchsize\n")
    assert "Did you mean batch_size? Known here: batch_size, max_reject_percent, min_rejects." in message


@pytest.mark.parametrize("text", ["lgo: {level: INFO}", "1: x", "config_dir: x"])
def test_an_unknown_key_at_the_top_is_refused(tmp_path, write, text):
    write("configs/system_config.yaml", text)
    message = refused(tmp_path)
    assert "unknown key" in message
    assert "Known here: data_dir, store, dlq_dir, color, log, ingest, query." in message


@pytest.mark.parametrize(
    ("text", "where", "allowed"),
    [
        ("log:\n  level: LOUD\n", ":2:3: log.level: 'LOUD': ", "'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'"),
        ("ingest:\n  batch_size: many\n", ":2:3: ingest.batch_size: 'many': ", "integer"),
        ("ingest:\n  batch_size: 0\n", ":2:3: ingest.batch_size: 0: ", "greater than or equal to 1"),
        ("ingest:\n  batch_size: true\n", ":2:3: ingest.batch_size: True: ", "a number is needed"),
        ("ingest:\n  max_reject_percent: 101\n", ":2:3: ingest.max_reject_percent: 101: ", "less than or equal to 100"),
        ("ingest:\n  max_reject_percent: .nan\n", ":2:3: ingest.max_reject_percent: nan: ", "finite number"),
        ("store: ''\n", ":1:1: store: '': ", "lake:PATH"),
        ("data_dir:\n", ":1:1: data_dir: None: ", "path"),
        ("log: INFO\n", ":1:1: log: 'INFO': ", "dir, level, max_bytes, backups"),
        ("- log\n", ":1:1: ['log']: ", "data_dir, store"),
    ],
)
def test_a_bad_value_names_file_line_column_key_and_what_is_allowed(tmp_path, write, text, where, allowed):
    path = write("configs/system_config.yaml", text)
    message = refused(tmp_path)
    assert message.startswith(f"{path}{where}")
    assert allowed in message


def test_all_bad_values_are_reported_at_once(tmp_path, write):
    write("configs/system_config.yaml", "query: {confirm_days: -1, confirm_symbols: x}")
    message = refused(tmp_path, {"LOG_LEVEL": "LOUD"})
    assert [line.split(": ")[1] for line in message.splitlines()] == [
        "'LOUD'",
        "query.confirm_days",
        "query.confirm_symbols",
    ]


def test_a_bad_variable_or_flag_is_named(tmp_path, write):
    assert refused(tmp_path, {"LOG_LEVEL": "LOUD"}).startswith("environment variable LOG_LEVEL: 'LOUD': ")
    assert refused(tmp_path, flags={"ingest.max_reject_percent": "x"}).startswith("--max-rejects: 'x': ")
    write(".env", "# first\n\nLOG_LEVEL=LOUD\n")
    assert refused(tmp_path).startswith(f"{tmp_path}/.env:3: LOG_LEVEL: 'LOUD': ")


def test_a_line_of_dotenv_that_is_none_is_named(tmp_path, write):
    write(".env", "LOG_LEVEL=INFO\n\n'oops\n")
    assert refused(tmp_path).startswith(f"{tmp_path}/.env:3: ")


def test_a_misspelt_variable_of_ours_is_refused_and_those_of_others_are_not(tmp_path):
    message = refused(tmp_path, {"HDI_DATADIR": "x"})
    assert message.startswith(
        "environment variable HDI_DATADIR: unknown variable HDI_DATADIR\nDid you mean HDI_DATA_DIR?"
    )
    assert load(tmp_path, {"HDI_TEST_SERVER": "x", "DATABENTO_API_KEY": "x", "PATH": "x"}) is not None


def test_an_unknown_flag_is_refused(tmp_path):
    assert "Did you mean log.level?" in refused(tmp_path, flags={"log.levle": "INFO"})


# The object


def test_settings_cannot_be_changed(tmp_path):
    loaded = load(tmp_path)
    with pytest.raises(ValidationError):
        loaded.store = "x"
    with pytest.raises(ValidationError):
        loaded.log.level = "DEBUG"


def test_secrets_are_known_for_masking_and_never_shown(tmp_path, write):
    write(".env", "TIMESCALEDB_PASSWORD=from-dotenv-file\n")
    loaded = load(tmp_path, {"DATABENTO_API_KEY": "db-key", "HOME_KEY": "not ours"})
    assert loaded.secrets == ("from-dotenv-file", "db-key")
    assert "db-key" not in f"{loaded!r} {loaded} {loaded.model_dump()}"


# What ships


def test_the_shipped_file_states_the_defaults_and_names_every_key(tmp_path):
    path = ROOT / "configs" / "system_config.yaml"
    shipped = settings.load(config_dir=path.parent, env={}, cwd=tmp_path)
    default = load(tmp_path)
    assert {key: get(shipped, key) for key in KEYS[1:]} == {key: get(default, key) for key in KEYS[1:]}
    text = re.sub(r"^# (?=\w+: )", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    marks = document.parse(text, path).marks
    assert {tuple(key.split(".")) for key in KEYS} - {("config_dir",)} <= marks.keys()


def test_env_example_has_every_variable_and_changes_nothing(tmp_path, write):
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = re.findall(r"^#? ?([A-Z_]+)=", text, re.MULTILINE)
    assert sorted(named) == sorted(row.env for row in settings.describe() if row.env)
    default = load(tmp_path)
    write(".env", text)
    assert load(tmp_path) == default


def test_every_value_that_env_example_shows_is_accepted(tmp_path, write):
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    (tmp_path / "configs").mkdir()
    write(".env", re.sub(r"^# (?=[A-Z_]+=)", "", text, flags=re.MULTILINE))
    loaded = load(tmp_path)
    assert loaded.store == f"lake:{tmp_path}/data/lake"
    assert not loaded.color


def test_every_setting_is_documented():
    for row in settings.describe():
        assert row.doc.endswith("."), row


def readers():
    """Every ``x.y`` that the package reads outside the settings themselves, as (last name of x, y)."""
    for path in sorted((ROOT / "src" / "hdi").rglob("*.py")):
        if path.name == "settings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = node.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                yield name, node.attr


@pytest.mark.parametrize("key", [key for key in KEYS if key != "config_dir"])
def test_no_setting_is_without_a_reader(key):
    # By convention settings are read as settings.store, or, in a group, as settings.log.level or log.level.
    *group, name = key.split(".")
    owners = group or ["settings", "_settings"]
    assert any(owner in owners and attribute == name for owner, attribute in readers()), (
        f"no code in src/hdi reads {key}: remove it, or read it as {owners[0]}.{name}"
    )


def test_the_config_folder_is_read_through_the_overlays():
    assert ("settings", "overlays") in set(readers())


def test_settings_load_neither_data_nor_terminal_libraries():
    heavy = {"polars", "pyarrow", "pydantic_settings", "rich", "typer"}
    code = f"import sys, hdi.settings; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
