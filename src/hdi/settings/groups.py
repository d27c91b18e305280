"""The settings themselves: typed, frozen groups whose defaults are the packaged ones, and what is said about each."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as kept
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_serializer,
)
from pydantic.fields import FieldInfo

from hdi.errors import masked
from hdi.settings import addresses
from hdi.settings.addresses import TIMESCALEDB, SslMode

TIMESCALEDB_HOST = "TIMESCALEDB_HOST"
SUFFIXES = (".yaml", ".yml")
_AMOUNT = re.compile(r"[0-9]+(\.[0-9]+)?")
#: More than this is a slip, and no limit.
_MOST_DOLLARS = Decimal(1_000_000_000)
_LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL"}


@dataclass(frozen=True)
class From:
    """Where else than in a YAML file a setting may be given; ``example`` is what .env.example shows."""

    env: str = ""
    flag: str = ""
    in_file: bool = True
    from_env: Callable[[str], Any] = str
    example: str = ""


@dataclass(frozen=True)
class Places:
    """Where settings came from; settings of other places with the same values are the same."""

    by_key: Mapping[str, str] = kept(default_factory=dict, compare=False)


def _path(value: Path, info: ValidationInfo) -> Path:
    """Absolute; a relative one counts from the working folder, never from the file that names it."""
    cwd = info.context["cwd"] if info.context else Path.cwd()
    return Path(os.path.normpath(cwd / value.expanduser()))


def _store(value: str, info: ValidationInfo) -> str:
    """``lake:/absolute/path``, or a name or URL of another kind of store as it was given."""
    data_dir = info.data.get("data_dir", Path())
    value = value.strip().replace("{data_dir}", str(data_dir))
    if addresses.meant(value):
        return addresses.checked(value)
    if value == TIMESCALEDB or (re.match(r"[a-z][a-z0-9+.-]+:", value) and not value.startswith("lake:")):
        return value
    text = value.removeprefix("lake:")
    if not text:
        raise ValueError("a path, lake:PATH, timescaledb or postgresql://... is needed")
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


def _dollars(value: object) -> object:
    value = _number(value)
    if isinstance(value, str):
        if not _AMOUNT.fullmatch(value.strip()):
            raise ValueError("a number of US dollars is needed, such as 25 or 0.5")
        return Decimal(value.strip())
    return Decimal(0) if value == 0 else value  # of -0.0 the sign would show


def _gateway(value: str) -> str:
    if not value.strip():
        raise ValueError("an address is needed, such as https://hist.databento.com")
    return value.strip()


def _word(value: str) -> str:
    value = value.strip()
    if not value or not value.isprintable():
        raise ValueError("a name is needed")
    return value


def _certificates(value: str, info: ValidationInfo) -> str:
    """Absolute, like every path; ``system`` is libpq's word for the certificates of the system."""
    return value if value == "system" else str(_path(Path(_word(value)), info))


def _webhook(value: SecretStr) -> SecretStr:
    """An address that nobody on the way can read: https, or this machine."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(value.get_secret_value().strip())
        sound = parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and _here(parts.hostname)))
        _ = parts.port
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("an address is needed that begins with https://, or http:// and this machine (127.0.0.1)")
    return SecretStr(value.get_secret_value().strip())


def _here(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listed(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("a list is needed, such as [mail, -s, hdi, me@example.com]")  # noqa: TRY004 - as in _number
    return value


Folder = Annotated[Path, AfterValidator(_path)]
Event = Literal["failure", "budget", "degraded", "stale"]
Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_level)]
Number = BeforeValidator(_number)
Word = Annotated[str, AfterValidator(_word)]
Dollars = Annotated[Decimal, BeforeValidator(_dollars), Field(ge=0, le=_MOST_DOLLARS)]


class Frozen(BaseModel):
    """A group of settings: cannot be changed, knows all its keys, checks its own defaults."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )


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
    workers: Annotated[
        int,
        Number,
        Field(ge=1, le=16, description="Downloads that run ahead of refining, 1 to 16."),
        From(flag="--workers"),
    ] = 2
    download_records: Annotated[
        int,
        Number,
        Field(ge=1, description="Records that one download holds at most, as far as the grid of units allows."),
    ] = 500_000
    batch_above_bytes: Annotated[
        Annotated[int, Number, Field(ge=0)] | None,
        Field(
            description="An order of more bytes than this, as they are billed, becomes a batch job: prepared as files, "
            "paid once, free to download again for 30 days; null: never.",
        ),
    ] = 5_000_000_000
    confirm_above_usd: Annotated[
        Dollars, Field(description="A plan that costs more US dollars than this asks first.")
    ] = Decimal(10)
    budget_usd: Annotated[
        Dollars | None,
        Field(description="A plan that costs more US dollars is refused before the first billed call; null: no limit."),
        From(flag="--budget"),
    ] = None
    max_usd_per_day: Annotated[
        Dollars | None,
        Field(
            description="What would bring the spending of a UTC day above so many US dollars is refused before the "
            "first billed call; null: no limit. With a limit one run buys at a time."
        ),
    ] = None
    max_usd_per_month: Annotated[Dollars | None, Field(description="The same for a UTC month; null: no limit.")] = None
    min_split_usd: Annotated[
        Dollars,
        Field(
            description="Where some contracts of a symbol are stored, the rest is asked for by instrument ids; or all, "
            "to save orders, as long as what a request buys again costs less than so many US dollars; 0: always by ids."
        ),
    ] = Decimal("0.01")


