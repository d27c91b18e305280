"""``hdi demo``: the whole job on SYNTHETIC data from a rehearsal vendor, every number read back from the store."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.buy import displayed, offer_dict, offer_lines
from hdi.cli.ingest import noted_rules, outcome_dict, outcome_line, outcome_name
from hdi.cli.render import bytes_text, count, dumps, plain
from hdi.cli.session import Session, put, session, started, terminal
from hdi.model import dollars_text

if TYPE_CHECKING:
    import polars as pl

    from hdi.api import HistoricalData
    from hdi.buying.offer import Offer
    from hdi.model import Outcome
    from hdi.rehearsal import Vendor

#: In a folder that this command made, and may therefore make anew.
_MARK = "SYNTHETIC-DEMO.txt"
_NOTICE = "The data in this folder is SYNTHETIC: made by `hdi demo`, which makes the folder anew each time.\n"
_SAMPLE = 5
_TRADES = 500_000
#: The rehearsal vendor: this many times its usual activity, and bad rows for each instrument and day.
_VENDOR: Mapping[str, Any] = {"seed": 0, "scale": 3.5, "hostile": 1, "until": "2024-07-01"}
_FRONT = "CL.c.0,ES.c.0,NG.c.0,HO.c.0,RB.c.0"
_PARENTS = "CL.FUT,ES.FUT,NG.FUT,HO.FUT,RB.FUT"
_WEEK = ("2024-03-11", "2024-03-15")
#: What is bought: schema, symbols, first and last day.
_ORDERS = (
    ("ohlcv-1d", _FRONT, "2024-01-01", "2024-03-31"),
    ("ohlcv-1m", _FRONT, *_WEEK),
    ("trades", _FRONT, *_WEEK),
    ("trades", "ES.FUT", "2024-03-13", "2024-03-13"),
    ("tbbo", _FRONT, "2024-03-14", "2024-03-14"),
    ("statistics", _FRONT, "2024-03-01", "2024-03-31"),
    ("definition", _PARENTS, "2024-03-14", "2024-03-15"),
)
#: What is shown: a heading, and what is asked for (schema, symbols, window, columns).
_SHOWN: tuple[tuple[str, str, str, tuple[str, str], str], ...] = (
    ("Daily bars of the front ES contract across its roll, found by date", "ohlcv-1d", "ES.c.0",
     ("2024-03-13", "2024-03-20"), "ts_event,instrument_id,symbol,open_price,high_price,low_price,close_price,volume"),
    ("Bars of 15 minutes, made from those of one minute", "ohlcv-15m", "ES.c.0,CL.c.0", _WEEK, ""),
    ("Trades of all ES contracts, spreads with negative prices among them", "trades", "ES.FUT",
     ("2024-03-13", "2024-03-13"), ""),
    ("Quotes at each trade", "tbbo", "NG.c.0", ("2024-03-14", "2024-03-14"), ""),
    ("Settlements and the like", "statistics", "HO.c.0", ("2024-03-01", "2024-03-31"), ""),
    ("Instrument definitions", "definition", "RB.FUT", ("2024-03-14", "2024-03-15"), ""),
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    context: typer.Context,
    folder: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where raw files and lake go, made anew each time. [default: data/demo]"),
    ] = None,
) -> None:
    """Show the whole job on SYNTHETIC data: buy from a rehearsal vendor, buy again, query, quarantine.

    The vendor is a process of its own on this machine; the lake stays for you.
    """
    from hdi.errors import RequestError

    given = session(context)
    if given.store is not None:
        raise RequestError("the demo makes a store of its own", "Leave --store out; --folder says where it goes.")
    began = time.perf_counter()
    with given.data() as usual:
        home = Path(folder).absolute() if folder else usual.settings.data_dir / "demo"
    with _alone(home):
        _shown(given, _fresh(home), began)


def _shown(given: Session, home: Path, began: float) -> None:
    """Do all of it in an empty folder. Exit 1 when a claim fails."""
    from hdi.rehearsal import spawn

    place = Session(f"lake:{home / 'lake'}", given.config_dir, given.log_level, given.json)
    own = {"data_dir": home, "dlq_dir": home / "dlq", "log.dir": home / "logs"}
    show = _Show(quiet=given.json)
    with spawn(**_VENDOR) as vendor, _pointed_at(vendor):
        keys = {"databento.gateway": vendor.gateway, "databento.key": vendor.key}
        with place.data(**own, **keys) as data:
            given.log_dir, given.debug = place.log_dir, place.debug
            _run(data, vendor, show)
    _end(show, home, time.perf_counter() - began)
    if given.json:
        put(dumps(show.report | {"claims": show.claims, "folder": str(home), "store": place.store}))
    if not all(show.claims.values()):
        raise typer.Exit(1)


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep another demo out of the folder, which it would make anew."""
    from hdi.errors import RequestError

    lock = home.with_name(f".{home.name}.lock")
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as exc:
        raise RequestError(f"{home} cannot be written: {exc.strerror}", "Name another folder with --folder.") from exc
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise RequestError(f"another demo runs in {home}", "Wait for it, or name another --folder.") from exc
        yield


