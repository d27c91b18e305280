"""One typed, frozen settings object, put together from layers of which the later wins.

Packaged defaults (the defaults of the models below: their only place), ``system_config.yaml``,
``api_specific/databento_config.yaml``, the file ``.env``, the environment, flags. Every value
remembers where it came from, so that a bad one is reported at its file, line and column, or with the
name of its variable or flag.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
)
from pydantic.fields import FieldInfo

from hdi import document
from hdi.errors import ConfigError

# pydantic-settings is not used: it doubles the import time of pydantic (0.12 s against 0.06 s), and its
# sources keep no line or column to report.

TIMESCALEDB = "timescaledb"
TIMESCALEDB_HOST = "TIMESCALEDB_HOST"
_SUFFIXES = (".yaml", ".yml")
_SECRET_VARIABLE = re.compile(r"(HDI|TIMESCALEDB|DATABENTO)_\w*(PASSWORD|SECRET|TOKEN|KEY)")
_LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL"}


@dataclass(frozen=True)
class From:
    """Where else than in a YAML file a setting may be given."""

    env: str = ""
    flag: str = ""
    in_file: bool = True
    from_env: Callable[[str], Any] = str


def _path(value: Path, info: ValidationInfo) -> Path:
    """Absolute; a relative one counts from the working folder, never from the file that names it."""
    cwd = info.context["cwd"] if info.context else Path.cwd()
    return Path(os.path.normpath(cwd / value.expanduser()))


def _store(value: str, info: ValidationInfo) -> str:
    """``lake:/absolute/path``, or a name or URL of another kind of store as it was given."""
    data_dir = info.data.get("data_dir", Path())
    value = value.strip().replace("{data_dir}", str(data_dir))
    if value == TIMESCALEDB or (re.match(r"[a-z][a-z0-9+.-]+:", value) and not value.startswith("lake:")):
        return value
    text = value.removeprefix("lake:")
    if not text:
        raise ValueError("a path, lake:PATH, timescaledb or a store's URL is needed")
    path = _path(Path(text), info)
    if text == value and not path.exists() and difflib.get_close_matches(text.lower(), [TIMESCALEDB], 1, 0.75):
        raise ValueError(f"did you mean {TIMESCALEDB}? (A folder of that name: lake:{text})")
    return f"lake:{path}"


def _level(value: object) -> object:
    return _LEVELS.get(value.strip().upper(), value.strip().upper()) if isinstance(value, str) else value


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is needed")  # noqa: TRY004 - pydantic turns a ValueError, not a TypeError, into its report
    return value


Folder = Annotated[Path, AfterValidator(_path)]
Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_level)]
Number = BeforeValidator(_number)


class Frozen(BaseModel):
    """A group of settings: cannot be changed, knows all its keys, checks its own defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class Log(Frozen):
    """What is logged, and where."""

    dir: Annotated[Folder, Field(description="Folder of the log files.")] = Path("logs")
    level: Annotated[
        Level,
        Field(description="DEBUG, INFO, WARNING, ERROR or CRITICAL; DEBUG also shows the log on stderr."),
        From(env="LOG_LEVEL", flag="--log-level"),
    ] = "INFO"
    max_bytes: Annotated[
        int, Number, Field(ge=1024, description="Size in bytes at which a log file is rotated, at least 1024.")
    ] = 10_485_760
    backups: Annotated[
        int, Number, Field(ge=1, le=100, description="How many rotated files are kept of each log, 1 to 100.")
    ] = 5


class Ingest(Frozen):
    """How data is brought in."""

    batch_size: Annotated[
        int,
        Number,
        Field(ge=1, le=16_777_216, description="Rows that are refined at once; memory grows with it."),
        From(flag="--batch-size"),
    ] = 131_072
    max_reject_percent: Annotated[
        float,
        Number,
        Field(
            ge=0, le=100, description="Percentage of a unit's rows that may be rejected; it fails above both limits."
        ),
        From(flag="--max-rejects"),
    ] = 1.0
    min_rejects: Annotated[
        int,
        Number,
        Field(ge=0, description="Number of a unit's rows that may be rejected; it fails above both limits."),
    ] = 100


class Query(Frozen):
    """When a query asks before it prints a long table of ticks on a terminal."""

    confirm_days: Annotated[int, Number, Field(ge=0, description="More days than this are confirmed first.")] = 1
    confirm_symbols: Annotated[int, Number, Field(ge=0, description="More symbols than this are confirmed first.")] = 10