class Query(Frozen):
    """When a query asks before it prints a long table of ticks on a terminal."""

    confirm_days: Annotated[int, Number, Field(ge=0, description="More days than this are confirmed first.")] = 1
    confirm_symbols: Annotated[int, Number, Field(ge=0, description="More symbols than this are confirmed first.")] = 10


class Reconcile(Frozen):
    """From where on what is stored is doubted; `hdi reconcile` compares it with itself."""

    spike_moves: Annotated[
        int,
        Number,
        Field(
            ge=2,
            description="A bar is a spike where it leaves the range of both neighbours by more than so many usual "
            "moves (the median absolute deviation of the changes of its closes).",
        ),
    ] = 50
    stale_bars: Annotated[
        int, Number, Field(ge=2, description="So many equal bars in a row, with a range and a volume, are stale.")
    ] = 10
    stale_quotes: Annotated[
        int, Number, Field(ge=2, description="A quote that stands through a UTC day of so many trades is stale.")
    ] = 100
    copies_percent: Annotated[
        float,
        Number,
        Field(
            ge=0, le=100, description="So many percent of the ticks of an hour must be copies before it looks repeated."
        ),
    ] = 40.0
    copies_least: Annotated[
        int, Number, Field(ge=1, description="And so many copies there must be at least in that hour.")
    ] = 20
    settlement_ranges: Annotated[
        int,
        Number,
        Field(ge=1, description="A settlement may lie so many times the range of its days, or session, away from it."),
    ] = 3
    settlement_volume: Annotated[
        int, Number, Field(ge=0, description="Days on which less was traded say nothing of a settlement.")
    ] = 1_000


class Databento(Frozen):
    """How the vendor Databento is asked."""

    key: Annotated[
        SecretStr | None,
        Field(description="The API key: a secret, never shown, and never read from a YAML file."),
        From(env="DATABENTO_API_KEY", in_file=False, example="your_databento_api_key"),
    ] = None
    gateway: Annotated[
        str,
        AfterValidator(_gateway),
        Field(description="Address of the Historical API; that of a rehearsal vendor instead of the real one."),
        From(env="DATABENTO_GATEWAY"),
    ] = "https://hist.databento.com"
    tries: Annotated[
        int, Number, Field(ge=1, le=20, description="How often a call is tried in all before its unit fails, 1 to 20.")
    ] = 5
    backoff_seconds: Annotated[
        float, Number, Field(ge=0, description="Wait before the second try, in seconds; it doubles from try to try.")
    ] = 0.5


