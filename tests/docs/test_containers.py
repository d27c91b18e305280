"""What can be known of Dockerfile and docker-compose.yml without an engine."""

import functools
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hdi.cli import run
from hdi.settings import describe, load

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
#: What the image of TimescaleDB (and that of PostgreSQL below it) reads, of what one might give it.
IMAGE_READS = {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "TIMESCALEDB_TELEMETRY"}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
TOOLS = {"pytest", "ruff", "mypy", "hypothesis", "import-linter", "uv", "hatchling"}


def instructions():
    """Instruction and text of each in the Dockerfile, with continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip() and line[0] != "#"]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def last_stage():
    every = instructions()
    return every[max(i for i, (name, _) in enumerate(every) if name == "FROM") :]


def ignored(path):
    """True when .dockerignore keeps the path out of the build."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split():
        pattern = re.escape(line.removeprefix("!").strip("/"))
        for glob, meant in ((r"\*\*/", "(?:.*/)?"), (r"\*\*", ".*"), (r"\*", "[^/]*"), (r"\[", "["), (r"\]", "]")):
            pattern = pattern.replace(glob, meant)
        if re.fullmatch(f"{pattern}(?:/.*)?", str(path)):
            verdict = not line.startswith("!")
    return verdict


def resolved(text, variables):
    """The text as compose reads it with those variables in .env."""
    return VARIABLE.sub(lambda m: variables.get(m[1]) or (m[3] if m[2] == "-" else ""), str(text))


@functools.cache
def settings():
    """What hdi makes of the app's environment, in its working folder."""
    given = {"TIMESCALEDB_PASSWORD": "secret", "TIMESCALEDB_USER": "me", "TIMESCALEDB_PORT": "15432"}
    (workdir,) = [text for name, text in last_stage() if name == "WORKDIR"]
    environment = {name: resolved(text, given) for name, text in SERVICES["app"]["environment"].items()}
    return load(env=environment, cwd=Path(workdir))


def whole(name):
    """A service with what it takes over from another one."""
    service = SERVICES[name]
    return (whole(service["extends"]["service"]) | service) if "extends" in service else service


def test_compose_has_no_version_key_and_starts_two_services_unless_more_are_asked_for() -> None:
    assert COMPOSE.keys() == {"services", "volumes"}
    profiles = {name: service.get("profiles") for name, service in SERVICES.items()}
    monitoring = {key: ["monitoring"] for key in ("metrics", "prometheus", "grafana")}
    assert profiles == {"timescaledb": None, "app": None, "schedule": ["schedule"], **monitoring}


@pytest.mark.parametrize("name", ["schedule", "metrics"])
def test_the_commands_of_the_services_are_commands_of_hdi(name, capsys) -> None:
    program, command, *options = SERVICES[name]["command"]
    assert program == "hdi"
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in options if option.startswith("--"))


def test_what_is_published_is_reached_from_this_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_path_that_is_copied_exists_and_is_in_the_build() -> None:
    copied = [text.split()[:-1] for name, text in instructions() if name == "COPY" and "--from=" not in text]
    paths = [path for sources in copied for path in sources]
    assert {"requirements.lock", "src", "main.py", "configs"} <= set(paths)
    for path in paths:
        assert (ROOT / path).exists(), path
        assert not ignored(path), path


@pytest.mark.parametrize(
    "path", [".env", ".git/config", ".timescaledb/data17", ".venv/bin/python", "data/raw/x", "src/hdi/__pycache__/x"]
)
def test_secrets_data_and_tools_stay_out_of_the_build(path) -> None:
    assert ignored(path)


def test_what_the_package_is_built_from_is_in_the_build() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    copied = " ".join(text for name, text in instructions() if name == "COPY")
    assert {project["readme"], *project["license-files"], "pyproject.toml"} <= set(copied.split())


def test_images_are_pinned() -> None:
    stages = [text.split()[0] for name, text in instructions() if name == "FROM"]
    assert len(set(stages)) == 1  # the interpreter of the first stage is that of the last
    for image in [*stages, *(service["image"] for service in SERVICES.values() if "image" in service)]:
        assert re.search(r":v?\d+\.\d+[\w.-]*$", image), image
    assert SERVICES["timescaledb"]["image"].endswith("-pg17")


def test_the_app_does_not_run_as_root() -> None:
    users = [text for name, text in last_stage() if name == "USER"]
    assert users
    assert users[-1].split(":")[0] not in ("root", "0")
    assert "user" not in SERVICES["app"]


def test_the_image_runs_a_program_that_the_package_installs() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    stage = last_stage()
    assert not [text for name, text in stage if name == "ENTRYPOINT"]
    (command,) = [json.loads(text) for name, text in stage if name == "CMD"]
    assert command[0] in scripts
    assert SERVICES["app"]["healthcheck"]["test"][1] in scripts
    (path,) = [text for name, text in stage if name == "ENV"]
    assert path.startswith("PATH=/opt/hdi/bin:")