@dataclass
class _Show:
    """What is printed, and what was claimed and holds or not."""

    quiet: bool
    claims: dict[str, bool] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=lambda: {"synthetic": True})

    def say(self, text: str = "") -> None:
        """Print a line, unless one JSON document is all that is wanted."""
        if not self.quiet:
            put(text)

    def claim(self, sentence: str, *, holds: bool) -> None:
        """Print a claim with its outcome; one that fails fails the command."""
        self.claims[sentence] = holds
        self.say(f"  [{'ok' if holds else 'FAILED'}] {sentence}")


def _fresh(home: Path) -> Path:
    """The empty folder of the demo. RequestError for a folder that something else is in."""
    from hdi.errors import RequestError

    if home.exists():
        if not home.is_dir() or (any(home.iterdir()) and not (home / _MARK).exists()):
            raise RequestError(f"{home} holds other things", "Name an empty or new folder with --folder.")
        shutil.rmtree(home)
    try:
        home.mkdir(parents=True)
        (home / _MARK).write_text(_NOTICE, encoding="utf-8")
    except OSError as exc:
        raise RequestError(f"{home} cannot be written: {exc.strerror}", "Name another folder with --folder.") from exc
    return home


@contextlib.contextmanager
def _pointed_at(vendor: Vendor) -> Iterator[None]:
    """The environment in which the vendor's client trusts the rehearsal."""
    before = dict(os.environ)
    os.environ.update(vendor.environment())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _run(data: HistoricalData, vendor: Vendor, show: _Show) -> None:
    started()
    show.say("SYNTHETIC data from a rehearsal vendor: a process of its own on this machine, asked over HTTPS")
    show.say("by the vendor's own client, which takes it for the real one.")
    _buy(data, vendor, show)
    _again(data, vendor, show)
    _query(data, show)
    _agree(data, show)
    _quarantine(data, vendor, show)


def _end(show: _Show, home: Path, seconds: float) -> None:
    show.report["seconds"] = round(seconds, 3)
    held = all(show.claims.values())
    show.say(f"\n{'All claims hold' if held else 'A CLAIM FAILED'}, after {seconds:.1f} s.")
    show.say("The lake stays, for you to play with (SYNTHETIC data):")
    shown = str(home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home)
    show.say(f"  hdi --store {shown}/lake query -s ES.c.0 --start-date 2024-01-01 --end-date 2024-01-31")
    show.say(f"  rejected rows, for jq and the like: {shown}/dlq; the vendor's bytes: {shown}/raw; logs: {shown}/logs")


def _buy(data: HistoricalData, vendor: Vendor, show: _Show) -> None:
    outcomes: list[Outcome] = []
    offers: list[Offer] = []
    for order in _ORDERS:
        show.say(f"\nBuying {order[0]} of {order[1]}, {order[2]} to {order[3]}:")
        offer, came = _order(data, order, show)
        offers.append(offer)
        outcomes += came
    show.say()
    receipts = [r for o in outcomes for r in o.receipts]
    show.claim("every order is stored", holds=all(o.status == "stored" for o in outcomes))
    fetched, stored, bad = (sum(getattr(r, what) for r in receipts) for what in ("fetched", "stored", "quarantined"))
    show.claim(
        f"{fetched} rows fetched are {stored} stored and {bad} in quarantine",
        holds=fetched == stored + bad and all(r.fetched == r.stored + r.quarantined for r in receipts),
    )
    show.claim("the store holds the rows that the receipts say, counted by reading", holds=_rows(data) == stored)
    trades = _rows(data, "trades")
    show.claim(f"{trades} of them are trades: at least {_TRADES}", holds=trades >= _TRADES)
    quoted, quote = sum(o.quote.dollars for o in offers), sum(o.quote.size for o in offers)
    paid = Decimal(str(data.store().ledger()["dollars"].sum()))
    books = vendor.books
    show.report["bought"] = {"dollars": str(paid), "bytes": books.billed_bytes}
    cost = f"{dollars_text(_cents(books.dollars))} for {bytes_text(books.billed_bytes)}"
    show.claim(
        f"by the vendor's own books they cost {cost}: what was offered, and what the receipts say",
        holds=books.billed_bytes == quote and _cents(books.dollars) == _cents(quoted) == _cents(paid),
    )


def _cents(dollars: Any) -> Decimal:
    return Decimal(dollars).quantize(Decimal("0.0001"))


