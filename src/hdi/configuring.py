"""Settings and the files of the config folder: what counts, where it came from, what is wrong, and how they begin."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from hdi.buying.ordering import parse_request
from hdi.calendars import Calendars
from hdi.errors import ConfigError, RequestError, StoreError, masked, together
from hdi.expressions import compile_sql
from hdi.jobs import Job, load_jobs
from hdi.mapping import Expression, load_mapping
from hdi.model import Window
from hdi.refine import CONTEXT, Refinery, rule_checks
from hdi.rolls.rules import load_rules
from hdi.schema import Schema, Schemas, closest
from hdi.schema_files import load_schemas, ruled
from hdi.settings import Settings, config_folder, describe, load
from hdi.settings.groups import SUFFIXES
from hdi.settings.layers import FOLDERS
from hdi.settings.written import CONFIGS, ENV, env, files
from hdi.symbol_groups import expand, load_groups

MASK = "***"
DEFAULT = "default"
#: What is read from a config folder, beside the folders of files of the user's own.
_KNOWN = (
    "system_config", "api_specific/databento_config", "api_specific/databento", "calendars", "symbol_groups",
    "roll_rules",
)  # fmt: skip
_VENDOR = "databento"


@dataclass(frozen=True)
class Value:
    """One setting: its value, where a secret is masked, and where it came from."""

    key: str
    value: Any
    where: str


def values(settings: Settings, wanted: Collection[str] = ()) -> list[Value]:
    """Every setting, or those that are wanted by key or group. RequestError for what there is none of."""
    known = [row.key for row in describe()]
    chosen = list(dict.fromkeys(key for name in wanted for key in _chosen(name, known))) if wanted else known
    places = {key: where.removesuffix(f": {key}") for key, where in settings.origins.items()}
    return [Value(key, _shown(settings, key), places.get(key, DEFAULT)) for key in chosen]


def _chosen(name: str, known: Sequence[str]) -> list[str]:
    found = [key for key in known if key == name or key.startswith(f"{name}.")]
    if not found:
        groups = dict.fromkeys(key.split(".")[0] for key in known)
        close = difflib.get_close_matches(name, [*known, *groups], 3, 0.5)
        meant = f"Did you mean {', '.join(close)}? " if close else ""
        raise RequestError(f"there is no setting {name!r}", f"{meant}hdi config show lists them all.")
    return found


def _shown(settings: Settings, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    if isinstance(value, SecretStr):
        return MASK
    return masked(value) if isinstance(value, str) else value


@dataclass
class Checked:
    """What was read of a config folder, what is wrong in it, and what to know beside."""

    folder: Path | None
    files: list[Path] = field(default_factory=list)
    problems: list[ConfigError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    settings: Settings | None = None

    @property
    def messages(self) -> list[str]:
        """Every problem, one line each."""
        return together(self.problems).message.splitlines()

    @property
    def hints(self) -> list[str]:
        """What to do about them."""
        return together(self.problems).hint.splitlines()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """What goes wrong inside is a problem."""
        try:
            yield
        except ConfigError as exc:
            self.problems.append(exc)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``hdi --json config validate`` gives them."""
        return {
            "valid": not self.problems, "config_dir": None if self.folder is None else str(self.folder),
            "files": [str(path) for path in self.files], "jobs": len(self.jobs), "problems": self.messages,
            "hints": self.hints, "notes": self.notes,
        }  # fmt: skip


def check(
    config_dir: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    vendor_columns: Callable[[str], Mapping[str, Any]] | None = None,
) -> Checked:
    """Everything that is wrong in settings, ``.env``, the environment and all YAML files of the config folder.

    The arguments are those of :func:`hdi.settings.load`; ``vendor_columns`` gives the vendor's columns of a schema,
    and with it mappings are tried on them.
    """
    found = Checked(config_folder(config_dir, variables, cwd))
    with found.kept():
        found.settings = load(config_dir, variables, flags, cwd)
    folder = found.folder
    with found.kept():
        load_groups(folder)
    with found.kept():
        load_rules(folder)
    with found.kept():
        Calendars.load(folder)
    schemas = _declared(found)
    _mappings(found, schemas, vendor_columns)
    with found.kept():
        found.jobs = load_jobs(folder)
    for job in found.jobs.values():
        with found.kept():
            fits(job, schemas, folder)
    found.files, strangers = _files(folder)
    found.notes = [_stranger(path, folder) for path in strangers if folder is not None]
    return found


def fits(job: Job, schemas: Schemas, folder: Path | None) -> Window:
    """The window of a job whose schema, symbols and symbol type can be ordered. ConfigError, with its place, if not."""
    try:
        window = Window.parse(job.start_date, job.end_date or job.start_date)
        symbols = expand(job.symbols, folder)
        parse_request(
            schemas, dataset=job.dataset, schema=job.schema, symbols=symbols, window=window, stype=job.stype_in
        )
    except RequestError as exc:
        if exc.message.startswith(str(folder)):  # a file of groups that is wrong, told already
            raise
        raise ConfigError(f"{job.where}: {exc.message}", exc.hint) from exc
    return window