def test_the_health_check_of_the_app_is_a_command_of_hdi(tmp_path) -> None:
    _, program, *arguments = SERVICES["app"]["healthcheck"]["test"]
    command = [Path(sys.executable).with_name(program), *arguments]
    environment = {"HOME": str(tmp_path), "HDI_STORE": f"lake:{tmp_path}/lake"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_variable_of_the_services_is_read_by_somebody() -> None:
    assert set(SERVICES["app"]["environment"]) <= {row.env for row in describe() if row.env}
    assert set(SERVICES["timescaledb"]["environment"]) <= IMAGE_READS
    sources = (ROOT / "deploy/grafana/provisioning/datasources/hdi.yml").read_text(encoding="utf-8")
    ours = {name for name in SERVICES["grafana"]["environment"] if not name.startswith("GF_")}
    assert ours == set(re.findall(r": \$(\w+)$", sources, re.MULTILINE))


def test_the_example_of_env_names_every_variable_that_compose_takes_from_it() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    used = {m[1] for m in VARIABLE.finditer((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))}
    assert used >= {"TIMESCALEDB_USER", "TIMESCALEDB_PASSWORD", "TIMESCALEDB_DBNAME", "DATABENTO_API_KEY"}
    assert used <= set(re.findall(r"^(?:# )?(\w+)=", example, re.MULTILINE))


def test_no_secret_is_written_down_and_no_password_has_a_default() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name:
                # Without its role Grafana shows no SQL; nothing else needs it.
                assert VARIABLE.fullmatch(value)[2] == ("-" if name == "GRAFANA_DB_PASSWORD" else "?"), name
                assert VARIABLE.fullmatch(value)[2] == "?" or not VARIABLE.fullmatch(value)[3], name
            if "KEY" in name or "WEBHOOK" in name:
                assert not VARIABLE.fullmatch(value)[3], name


def test_inside_the_app_hdi_finds_the_server_of_compose() -> None:
    server = settings().timescaledb
    assert settings().store == "timescaledb"
    assert server.host in SERVICES
    given = SERVICES["timescaledb"]["environment"]
    assert (server.user, server.dbname) == ("me", resolved(given["POSTGRES_DB"], {}))
    (published,) = SERVICES["timescaledb"]["ports"]
    assert published.startswith("127.0.0.1:")
    assert published.endswith(f":{server.port}")


def test_what_hdi_writes_lies_on_volumes_that_its_user_owns() -> None:
    mounts = [mount.split(":") for mount in SERVICES["app"]["volumes"]]
    volumes = {source: target for source, target, *_ in mounts if not source.startswith(".")}
    written = settings()
    assert set(volumes.values()) == {str(written.data_dir), str(written.log.dir), str(written.dlq_dir)}
    assert written.log.dir == Path("/app/logs")
    (owned,) = [text for name, text in last_stage() if name == "RUN" and text.startswith("install -d -o hdi ")]
    assert {PurePosixPath(target).name for target in volumes.values()} == set(owned.split()[-len(volumes) :])
    (configs,) = [mount for mount in mounts if mount[0].startswith(".")]
    assert configs[1:] == [str(written.config_dir or "/app/configs"), "ro"]
    assert (ROOT / configs[0]).is_dir()


def test_volumes_are_declared_and_the_database_has_one() -> None:
    used = {mount.split(":")[0] for name in SERVICES for mount in whole(name)["volumes"]}
    assert {name for name in used if not name.startswith(".")} == COMPOSE["volumes"].keys()
    assert "database:/var/lib/postgresql/data" in SERVICES["timescaledb"]["volumes"]


def test_every_service_is_checked_limited_and_restarted_and_the_app_waits_for_the_database() -> None:
    for name in SERVICES:
        service = whole(name)
        assert service["healthcheck"].keys() == {"test", "interval", "timeout", "retries", "start_period"}
        assert re.fullmatch(r"\d+g", service["mem_limit"])
        assert service["restart"] == ("on-failure:5" if name == "schedule" else "unless-stopped")
    assert SERVICES["app"]["depends_on"] == {"timescaledb": {"condition": "service_healthy"}}


def locked(*group):
    """The names that scripts/locked.py takes out of the lock."""
    command = [sys.executable, ROOT / "scripts" / "locked.py", *group]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len(re.findall(r"^\S+==", printed, re.MULTILINE)) <= len(re.findall(r"--hash=sha256:", printed))
    return {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", printed, re.MULTILINE)}


def needed(name, extras=("",)):
    """The names of the distributions that one needs on this Python, and what those need."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            yield canonicalize_name(requirement.name)
            yield from needed(requirement.name, ("", *requirement.extras))


def test_the_image_gets_all_that_the_package_needs_and_none_of_our_tools() -> None:
    assert set(needed("hdi")) <= locked()
    assert not locked() & TOOLS
    assert {"hatchling", "editables", "pip"} <= locked("build")
