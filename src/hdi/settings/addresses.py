"""Addresses of a database server: their form, the passwords in them, and the one that the settings make."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from hdi.settings.groups import Settings, TimescaleDB

#: How a connection is encrypted and the server verified, in the words of libpq.
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
#: The word for the server that the settings ``timescaledb.*`` describe.
TIMESCALEDB = "timescaledb"
FORM = "postgresql://user@host:port/dbname?sslmode=require"
_ENCODE = "in a name or password write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23, % as %25"

# What libpq takes, less what it takes for something else than was meant: an @ or a / in a password that is not
# percent-encoded makes the rest of the password a host, which is looked up and shown in errors.
_HEX = r"%(?!00)[0-9A-Fa-f]{2}"
_TEXT = rf"(?:[^\s@/?#%\"<>\\]|{_HEX})*"
_NAME = rf"(?:[^\s@/?#%\"<>\\:]|{_HEX})*"
_HOST = rf"(?:\[[0-9A-Fa-f:.]+(?:%25[\w.-]+)?\]|(?:[^\s@/?#%\"<>\\:,\[\]]|{_HEX})*)(?::\d*)?"
_VALUE = rf"(?:[^\s@#%\"<>\\&=]|{_HEX})*"
_URL = re.compile(
    rf"postgres(?:ql)?://(?:(?P<user>{_NAME})(?::(?P<password>{_TEXT}))?@)?(?P<hosts>{_HOST}(?:,{_HOST})*)"
    rf"(?:/(?P<dbname>{_TEXT}))?(?:\?(?P<query>\w+={_VALUE}(?:&\w+={_VALUE})*))?",
    re.IGNORECASE,
)
_SERVER = re.compile(r"(?:jdbc:)?(?P<scheme>postgres(?:ql)?|timescale(?:db)?)(?:\+\w+)?:", re.IGNORECASE)
_KEYWORDS = re.compile(r"(?:host|hostaddr|port|user|dbname|password|passfile|service|sslmode)\s*=", re.IGNORECASE)
_SECRETS = ("password", "sslpassword")
_PORTS = range(1, 65_536)


def meant(value: str) -> bool:
    """True for a text that can only mean a database server: the beginning of a URL, or ``host=...``."""
    return bool(_SERVER.match(value) or _KEYWORDS.match(value))


def checked(value: str) -> str:
    """The URL of a server, as libpq takes it. Raises ValueError, which shows nothing of the value."""
    if _KEYWORDS.match(value):
        raise ValueError(f"a URL is needed, {FORM} (a folder of that name: lake:...)")
    scheme, _, rest = value.partition(":")
    value = f"{scheme.lower()}:{rest}"
    parts = _URL.fullmatch(value)
    if parts is None:
        raise ValueError(f"the form is {FORM}; {_ENCODE}")
    for port in re.findall(r":(\d+)(?=,|$)", re.sub(r"\[[^]]*\]", "", parts["hosts"])):
        if int(port) not in _PORTS:
            raise ValueError(f"the port {port} is not one of {_PORTS.start} to {_PORTS.stop - 1}")
    mode = _query(parts["query"]).get("sslmode")
    if mode is not None and mode not in get_args(SslMode):
        raise ValueError(f"the sslmode is one of {', '.join(get_args(SslMode))}")
    return value


def shown(value: Any) -> str:
    """A refused value of the setting ``store``: of a server's address only the scheme, for it may hold a password."""
    if not isinstance(value, str) or not meant(value.strip()):
        return repr(value)
    found = _SERVER.match(value.strip())
    return f"{found['scheme']}:***" if found else "***"


def passwords(url: str) -> set[str]:
    """Every form of the passwords in a server's URL: as it stands there, and decoded."""
    parts = _URL.fullmatch(url)
    if parts is None:
        return set()
    found = [parts["password"], *(text for name, text in _query(parts["query"]).items() if name in _SECRETS)]
    return {form for text in found if text for form in (text, *forms(unquote(text)))}


def forms(password: str) -> tuple[str, str]:
    """A password, and how it stands in a URL."""
    return password, quote(password, safe="")


def store_url(settings: Settings) -> str:
    """What ``open_store`` takes: the store, or where that is the word ``timescaledb``, the URL of the server."""
    if settings.store != TIMESCALEDB:
        return settings.store
    return server_url(settings.timescaledb)


def store_type(settings: Settings) -> str:
    """``lake``, ``timescaledb``, or the scheme of another kind of store."""
    return TIMESCALEDB if meant(settings.store) or settings.store == TIMESCALEDB else settings.store.partition(":")[0]


def server_url(timescaledb: TimescaleDB) -> str:
    """The URL of the server that the settings describe. What they leave out is libpq's to find (PGPASSWORD, ...)."""
    host = timescaledb.host or ""
    host = f"[{quote(host, safe=':')}]" if ":" in host else quote(host, safe="")
    login = quote(timescaledb.user or "", safe="")
    if timescaledb.password is not None:
        login += f":{quote(timescaledb.password.get_secret_value(), safe='')}"
    # libpq's own default is left to it, so that PGSSLMODE counts.
    given = {
        "sslmode": timescaledb.sslmode if timescaledb.sslmode != "prefer" else None,
        "sslrootcert": timescaledb.sslrootcert,
    }
    query = "&".join(f"{name}={quote(text, safe='/')}" for name, text in given.items() if text)
    place = f"{host}:{timescaledb.port}/{quote(timescaledb.dbname, safe='')}"
    return f"postgresql://{login}{'@' if login else ''}{place}{'?' if query else ''}{query}"


def _query(text: str | None) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in (text or "").split("&") if pair)