class TimescaleDB(Frozen):
    """Where the server of the store ``timescaledb`` is, and how it is used."""

    host: Annotated[
        Word | None,
        Field(
            description="Host of the server, or the folder of its socket. Where the variable is set and no store is "
            "named, the store is timescaledb."
        ),
        From(env=TIMESCALEDB_HOST, example="localhost"),
    ] = None
    port: Annotated[
        int, Number, Field(ge=1, le=65_535, description="Port of the server."), From(env="TIMESCALEDB_PORT")
    ] = 5432
    user: Annotated[
        Word | None,
        Field(description="Role to log in as; null: PGUSER, or the name of the system's user."),
        From(env="TIMESCALEDB_USER", example="hdi"),
    ] = None
    password: Annotated[
        SecretStr | None,
        Field(
            description="Its password: a secret, never shown, and never read from a YAML file. Without it libpq looks "
            "at PGPASSWORD and ~/.pgpass."
        ),
        From(env="TIMESCALEDB_PASSWORD", in_file=False, example="your_password"),
    ] = None
    dbname: Annotated[
        Word,
        Field(description="Database that holds the tables; it must exist."),
        From(env="TIMESCALEDB_DBNAME"),
    ] = "hist_data"
    sslmode: Annotated[
        SslMode,
        Field(
            description="TLS, in libpq's words: disable, allow, prefer (PGSSLMODE counts where that is set), require, "
            "verify-ca or verify-full."
        ),
        From(env="TIMESCALEDB_SSLMODE", example="verify-full"),
    ] = "prefer"
    sslrootcert: Annotated[
        Annotated[str, AfterValidator(_certificates)] | None,
        Field(
            description="File of the certificates that verify-ca and verify-full trust, or system; null: "
            "PGSSLROOTCERT, or ~/.postgresql/root.crt."
        ),
        From(env="TIMESCALEDB_SSLROOTCERT", example="./configs/root.crt"),
    ] = None
    connect_seconds: Annotated[
        int,
        Number,
        Field(ge=1, le=600, description="How long a connection may take to be made, in seconds, 1 to 600."),
    ] = 10
    programs: Annotated[
        Folder | None,
        Field(
            description="Folder of pg_dump and pg_restore, for hdi backup and restore; null: the newest that the PATH "
            "and /usr/lib/postgresql have."
        ),
        From(env="TIMESCALEDB_PROGRAMS", example="/usr/lib/postgresql/17/bin"),
    ] = None
    compress: Annotated[
        bool, Field(description="Compress old chunks (columnstore); the server's community edition can.")
    ] = False
    compress_after_days: Annotated[
        int,
        Number,
        Field(ge=1, le=36_500, description="Chunks older than this many days are compressed, where compress is true."),
    ] = 30


class Quarantine(Frozen):
    """How long rejected rows are kept."""

    retention_days: Annotated[
        Annotated[int, Number, Field(ge=1, le=36_500)] | None,
        Field(description="`hdi maintain` purges rejects that are older than so many days; null: never."),
    ] = None


class Maintain(Frozen):
    """What `hdi maintain` removes, and after how long."""

    keep_removed_hours: Annotated[
        float,
        Number,
        Field(
            ge=0, le=876_000,
            description="Files of a lake that its tables name no more are kept for so many hours: a reader may be at "
            "them still.",
        ),
    ] = 168.0  # fmt: skip
    log_days: Annotated[
        Annotated[int, Number, Field(ge=1)] | None,
        Field(description="Rotated log files that are older than so many days are removed; null: never."),
    ] = None
    raw_days: Annotated[
        Annotated[int, Number, Field(ge=1)] | None,
        Field(
            description="Raw files whose rows were stored, with no reject, so many days ago are removed; what is made "
            "of them again is bought again; null: never."
        ),
    ] = None


class Alerts(Frozen):
    """Who is told when something needs somebody: `hdi alerts --test` tries it."""

    webhook: Annotated[
        Annotated[SecretStr, AfterValidator(_webhook)] | None,
        Field(
            description="Address that alerts are posted to as JSON, https, or http on this machine: a secret, never "
            "shown, and never read from a YAML file."
        ),
        From(env="HDI_ALERT_WEBHOOK", in_file=False, example="https://alerts.example.com/hooks/your-secret"),
    ] = None
    command: Annotated[
        tuple[Word, ...],
        BeforeValidator(_listed),
        Field(
            description="A program and its arguments, as a list, that is given each alert as JSON on stdin; no shell "
            "reads it. Empty: none."
        ),
    ] = ()
    events: Annotated[
        tuple[Event, ...],
        BeforeValidator(_listed),
        Field(
            description="What is told: failure (of a run or a unit), budget (refused, or nearly spent), degraded "
            "(data, by the vendor's word), stale (a job is behind)."
        ),
    ] = ("failure", "budget", "degraded", "stale")
    every_minutes: Annotated[
        int,
        Number,
        Field(ge=0, le=525_600, description="The same about the same thing is told once in so many minutes."),
    ] = 60
    near_percent: Annotated[
        float,
        Number,
        Field(
            ge=0, le=100,
            description="A budget is nearly spent at so many percent of ingest.max_usd_per_day or _month.",
        ),
    ] = 80.0  # fmt: skip
    stale_hours: Annotated[
        float,
        Number,
        Field(
            ge=0, le=87_600,
            description="A job with sync or a cron line is stale when a session that it lacks ended so many hours ago.",
        ),
    ] = 48.0  # fmt: skip
    timeout_seconds: Annotated[
        float, Number, Field(gt=0, le=300, description="How long the webhook and the command may take, in seconds.")
    ] = 10.0


