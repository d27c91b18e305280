"""Settings: layers, their order, and errors that say where the wrong value stands."""

import ast
import os
import re
import subprocess
import sys
from decimal import Decimal
from functools import cache
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


NULLABLE = ("batch_above_bytes", "budget_usd", "max_usd_per_day", "max_usd_per_month")


@pytest.mark.parametrize("name", NULLABLE)
def test_null_is_no_number_and_a_negative_one_is_refused(tmp_path, write, name):
    file = write("configs/system_config.yaml", f"ingest:\n  {name}: null\n")
    assert getattr(load(tmp_path).ingest, name) is None
    file.write_text(f"ingest:\n  {name}: -1\n", encoding="utf-8")
    assert name in refused(tmp_path)


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
    assert (loaded.ingest.workers, loaded.ingest.download_records) == (2, 500_000)
    assert (loaded.ingest.confirm_above_usd, loaded.ingest.budget_usd) == (Decimal(10), None)
    assert (loaded.databento.key, loaded.databento.gateway) == (None, "https://hist.databento.com")
    assert (loaded.databento.tries, loaded.databento.backoff_seconds) == (5, 0.5)
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
    assert settings.api_file(tmp_path / "nowhere") is None


def test_dollars_are_exact_decimals_from_every_layer(tmp_path, write):
    write("configs/system_config.yaml", "ingest: {confirm_above_usd: 0.1, budget_usd: 12.30}")
    ingest = load(tmp_path).ingest
    assert (ingest.confirm_above_usd, ingest.budget_usd) == (Decimal("0.1"), Decimal("12.3"))
    assert load(tmp_path, flags={"ingest.budget_usd": "0.07"}).ingest.budget_usd == Decimal("0.07")
    assert load(tmp_path, flags={"ingest.budget_usd": 0}).ingest.budget_usd == 0


def test_the_gateway_comes_from_a_file_or_the_environment(tmp_path, write):
    write("configs/api_specific/databento_config.yaml", "databento: {gateway: ' https://127.0.0.1:1 '}")
    assert load(tmp_path).databento.gateway == "https://127.0.0.1:1"
    assert load(tmp_path, {"DATABENTO_GATEWAY": "https://127.0.0.1:2"}).databento.gateway == "https://127.0.0.1:2"


# The key


def test_the_key_comes_from_the_environment_or_dotenv_and_is_masked_everywhere(tmp_path, write):
    write(".env", "DATABENTO_API_KEY=db-from-dotenv\n")
    assert load(tmp_path).databento.key.get_secret_value() == "db-from-dotenv"
    loaded = load(tmp_path, {"DATABENTO_API_KEY": "db-from-environment"})
    assert loaded.databento.key.get_secret_value() == "db-from-environment"
    assert loaded.secrets == ("db-from-environment",)
    shown = f"{loaded!r} {loaded} {loaded.databento} {loaded.databento.key} {loaded.model_dump()} "
    assert "db-from" not in shown + loaded.model_dump_json()


def test_a_key_that_a_program_gives_is_masked_too(tmp_path):
    loaded = load(tmp_path, flags={"databento.key": "db-from-a-program"})
    assert loaded.databento.key.get_secret_value() == "db-from-a-program"
    assert loaded.secrets == ("db-from-a-program",)


@pytest.mark.parametrize("file", ["system_config.yaml", "api_specific/databento_config.yaml"])
@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("databento:\n  key: db-very-secret\n", ":2:3: databento.key: key is"),
        ("databento:\n  api_key: db-very-secret\n", ":2:3: databento.api_key: api_key is"),
        ("DATABENTO_API_KEY: db-very-secret\n", ":1:1: DATABENTO_API_KEY: DATABENTO_API_KEY is"),
    ],
)
def test_a_key_in_a_file_is_refused_with_the_reason_and_not_shown(tmp_path, write, file, text, where):
    path = write(f"configs/{file}", text)
    message = refused(tmp_path)
    assert message.startswith(f"{path}{where} not read from a file: ")
    assert "a key is a secret\nTake it out, and give it as DATABENTO_API_KEY in the environment" in message
    assert "very-secret" not in message


def test_a_key_in_the_place_of_its_group_is_not_shown(tmp_path, write):
    path = write("configs/system_config.yaml", "databento: db-very-secret\n")
    message = refused(tmp_path)
    assert message == f"{path}:1:1: databento: a str: keys are needed here: gateway, tries, backoff_seconds"


