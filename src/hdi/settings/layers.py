"""The layers that settings are read from, their order, and errors that say where the wrong value stands."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast

from pydantic import ValidationError

from hdi import document
from hdi.errors import ConfigError, together
from hdi.settings import addresses
from hdi.settings.addresses import TIMESCALEDB
from hdi.settings.groups import (
    SUFFIXES,
    TIMESCALEDB_HOST,
    Places,
    Settings,
    by_key,
    given_by,
    group_names,
    known_below,
    leaves,
    secret,
)

# pydantic-settings is not used: it doubles the import time of pydantic (0.12 s against 0.06 s), and its
# sources keep no line or column to report.

#: The file of the source databento below the config folder, and its key that is no setting: the predefined jobs.
API_FILE = "api_specific/databento_config.yaml"
JOBS = "jobs"
#: The folders below it for files of the user's own.
FOLDERS = ("rules", "mappings", "schemas")
_SYSTEM_NAMES = ("system_config",)
_API_NAMES = ("databento_config", "databento")
_SECRET_VARIABLE = re.compile(r"(HDI|TIMESCALEDB|DATABENTO)_\w*(PASSWORD|SECRET|TOKEN|KEY)|PGPASSWORD")
_SECRET_KEY = re.compile(r"[\w-]*(?P<what>key|password|webhook)", re.IGNORECASE)
_MASK = "***"
_Secret = Literal["key", "password", "webhook"]


class _Error(Protocol):
    """Makes the error that names a place."""

    def __call__(self, message: str, hint: str = "") -> ConfigError: ...


class _Given(NamedTuple):
    """A raw value, the error that names its place, and the place."""

    value: Any
    error: _Error
    where: str


def load(
    config_dir: Path | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Read all layers and check them.

    ``config_dir`` is the value of ``--config-dir``; ``env`` stands for ``os.environ``; ``flags`` maps
    dotted keys (``log.level``) to values, of which None means not given; ``cwd`` is the working folder, from
    which relative paths count and in which ``.env`` and ``configs`` are looked for. An empty variable is
    one that is not set. Unknown variables are errors only where their name starts with ``HDI_``
    (``HDI_TEST_`` is left to test suites).

    Raises ConfigError for unknown keys, bad values, or a folder that was named and does not exist: all at once.
    """
    cwd = cwd or Path.cwd()
    problems: list[ConfigError] = []
    variables, given, folder = _outside(config_dir, env, cwd, problems)
    layers = _from_files(folder, problems)
    if "store" not in layers and TIMESCALEDB_HOST in variables:
        layers["store"] = variables[TIMESCALEDB_HOST]._replace(value=TIMESCALEDB)
    if "store" in layers and addresses.passwords(str(layers["store"].value).strip()):
        message, hint = _not_in_a_file("a password", "password")
        hint = f"{hint} A URL with a password in it can be given as HDI_STORE there."
        problems.append(layers.pop("store").error(message, hint))
    layers |= given | _from_flags(flags or {})
    settings = _validated(layers, folder, cwd, problems)
    if settings.store == TIMESCALEDB and settings.timescaledb.host is None:
        raise layers["store"].error(
            f"{TIMESCALEDB}: its host is not known",
            f"Set {TIMESCALEDB_HOST} (and TIMESCALEDB_USER, TIMESCALEDB_PASSWORD, ...), or name the server by its URL: "
            f"--store {addresses.FORM}.",
        )
    variable_secrets = {given.value for name, given in variables.items() if _SECRET_VARIABLE.fullmatch(name)}
    settings._secrets = _secrets(settings, variable_secrets)  # noqa: SLF001 - ours, set once, before anyone sees it
    settings._places = Places({key: given.where for key, given in layers.items()})  # noqa: SLF001 - the same
    return settings