class Settings(Frozen):
    """All settings; made by :func:`load`. Paths are absolute, ``store`` is ready for ``open_store``."""

    config_dir: Annotated[
        Folder | None,
        Field(description="Folder of the YAML files; ./configs where that exists."),
        From(env="HDI_CONFIG_DIR", flag="--config-dir", in_file=False),
    ] = None
    data_dir: Annotated[
        Folder,
        Field(description="Folder of the raw files and of the default store."),
        From(env="HDI_DATA_DIR"),
    ] = Path("data")
    store: Annotated[
        str,
        AfterValidator(_store),
        Field(description="Where data is kept: a path, lake:PATH (Delta tables), or timescaledb."),
        From(env="HDI_STORE", flag="--store"),
    ] = "lake:{data_dir}/lake"
    dlq_dir: Annotated[Folder, Field(description="Folder to which rejected rows are exported.")] = Path("dlq")
    color: Annotated[
        bool,
        Field(description="Colours on a terminal; NO_COLOR with any value turns them off."),
        From(env="NO_COLOR", from_env=lambda _: False),
    ] = True
    log: Log = Log()
    ingest: Ingest = Ingest()
    query: Query = Query()

    _secrets: tuple[str, ...] = PrivateAttr(default=())

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret values of the environment, longest first: for masking them, never for showing."""
        return self._secrets

    def overlays(self, kind: Literal["rules", "mappings", "schemas"]) -> tuple[Path, ...]:
        """The user's own YAML files of one kind, ``<config_dir>/<kind>/*.yaml``, sorted by name."""
        folder = self.config_dir / kind if self.config_dir else None
        if folder is None or not folder.is_dir():
            return ()
        return tuple(sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file()))


class Described(NamedTuple):
    """One setting as documentation shows it; ``env`` and ``flag`` are empty where there is none."""

    key: str
    env: str
    default: str
    doc: str
    flag: str = ""


class _Error(Protocol):
    """Makes the error that names a place."""

    def __call__(self, message: str, hint: str = "") -> ConfigError: ...


class _Given(NamedTuple):
    """A raw value, and the error that names its place."""

    value: Any
    error: _Error