def test_a_key_of_a_wrong_type_is_not_shown(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, flags={"databento.key": 4_711_000})
    assert str(caught.value).startswith("databento.key: ***: ")
    assert "4711000" not in f"{caught.value} {caught.value.__cause__}"


# Jobs


def test_jobs_are_left_alone_in_the_file_of_their_source(tmp_path, write):
    text = "jobs: {any: thing, 7: [at all]}\nquery: {confirm_days: 7}\n"
    write("configs/api_specific/databento.yaml", text)
    assert load(tmp_path).query.confirm_days == 7


@pytest.mark.parametrize(
    ("file", "text", "where"),
    [
        ("system_config.yaml", "log:\njobs:\n  a: {}\n", ":2:1: jobs: "),
        ("api_specific/databento_config.yaml", "databento:\n  jobs:\n    a: {}\n", ":2:3: databento.jobs: "),
    ],
)
def test_jobs_elsewhere_are_refused_with_their_place(tmp_path, write, file, text, where):
    path = write(f"configs/{file}", text)
    assert refused(tmp_path) == (
        f"{path}{where}jobs are not read from here\n"
        "They stand at the top of api_specific/databento_config.yaml in the config folder."
    )


def test_an_unknown_key_beside_the_jobs_is_refused(tmp_path, write):
    path = write("configs/api_specific/databento_config.yaml", "job: {}\n")
    message = refused(tmp_path)
    assert message.startswith(f"{path}:1:1: job: unknown key job\nDid you mean jobs? Known here: data_dir, ")


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


@pytest.mark.parametrize("text", ["1e400", "1e2", "1_0", "\u0663", "-0", "+5", ".5", "5.", "nan", "1000000000.01", ""])
def test_a_budget_is_a_plain_amount_of_dollars(tmp_path, text):
    assert refused(tmp_path, flags={"ingest.budget_usd": text}).startswith(f"--budget: {text!r}: ")


@pytest.mark.parametrize("text", ["1e400", "'1_0'", "1.0e+300"])
def test_a_limit_is_a_plain_amount_of_dollars_in_a_file_too(tmp_path, write, text):
    write("configs/system_config.yaml", f"ingest: {{max_usd_per_day: {text}}}\n")
    assert "ingest.max_usd_per_day: " in refused(tmp_path)


def test_no_dollars_have_no_sign(tmp_path, write):
    write("configs/system_config.yaml", "ingest: {budget_usd: -0.0}\n")
    assert str(load(tmp_path).ingest.budget_usd) == "0"


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
    assert "Did you mean batch_size? Known here: batch_size, max_reject_percent, min_rejects, workers, " in message


@pytest.mark.parametrize("text", ["lgo: {level: INFO}", "1: x", "config_dir: x"])
def test_an_unknown_key_at_the_top_is_refused(tmp_path, write, text):
    write("configs/system_config.yaml", text)
    message = refused(tmp_path)
    assert "unknown key" in message
    known = dict.fromkeys(key.split(".")[0] for key in KEYS if key != "config_dir")
    assert f"Known here: {', '.join(known)}." in message