def config_folder(
    config_dir: Path | None = None, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Path | None:
    """The folder of the YAML files that :func:`load` reads, whatever is wrong in them; None where there is none."""
    try:
        return _outside(config_dir, env, cwd or Path.cwd(), [])[2]
    except ConfigError:
        return None


def _outside(
    config_dir: Path | None, env: Mapping[str, str] | None, cwd: Path, problems: list[ConfigError]
) -> tuple[dict[str, _Given], dict[str, _Given], Path | None]:
    """The variables by name, the settings that they give, and the folder of the files."""
    variables = _dotenv(cwd / ".env", problems) | _environment(os.environ if env is None else env)
    given = _from_variables(variables, problems)
    if config_dir is not None:
        given["config_dir"] = _placed(config_dir, "--config-dir")
    return variables, given, _config_dir(given.get("config_dir"), cwd)


def _from_files(folder: Path | None, problems: list[ConfigError]) -> dict[str, _Given]:
    """The settings of the YAML files by dotted key; the later file wins."""
    layers: dict[str, _Given] = {}
    if folder is None:
        return layers
    finders: tuple[tuple[Callable[[], Path | None], tuple[str, ...]], ...] = (
        (lambda: _one_of(folder, _SYSTEM_NAMES), ()), (lambda: api_file(folder), (JOBS,)),
    )  # fmt: skip
    for find, others in finders:
        try:
            if path := find():
                layers |= _from_document(document.load(path), problems, others)
        except ConfigError as exc:
            problems.append(exc)
    return layers


def _secrets(settings: Settings, found: set[str]) -> tuple[str, ...]:
    """Every secret, longest first, in each form in which it may turn up."""
    found |= addresses.passwords(settings.store)
    if settings.databento.key is not None:
        found.add(settings.databento.key.get_secret_value())
    if settings.alerts.webhook is not None:
        found.add(settings.alerts.webhook.get_secret_value())
    if settings.timescaledb.password is not None:
        found.update(addresses.forms(settings.timescaledb.password.get_secret_value()))
    return tuple(sorted(found, key=lambda secret: (-len(secret), secret)))


def _validated(
    layers: Mapping[str, _Given], config_dir: Path | None, cwd: Path, problems: list[ConfigError]
) -> Settings:
    nested: dict[str, Any] = {}
    for key, given in layers.items():
        *groups, name = key.split(".")
        at = nested
        for group in groups:
            at = at.setdefault(group, {})
        at[name] = given.value
    nested = {name: nested.get(name, {}) for name in group_names()} | nested | {"config_dir": config_dir}
    try:
        settings = Settings.model_validate(nested, context={"cwd": cwd})
    except ValidationError as exc:
        for problem in exc.errors(include_url=False, include_input=False):
            key = next(k for k in by_key() if k.split(".") == list(problem["loc"])[: k.count(".") + 1])
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            value = _MASK if secret(by_key()[key]) else addresses.shown(layers[key].value)
            problems.append(layers[key].error(f"{value}: {message}"))
        raise together(problems) from exc
    if problems:
        raise together(problems)
    return settings


def _from_document(
    doc: document.Document, problems: list[ConfigError], others: tuple[str, ...] = ()
) -> dict[str, _Given]:
    """The leaves of one YAML file by dotted key; ``others`` are keys at its top that somebody else reads."""
    found: dict[str, _Given] = {}

    def at_document(*keys: str) -> _Error:
        return lambda message, hint="": doc.error(message, *keys, hint=hint)

    def walk(node: Any, *at: str) -> None:
        known = [*known_below(at), *(() if at else others)]
        if not isinstance(node, dict):
            problems.append(doc.error(f"{_shown(node, at)}: keys are needed here: {', '.join(known)}", *at))
            return
        for name, value in node.items():
            keys = (*at, str(name))
            if keys[-1] not in known:
                problems.append(at_document(*keys)(*_unknown_key(keys, known)))
            elif len(keys) == 1 and keys[0] in group_names():
                if value is not None:
                    walk(value, *keys)
            elif len(keys) > 1 or keys[0] not in others:
                found[".".join(keys)] = _Given(value, at_document(*keys), doc.where(*keys))

    walk(doc.data)
    return found


def _shown(node: Any, at: tuple[str, ...]) -> str:
    """What stands where a group should; only its type where it may be a secret that was put there."""
    if any(secret(field) for key, field in by_key().items() if at and key.startswith(f"{at[0]}.")):
        return f"a {type(node).__name__}"
    return repr(node)


def _unknown_key(keys: tuple[str, ...], known: list[str]) -> tuple[str, str]:
    """Message and hint for a key that is not known in a YAML file."""
    name = keys[-1]
    if name == JOBS:
        return "jobs are not read from here", f"They stand at the top of {API_FILE} in the config folder."
    if found := _SECRET_KEY.fullmatch(name):
        return _not_in_a_file(name, cast("_Secret", found["what"].lower()))
    return _unknown("key", name, known)


def _not_in_a_file(name: str, what: _Secret) -> tuple[str, str]:
    """Message and hint for a secret in a YAML file."""
    settings = (given_by(field).env for field in by_key().values() if secret(field))
    variables = ", ".join(variable for variable in settings if variable.endswith(what.upper()))
    return (
        f"{name} is not read from a file: files are copied, shared and committed, and a {what} is a secret",
        f"Take it out, and give it as {variables} in the environment or in .env.",
    )


def _from_variables(variables: Mapping[str, _Given], problems: list[ConfigError]) -> dict[str, _Given]:
    by_name = {at.env: (key, at) for key, field in leaves(Settings) if (at := given_by(field)).env}
    found = {}
    for name, given in variables.items():
        if name in by_name:
            key, at = by_name[name]
            found[key] = given._replace(value=at.from_env(given.value))
        elif name.startswith("HDI_") and not name.startswith("HDI_TEST_"):
            known = sorted(n for n in by_name if n.startswith("HDI_"))
            problems.append(given.error(*_unknown("variable", name, known)))
    return found


def _from_flags(flags: Mapping[str, Any]) -> dict[str, _Given]:
    fields = by_key()
    found = {}
    for key, value in flags.items():
        if key not in fields or key == "config_dir":
            raise ConfigError(*_unknown("setting", key, sorted(fields.keys() - {"config_dir"})))
        if value is not None:
            found[key] = _placed(value, given_by(fields[key]).flag or key)
    return found


def _dotenv(path: Path, problems: list[ConfigError]) -> dict[str, _Given]:
    """The variables of a ``.env`` file: quotes, ``export`` and comments as usual, ``$`` is itself."""
    # A folder of that name is somebody's virtual environment.
    if not os.path.lexists(path) or path.is_dir():
        return {}
    from dotenv.parser import parse_stream

    found: dict[str, _Given] = {}
    try:
        with path.open(encoding="utf-8") as file:
            bindings = list(parse_stream(file))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}") from exc
    for binding in bindings:
        text = binding.original.string
        line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
        if binding.error:
            problems.append(ConfigError(f"{path}:{line}: a line of the form NAME=value is needed"))
        elif binding.key and binding.value:
            found[binding.key] = _placed(binding.value, f"{path}:{line}: {binding.key}")
    return found