def describe() -> list[Described]:
    """Every setting, in the order of the models; a setting with two variables stands there twice."""
    rows = []
    for key, field in _leaves(Settings):
        at = _from(field)
        rows.append(Described(key, at.env, _shown(field.default), field.description or "", at.flag))
        if key == "store":
            doc = "Where this is set and no store is named, the store is timescaledb."
            rows.append(Described(key, TIMESCALEDB_HOST, "", doc))
    return rows


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

    Raises ConfigError for an unknown key, a bad value, or a folder that was named and does not exist.
    """
    cwd = cwd or Path.cwd()
    variables = _dotenv(cwd / ".env") | _environment(os.environ if env is None else env)
    given = _from_variables(variables)
    if config_dir is not None:
        given["config_dir"] = _Given(config_dir, _named("--config-dir"))
    folder = _config_dir(given.pop("config_dir", None), cwd)
    files = _config_files(folder) if folder else []
    layers: dict[str, _Given] = {}
    for path in files:
        layers |= _from_document(document.load(path))
    if "store" not in layers and TIMESCALEDB_HOST in variables:
        layers["store"] = _Given(TIMESCALEDB, variables[TIMESCALEDB_HOST].error)
    layers |= given | _from_flags(flags or {})
    settings = _validated(layers, folder, cwd)
    secrets = {given.value for name, given in variables.items() if _SECRET_VARIABLE.fullmatch(name)}
    settings._secrets = tuple(sorted(secrets, key=len, reverse=True))  # noqa: SLF001 - ours, set once, before anyone sees it
    return settings


def _validated(layers: Mapping[str, _Given], config_dir: Path | None, cwd: Path) -> Settings:
    nested: dict[str, Any] = {"config_dir": config_dir}
    for key, given in layers.items():
        *groups, name = key.split(".")
        at = nested
        for group in groups:
            at = at.setdefault(group, {})
        at[name] = given.value
    nested = {name: nested.get(name, {}) for name in _groups()} | nested
    try:
        return Settings.model_validate(nested, context={"cwd": cwd})
    except ValidationError as exc:
        problems = []
        for problem in exc.errors(include_url=False):
            key = next(k for k in _by_key() if k.split(".") == list(problem["loc"])[: k.count(".") + 1])
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            problems.append(layers[key].error(f"{layers[key].value!r}: {message}").message)
        raise ConfigError("\n".join(problems)) from exc


def _from_document(doc: document.Document) -> dict[str, _Given]:
    """The leaves of one YAML file by dotted key."""
    found: dict[str, _Given] = {}

    def at_document(*keys: str) -> _Error:
        return lambda message, hint="": doc.error(message, *keys, hint=hint)

    def walk(node: Any, *at: str) -> None:
        if not isinstance(node, dict):
            message = f"{node!r}: keys are needed here: {', '.join(_known(at))}"
            raise doc.error(message, *at)
        for name, value in node.items():
            keys = (*at, str(name))
            if keys[-1] not in _known(at):
                raise at_document(*keys)(*_unknown("key", keys[-1], _known(at)))
            if len(keys) == 1 and keys[0] in _groups():
                if value is not None:
                    walk(value, *keys)
            else:
                found[".".join(keys)] = _Given(value, at_document(*keys))

    walk(doc.data)
    return found


def _from_variables(variables: Mapping[str, _Given]) -> dict[str, _Given]:
    by_name = {at.env: (key, at) for key, field in _leaves(Settings) if (at := _from(field)).env}
    found = {}
    for name, given in variables.items():
        if name in by_name:
            key, at = by_name[name]
            found[key] = _Given(at.from_env(given.value), given.error)
        elif name.startswith("HDI_") and not name.startswith("HDI_TEST_"):
            known = sorted(n for n in by_name if n.startswith("HDI_"))
            raise given.error(*_unknown("variable", name, known))
    return found


def _from_flags(flags: Mapping[str, Any]) -> dict[str, _Given]:
    fields = _by_key()
    found = {}
    for key, value in flags.items():
        if key not in fields or key == "config_dir":
            raise ConfigError(*_unknown("setting", key, sorted(fields.keys() - {"config_dir"})))
        if value is not None:
            found[key] = _Given(value, _named(_from(fields[key]).flag or key))
    return found


def _dotenv(path: Path) -> dict[str, _Given]:
    """The variables of a ``.env`` file: quotes, ``export`` and comments as usual, ``$`` is itself."""
    if not path.is_file():
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
            raise ConfigError(f"{path}:{line}: a line of the form NAME=value is needed")
        if binding.key and binding.value:
            found[binding.key] = _Given(binding.value, _named(f"{path}:{line}: {binding.key}"))
    return found


def _environment(env: Mapping[str, str]) -> dict[str, _Given]:
    return {name: _Given(value, _named(f"environment variable {name}")) for name, value in env.items() if value}


def _named(where: str) -> _Error:
    return lambda message, hint="": ConfigError(f"{where}: {message}", hint)


def _config_dir(given: _Given | None, cwd: Path) -> Path | None:
    if given is None:
        folder = cwd / "configs"
        return folder if folder.is_dir() else None
    folder = Path(os.path.normpath(cwd / Path(given.value).expanduser()))
    if not folder.is_dir():
        raise given.error(f"{folder} is not a folder")
    return folder


def _config_files(folder: Path) -> list[Path]:
    """The settings files that exist, in the order of their layers."""
    files = []
    for parent, names in ((folder, ("system_config",)), (folder / "api_specific", ("databento_config", "databento"))):
        found = [path for name in names for suffix in _SUFFIXES if (path := parent / f"{name}{suffix}").is_file()]
        if len(found) > 1:
            message = f"{found[0]}: the same settings are also in {', '.join(p.name for p in found[1:])}"
            raise ConfigError(message, "Keep one of them.")
        files += found
    return files


def _unknown(what: str, name: str, known: list[str]) -> tuple[str, str]:
    """Message and hint for a name that is not known."""
    close = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"Did you mean {close[0]}? " if close else ""
    return f"unknown {what} {name}", f"{hint}Known here: {', '.join(known)}."


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Frozen):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _by_key() -> dict[str, FieldInfo]:
    return dict(_leaves(Settings))


def _groups() -> set[str]:
    return {key.split(".")[0] for key in _by_key() if "." in key}


def _known(at: tuple[str, ...]) -> list[str]:
    """The names that may stand in a YAML file below ``at``."""
    prefix = "".join(f"{name}." for name in at)
    keys = [key for key, field in _leaves(Settings) if key.startswith(prefix) and _from(field).in_file]
    return list(dict.fromkeys(key.removeprefix(prefix).split(".")[0] for key in keys))


def _from(field: FieldInfo) -> From:
    return next((item for item in field.metadata if isinstance(item, From)), From())


def _shown(default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return f"./{default}" if isinstance(default, Path) else str(default)