@pytest.mark.parametrize(
    ("text", "where", "allowed"),
    [
        ("log:\n  level: LOUD\n", ":2:3: log.level: 'LOUD': ", "'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'"),
        ("ingest:\n  batch_size: many\n", ":2:3: ingest.batch_size: 'many': ", "integer"),
        ("ingest:\n  batch_size: 0\n", ":2:3: ingest.batch_size: 0: ", "greater than or equal to 1"),
        ("ingest:\n  batch_size: true\n", ":2:3: ingest.batch_size: True: ", "a number is needed"),
        ("ingest:\n  max_reject_percent: 101\n", ":2:3: ingest.max_reject_percent: 101: ", "less than or equal to 100"),
        ("ingest:\n  max_reject_percent: .nan\n", ":2:3: ingest.max_reject_percent: nan: ", "finite number"),
        ("ingest:\n  workers: 17\n", ":2:3: ingest.workers: 17: ", "less than or equal to 16"),
        ("ingest:\n  workers: 0\n", ":2:3: ingest.workers: 0: ", "greater than or equal to 1"),
        ("ingest:\n  download_records: 0\n", ":2:3: ingest.download_records: 0: ", "greater than or equal to 1"),
        ("ingest:\n  budget_usd: -1\n", ":2:3: ingest.budget_usd: -1: ", "greater than or equal to 0"),
        ("ingest:\n  budget_usd: .inf\n", ":2:3: ingest.budget_usd: inf: ", "finite number"),
        ("ingest:\n  budget_usd: true\n", ":2:3: ingest.budget_usd: True: ", "a number is needed"),
        ("ingest:\n  confirm_above_usd:\n", ":2:3: ingest.confirm_above_usd: None: ", "Decimal"),
        ("databento:\n  tries: 21\n", ":2:3: databento.tries: 21: ", "less than or equal to 20"),
        ("databento:\n  tries: 0\n", ":2:3: databento.tries: 0: ", "greater than or equal to 1"),
        ("databento:\n  backoff_seconds: -1\n", ":2:3: databento.backoff_seconds: -1: ", "than or equal to 0"),
        ("databento:\n  gateway: ' '\n", ":2:3: databento.gateway: ' ': ", "https://hist.databento.com"),
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
    assert refused(tmp_path, {"DATABENTO_GATEWAY": " "}).startswith("environment variable DATABENTO_GATEWAY: ' ': ")
    assert refused(tmp_path, flags={"ingest.max_reject_percent": "x"}).startswith("--max-rejects: 'x': ")
    assert refused(tmp_path, flags={"ingest.workers": 17}).startswith("--workers: 17: ")
    assert refused(tmp_path, flags={"ingest.budget_usd": "ten"}).startswith("--budget: 'ten': ")
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


def test_the_shipped_files_state_the_defaults_and_name_every_key(tmp_path):
    folder = ROOT / "configs"
    shipped = settings.load(config_dir=folder, env={}, cwd=tmp_path)
    default = load(tmp_path)
    assert {key: get(shipped, key) for key in KEYS[1:]} == {key: get(default, key) for key in KEYS[1:]}
    marks = set()
    for path in (folder / "system_config.yaml", settings.api_file(folder)):
        text = re.sub(r"^# (?=\w+: )", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        marks |= document.parse(text, path).marks.keys()
    never_there = {"config_dir", "databento.key", "timescaledb.password", "alerts.webhook"}
    assert {key for key in KEYS if tuple(key.split(".")) not in marks} == never_there


def test_env_example_has_every_variable_and_changes_nothing(tmp_path, write):
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = re.findall(r"^#? ?([A-Z_]+)=", text, re.MULTILINE)
    # One of them is for docker compose alone.
    assert sorted(named) == sorted([*(row.env for row in settings.describe() if row.env), "GRAFANA_DB_PASSWORD"])
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
    assert loaded.databento.key is not None


def test_every_setting_is_documented():
    for row in settings.describe():
        assert row.doc.endswith("."), row


@cache
def readers():
    """Every ``x.y`` that the package reads outside the models and their loading, as (last name of x, y)."""
    found = set()
    for path in sorted((ROOT / "src" / "hdi").rglob("*.py")):
        if path.parent.name == "settings" and path.name != "addresses.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = node.value
                found.add((owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", ""), node.attr))
    return found


@pytest.mark.parametrize("key", [key for key in KEYS if key != "config_dir"])
def test_no_setting_is_without_a_reader(key):
    # By convention settings are read as settings.store, or, in a group, as settings.log.level or log.level.
    *group, name = key.split(".")
    owners = group or ["settings", "_settings"]
    assert any(owner in owners and attribute == name for owner, attribute in readers()), (
        f"no code in src/hdi reads {key}: remove it, or read it as {owners[0]}.{name}"
    )


def test_the_config_folder_is_read_through_the_overlays():
    assert ("settings", "overlays") in readers()


def test_settings_load_neither_data_nor_terminal_libraries():
    heavy = {"polars", "pyarrow", "pydantic_settings", "rich", "typer"}
    code = f"import sys, hdi.settings; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_settings_file_that_leads_nowhere_is_an_error_and_not_no_file(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "system_config.yaml").symlink_to(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match=r"system_config\.yaml"):
        load(tmp_path)


def test_an_env_file_that_leads_nowhere_is_an_error_and_a_folder_of_that_name_is_none(tmp_path):
    (tmp_path / ".env").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"\.env"):
        load(tmp_path)
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").mkdir()
    assert load(tmp_path).data_dir == tmp_path / "data"


@pytest.mark.parametrize("closed", ["configs", "configs/api_specific", "configs/rules"])
def test_a_config_folder_that_is_closed_to_this_user_is_not_taken_for_an_empty_one(tmp_path, monkeypatch, closed):
    (tmp_path / closed).mkdir(parents=True)
    seen = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / closed and seen(path, mode))
    assert f"{tmp_path / closed}: this user may not read it" in refused(tmp_path)