def _environment(env: Mapping[str, str]) -> dict[str, _Given]:
    return {name: _placed(value, f"environment variable {name}") for name, value in env.items() if value}


def _placed(value: Any, where: str) -> _Given:
    return _Given(value, _named(where), where)


def _named(where: str) -> _Error:
    return lambda message, hint="": ConfigError(f"{where}: {message}", hint)


def _config_dir(given: _Given | None, cwd: Path) -> Path | None:
    if given is None:
        folder = cwd / "configs"
        if not folder.is_dir():
            return None
    else:
        folder = Path(os.path.normpath(cwd / Path(given.value).expanduser()))
        if not folder.is_dir():
            raise given.error(f"{folder} is not a folder")
    # What lies in a folder that is closed to this user would be taken for not there.
    for place in (folder, folder / Path(API_FILE).parent, *(folder / name for name in FOLDERS)):
        if place.is_dir() and not os.access(place, os.R_OK | os.X_OK):
            raise ConfigError(f"{place}: this user may not read it", "Give this user the right to read that folder.")
    return folder


def api_file(config_dir: Path) -> Path | None:
    """The file of the source databento that exists, with settings and jobs. Raises ConfigError when there are two."""
    return _one_of(config_dir / Path(API_FILE).parent, _API_NAMES)


def _one_of(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The one file that exists under one of these names."""
    found = [path for name in names for suffix in SUFFIXES if os.path.lexists(path := folder / f"{name}{suffix}")]
    if len(found) > 1:
        message = f"{found[0]}: the same settings are also in {', '.join(p.name for p in found[1:])}"
        raise ConfigError(message, "Keep one of them.")
    return found[0] if found else None


def _unknown(what: str, name: str, known: list[str]) -> tuple[str, str]:
    """Message and hint for a name that is not known."""
    close = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"Did you mean {close[0]}? " if close else ""
    return f"unknown {what} {name}", f"{hint}Known here: {', '.join(known)}."