class Settings(Frozen):
    """All settings; made by :func:`load`. Paths are absolute, ``store_url`` is ready for ``open_store``."""

    config_dir: Annotated[
        Folder | None,
        Field(description="Folder of the YAML files; ./configs where that exists."),
        From(env="HDI_CONFIG_DIR", flag="--config-dir", in_file=False, example="./configs"),
    ] = None
    data_dir: Annotated[
        Folder,
        Field(description="Folder of the raw files and of the default store."),
        From(env="HDI_DATA_DIR"),
    ] = Path("data")
    store: Annotated[
        str,
        AfterValidator(_store),
        Field(
            description="Where data is kept: a path or lake:PATH (Delta tables), timescaledb (the server that the "
            "settings timescaledb.* name), or a server's URL, postgresql://..."
        ),
        From(env="HDI_STORE", flag="--store", example="lake:./data/lake"),
    ] = "lake:{data_dir}/lake"
    dlq_dir: Annotated[Folder, Field(description="Folder to which rejected rows are exported.")] = Path("dlq")
    color: Annotated[
        bool,
        Field(description="Colours on a terminal; NO_COLOR with any value turns them off."),
        From(env="NO_COLOR", from_env=lambda _: False, example="1"),
    ] = True
    log: Log = Log()
    ingest: Ingest = Ingest()
    query: Query = Query()
    reconcile: Reconcile = Reconcile()
    databento: Databento = Databento()
    timescaledb: TimescaleDB = TimescaleDB()
    quarantine: Quarantine = Quarantine()
    maintain: Maintain = Maintain()
    alerts: Alerts = Alerts()

    _secrets: tuple[str, ...] = PrivateAttr(default=())
    _places: Places = PrivateAttr(default_factory=Places)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret values of the environment and the flags, longest first: for masking them, never for showing."""
        return self._secrets

    @property
    def origins(self) -> dict[str, str]:
        """Where each setting that was given came from, by its dotted key; the others are defaults."""
        return dict(self._places.by_key)

    @property
    def store_url(self) -> str:
        """What ``open_store`` takes: ``store``, or the URL of the server that ``timescaledb`` stands for."""
        return addresses.store_url(self)

    @property
    def store_type(self) -> str:
        """``lake``, ``timescaledb``, or the scheme of another kind of store."""
        return addresses.store_type(self)

    @field_serializer("store")
    def _dumped(self, value: str) -> str:
        return masked(value)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked(value) if name == "store" else value

    def overlays(self, kind: Literal["rules", "mappings", "schemas"]) -> tuple[Path, ...]:
        """The user's own YAML files of one kind, ``<config_dir>/<kind>/*.yaml``, sorted by name."""
        folder = self.config_dir / kind if self.config_dir else None
        if folder is None or not folder.is_dir():
            return ()
        return tuple(sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()))


class Described(NamedTuple):
    """One setting as documentation shows it; ``env`` and ``flag`` are empty where there is none."""

    key: str
    env: str
    default: str
    doc: str
    flag: str = ""


def describe() -> list[Described]:
    """Every setting, in the order of the models."""
    return [
        Described(key, at.env, _shown(field.default), field.description or "", at.flag)
        for key, field in leaves(Settings)
        for at in [given_by(field)]
    ]


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting of a model by its dotted key."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Frozen):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def by_key() -> dict[str, FieldInfo]:
    """Every setting by its dotted key."""
    return dict(leaves(Settings))


def group_names() -> set[str]:
    """The names of the groups, which are keys that hold keys."""
    return {key.split(".")[0] for key in by_key() if "." in key}


def known_below(at: tuple[str, ...]) -> list[str]:
    """The names that may stand in a YAML file below ``at``."""
    prefix = "".join(f"{name}." for name in at)
    keys = [key for key, field in leaves(Settings) if key.startswith(prefix) and given_by(field).in_file]
    return list(dict.fromkeys(key.removeprefix(prefix).split(".")[0] for key in keys))


def given_by(field: FieldInfo) -> From:
    """Where else than in a YAML file the setting may be given."""
    return next((item for item in field.metadata if isinstance(item, From)), From())


def secret(field: FieldInfo) -> bool:
    """True for a setting whose value is never shown."""
    kinds = (field.annotation, *get_args(field.annotation))
    return any(SecretStr in (kind, *get_args(kind)) for kind in kinds)


def _shown(default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ", ".join(default)
    return f"./{default}" if isinstance(default, Path) else str(default)