def _order(data: HistoricalData, order: Sequence[str], show: _Show) -> tuple[Offer, list[Outcome]]:
    """Ask for one offer, and take it."""
    schema, symbols, start, end = order
    buying = data.buying(dataset="GLBX.MDP3", schema=schema, symbols=symbols, start=start, end=end)
    offer = buying.offer()
    for line in offer_lines(offer)[2:]:
        show.say(line)
    progress, outcomes = buying.run(offer)
    noted = noted_rules(data.schemas)
    came = []
    with displayed(progress, wanted=not show.quiet and terminal(sys.stderr), color=data.settings.color) as clear:
        for outcome in outcomes:
            came.append(outcome)
            clear()
            show.say(f"  {outcome_line(outcome, noted, outcome_name(outcome))}")
    show.report.setdefault("offers", []).append(offer_dict(offer))
    show.report.setdefault("ingested", []).extend(outcome_dict(o) for o in came)
    return offer, came


def _again(data: HistoricalData, vendor: Vendor, show: _Show) -> None:
    show.say("\nThe same orders again:")
    before = (_rows(data), data.store().ledger().height, vendor.books.billed_bytes, vendor.books.dollars)
    offers = []
    for schema, symbols, start, end in _ORDERS:
        buying = data.buying(dataset="GLBX.MDP3", schema=schema, symbols=symbols, start=start, end=end)
        offers.append(buying.offer())
        list(buying.run(offers[-1])[1])
    units, size = sum(o.units for o in offers), sum(o.quote.size for o in offers)
    spent = sum((o.quote.dollars for o in offers), Decimal(0))
    show.say(f"  {count(units, 'unit')}, {bytes_text(size)}, {dollars_text(spent)}")
    after = (_rows(data), data.store().ledger().height, vendor.books.billed_bytes, vendor.books.dollars)
    show.claim(
        "nothing is bought or stored twice: not a row, not a receipt, not a byte in the vendor's books is new",
        holds=before == after and not units and not size and not spent,
    )


def _query(data: HistoricalData, show: _Show) -> None:
    found = []
    for heading, schema, symbols, (start, end), columns in _SHOWN:
        chosen = columns.split(",") if columns else data.schemas.find(schema)[0].display
        result = data.query(symbols, start, end, schema=schema, columns=chosen)
        frame = result.collect()
        show.say(f"\n{heading}: {schema} {symbols}, {count(frame.height, 'row')} in {result.seconds:.3f} s")
        few = _SAMPLE if schema != "ohlcv-1d" else frame.height
        _sample(frame, result.columns, show, few)
        found.append(frame.height)
    show.say()
    show.claim("each of these questions has an answer", holds=all(found))


def _sample(frame: pl.DataFrame, columns: dict[str, pl.DataType], show: _Show, most: int) -> None:
    few = frame.head(most)
    for line in "".join(plain([few], columns)).splitlines():
        show.say(f"  {line}")
    if frame.height > few.height:
        show.say(f"  ... and {frame.height - few.height} more")


def _agree(data: HistoricalData, show: _Show) -> None:
    """Three kinds that were bought apart tell the same: trades, minutes and days."""
    for symbol in ("ES.c.0", "CL.c.0"):
        totals = [
            int(data.query(symbol, *_WEEK, schema=schema, columns=[column]).collect()[column].sum())
            for schema, column in (("ohlcv-1d", "volume"), ("ohlcv-1m", "volume"), ("trades", "size"))
        ]
        show.claim(
            f"{symbol} traded {totals[0]} contracts that week by daily bars, minute bars and trades alike",
            holds=len(set(totals)) == 1,
        )


def _quarantine(data: HistoricalData, vendor: Vendor, show: _Show) -> None:
    import polars as pl

    rejects = data.store().quarantine()
    show.say(f"\nQuarantine: {count(rejects.height, 'row')}, none lost")
    reasons = (
        rejects.group_by("schema", rules=pl.col("rules").list.sort().list.join(", "))
        .agg(rows=pl.len(), symbols=pl.col("symbol").unique().sort().str.join(","))
        .sort("schema", "rules")
    )
    _sample(reasons, dict(reasons.schema), show, reasons.height)
    show.report["quarantine"] = dict(rejects["schema"].value_counts(sort=True).iter_rows())
    planted = sum(entry.planted for entry in vendor.books.entries)
    show.claim(
        f"they are as many as the vendor planted on purpose: {planted}", holds=planted == rejects.height and planted > 0
    )


def _rows(data: HistoricalData, *names: str) -> int:
    """Rows that can be read from the store, counted by reading."""
    wanted = names or [n.name for s in data.schemas for n in s.names.values() if n.made_from is None]
    return sum(
        frame.height
        for name in wanted
        for frame in data.query("ALL_SYMBOLS", "2020-01-01", "2030-12-31", schema=name, columns=["dataset"]).frames()
    )


__all__ = ["demo", "register"]