def _declared(found: Checked) -> Schemas:
    """The schemas as far as they can be read; each file of the user's own is looked at by itself."""
    good: list[Path] = []
    for path in _own(found.folder, "schemas"):
        with found.kept():
            load_schemas([*good, path])
            good.append(path)
    schemas = list(load_schemas(good))
    for path in _own(found.folder, "rules"):
        with found.kept():
            schemas, problems = ruled(schemas, path)
            found.problems += problems
            for schema in schemas:
                for rule in (rule for rule in schema.rules if rule.where.startswith(f"{path}:")):
                    with found.kept():
                        rule_checks(replace(schema, rules=(rule,)))
    return Schemas(schemas)


def _mappings(found: Checked, schemas: Schemas, vendor_columns: Callable[[str], Mapping[str, Any]] | None) -> None:
    """Look at the user's mappings, and bind them as refining does."""
    kinds = [schema.kind for schema in schemas]
    for path in _own(found.folder, "mappings"):
        if path.stem != _VENDOR:
            found.notes.append(f"{path} is not read: a mapping has the name of its vendor, {_VENDOR}.yaml")
            continue
        with found.kept():
            mapping = load_mapping(_VENDOR, [path], kinds)
            for schema in (s for s in schemas if vendor_columns is not None and s.kind in mapping.expressions):
                name = next(name for name in schema.names.values() if name.made_from is None)
                columns = vendor_columns(name.name) if vendor_columns is not None else {}
                if not _mapped(found, schema, mapping.expressions[schema.kind].items(), columns):
                    with found.kept():
                        Refinery(schema, name, mapping, columns, "")


def _mapped(
    found: Checked, schema: Schema, expressions: Iterable[tuple[str, Expression]], columns: Mapping[str, Any]
) -> int:
    """Look at the expressions of one kind by themselves; how many are wrong."""
    before = len(found.problems)
    for column, each in expressions:
        with found.kept():
            if column not in schema.dtypes:
                hint = closest(column, schema.dtypes)
                raise ConfigError(f"{each.where}: {schema.kind} has no column {column!r}", hint)
            compile_sql(each.sql, {**columns, **CONTEXT}, each.where)
    return len(found.problems) - before


def _own(folder: Path | None, kind: str) -> list[Path]:
    if folder is None or not (folder / kind).is_dir():
        return []
    return sorted(path for path in (folder / kind).iterdir() if path.suffix in SUFFIXES and path.is_file())


def _files(folder: Path | None) -> tuple[list[Path], list[Path]]:
    """The files of a config folder that are read, and those YAML files that nobody reads."""
    if folder is None:
        return [], []
    names = {folder / f"{name}{suffix}" for name in _KNOWN for suffix in SUFFIXES}
    places = (folder, folder / "api_specific", *(folder / kind for kind in FOLDERS))
    every = [path for place in places if place.is_dir() for path in sorted(place.iterdir()) if path.suffix in SUFFIXES]
    read = [path for path in every if path in names or path.parent.name in FOLDERS]
    return read, [path for path in every if path not in read]


def _stranger(path: Path, folder: Path) -> str:
    name = path.relative_to(folder).with_suffix("").as_posix()
    close = difflib.get_close_matches(name, _KNOWN, 1, 0.6)
    return f"{path} is not read" + (f": did you mean {close[0]}.yaml?" if close else "")


@dataclass(frozen=True)
class Written:
    """What became of one file: ``written``, ``same`` (it was there, equal), ``kept`` (it differs), ``replaced``.

    ``aside`` is where a file that was replaced lies now.
    """

    path: Path
    result: str
    aside: Path | None = None


def write(folder: Path, *, force: bool = False, given: Mapping[str, str] | None = None) -> list[Written]:
    """Write the files of a config folder and ``.env`` below a folder, for their owner alone.

    A file that is there and differs stays, unless ``force`` puts it aside. ``given`` are variables that ``.env`` sets.
    Raises ConfigError for a value that no line of ``.env`` can hold, StoreError where it cannot be written.
    """
    texts = files() | {ENV: _env(given or {})}
    try:
        return [_put(folder / path, text, force=force) for path, text in texts.items()]
    except OSError as exc:
        raise StoreError(
            f"{exc.filename or folder}: cannot be written: {exc.strerror or exc}", "Name another folder, or make room."
        ) from exc


def env_stays(folder: Path, given: Mapping[str, str]) -> bool:
    """Whether :func:`write` would leave a file ``.env`` alone that is there, and says something else."""
    path = folder / ENV
    return _there(path) and not _equal(path, _env(given))


def _env(given: Mapping[str, str]) -> str:
    try:
        return env(dict(given))
    except ValueError as exc:
        raise ConfigError(f"a value for {ENV}: {exc}", "Write it in printable characters.") from exc


def _put(path: Path, text: str, *, force: bool) -> Written:
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir(mode=0o700)
    result, aside = "written", None
    if _there(path):
        if _equal(path, text):
            return Written(path, "same")
        if not force:
            return Written(path, "kept")
        result, aside = "replaced", _free(path)
        path.rename(aside)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    return Written(path, result, aside)


def _free(path: Path) -> Path:
    """A name beside it that nothing has."""
    places = (path.with_name(f"{path.name}.old-{number}") for number in itertools.count(1))
    return next(place for place in places if not _there(place))


def _there(path: Path) -> bool:
    return os.path.lexists(path)


def _equal(path: Path, text: str) -> bool:
    try:
        return path.is_file() and path.read_bytes() == text.encode()
    except OSError:
        return False


__all__ = [
    "CONFIGS", "DEFAULT", "ENV", "MASK", "Checked", "Value", "Written", "check", "env_stays", "fits", "values", "write",
]  # fmt: skip
