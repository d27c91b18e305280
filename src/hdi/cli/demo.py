"""``hdi demo``: the whole job on synthetic data, every number read back from the store."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.ingest import noted_rules, outcome_dict, outcome_line
from hdi.cli.render import count, dumps, plain
from hdi.cli.session import Session, put, session, started

if TYPE_CHECKING:
    import polars as pl

    from hdi.api import HistoricalData
    from hdi.demo import Tape

#: In a folder that this command made, and may therefore make anew.
_MARK = "SYNTHETIC-DEMO.txt"
_NOTICE = "The data in this folder is SYNTHETIC: made by `hdi demo`, which makes the folder anew each time.\n"
_TICKS = ("2024-01-02", "2024-01-04")
_SAMPLE = 5
#: What is shown: a heading, and what is asked for (schema, symbols, window, columns).
_SHOWN: tuple[tuple[str, str, str, tuple[str, str], str], ...] = (
    ("Daily bars of the front ES contract across its roll, found by date", "ohlcv-1d", "ES.c.0",
     ("2024-03-13", "2024-03-20"), "ts_event,instrument_id,open_price,high_price,low_price,close_price,volume"),
    ("Bars of 15 minutes, made from those of one minute", "ohlcv-15m", "ESH4,CLG4", _TICKS, ""),
    ("Trades of all ES contracts, a spread with negative prices among them", "trades", "ES.FUT", _TICKS, ""),
    ("Quotes at each trade", "tbbo", "CLG4", _TICKS, ""),
    ("Settlements and the like", "statistics", "ESH4", _TICKS, ""),
    ("Instrument definitions", "definition", "CL.FUT", _TICKS, ""),
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    context: typer.Context,
    folder: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where files and lake go, made anew each time. [default: data/demo]"),
    ] = None,
) -> None:
    """Show the whole job on SYNTHETIC data: ingest, ingest again, query, quarantine; the lake stays for you."""
    from hdi.errors import RequestError

    given = session(context)
    if given.store is not None:
        raise RequestError("the demo makes a store of its own", "Leave --store out; --folder says where it goes.")
    with given.data() as usual:
        home = _fresh(Path(folder).absolute() if folder else usual.settings.data_dir / "demo")
    place = Session(f"lake:{home / 'lake'}", given.config_dir, given.log_level, given.json)
    own = {"data_dir": home, "dlq_dir": home / "dlq", "log.dir": home / "logs"}
    with place.data(**own) as data:
        given.log_dir, given.debug = place.log_dir, place.debug
        show = _Show(quiet=given.json)
        _run(data, home, show)
    if given.json:
        put(dumps(show.report | {"claims": show.claims, "folder": str(home), "store": place.store}))
    if not all(show.claims.values()):
        raise typer.Exit(1)


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
    home.mkdir(parents=True)
    (home / _MARK).write_text(_NOTICE, encoding="utf-8")
    return home


def _run(data: HistoricalData, home: Path, show: _Show) -> None:
    from hdi.demo import make_tape

    began = time.perf_counter()
    started()
    tape = make_tape(home / "files")
    rows = sum(tape.rows.values())
    show.say(f"SYNTHETIC data, made for this demo: {count(len(tape.paths), 'DBN file')}, {count(rows, 'row')}")
    show.say(f"  in {home / 'files'}")
    _ingest(data, tape, show)
    _again(data, tape, show)
    _query(data, show)
    _quarantine(data, tape, show)
    show.report["seconds"] = round(time.perf_counter() - began, 3)
    held = all(show.claims.values())
    show.say(f"\n{'All claims hold' if held else 'A CLAIM FAILED'}, after {show.report['seconds']:.1f} s.")
    show.say("The lake stays, for you to play with (SYNTHETIC data):")
    shown = _short(home)
    show.say(f"  hdi --store {shown}/lake query -s ES.c.0 --start-date 2024-01-01 --end-date 2024-01-31")
    show.say(f"  rejected rows, for jq and the like: {shown}/dlq; logs: {shown}/logs")


def _short(folder: Path) -> str:
    """The folder as one would type it here."""
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)


def _ingest(data: HistoricalData, tape: Tape, show: _Show) -> None:
    show.say("\nIngesting them:")
    outcomes = list(_outcomes(data, tape, show))
    show.report["ingested"] = [outcome_dict(o) for o in outcomes]
    fetched = {o.path: sum(r.fetched for r in o.receipts) for o in outcomes}
    show.claim("every file is stored", holds=all(o.status == "stored" for o in outcomes))
    show.claim(
        "every row of every file was read, and is stored or in quarantine",
        holds=fetched == {str(p): n for p, n in tape.rows.items()}
        and all(r.fetched == r.stored + r.quarantined for o in outcomes for r in o.receipts),
    )
    stored = sum(r.stored for o in outcomes for r in o.receipts)
    show.claim(f"the store holds the {stored} rows that the receipts say", holds=_rows(data) == stored)


def _again(data: HistoricalData, tape: Tape, show: _Show) -> None:
    show.say("\nIngesting them again:")
    before = (_rows(data), data.store().ledger().height)
    outcomes = list(_outcomes(data, tape, show))
    show.report["ingested_again"] = [outcome_dict(o) for o in outcomes]
    after = (_rows(data), data.store().ledger().height)
    show.claim(
        "nothing is stored twice: not a row and not a receipt is new",
        holds=all(o.status == "skipped" for o in outcomes) and before == after,
    )


def _outcomes(data: HistoricalData, tape: Tape, show: _Show) -> Iterator[Any]:
    for outcome in data.ingest_files(tape.paths, origin="synthetic"):
        show.say(f"  {outcome_line(outcome, noted_rules(data.schemas), Path(outcome.path).name)}")
        if outcome.error:
            show.say(f"    {outcome.error}")
        yield outcome


def _query(data: HistoricalData, show: _Show) -> None:
    show.report["queries"] = []
    for heading, schema, symbols, (start, end), columns in _SHOWN:
        display = tuple(columns.split(",")) if columns else data.schemas.find(schema)[0].display
        result = data.query(symbols, start, end, schema=schema, columns=display)
        frame = result.collect()
        show.report["queries"].append(
            {"schema": schema, "symbols": symbols, "start": start, "end": end, "rows": frame.height}
        )
        show.say(f"\n{heading}: {schema} {symbols}, {count(frame.height, 'row')} in {result.seconds:.3f} s")
        _sample(frame, result.columns, show)
        for note in result.notes:
            show.say(f"  note: {note}")
        show.claim(f"{schema} of {symbols} is found", holds=frame.height > 0)
    _agree(data, show)


def _sample(frame: pl.DataFrame, columns: dict[str, pl.DataType], show: _Show, most: int = _SAMPLE) -> None:
    few = frame.head(most)
    for line in "".join(plain([few], columns)).splitlines():
        show.say(f"  {line}")
    if frame.height > few.height:
        show.say(f"  ... and {frame.height - few.height} more")


def _agree(data: HistoricalData, show: _Show) -> None:
    """Three kinds that were ingested apart tell the same: trades, minutes and days."""
    days = data.query("ES.c.0", *_TICKS, columns=["ts_event", "volume"]).collect()
    minutes = data.query("ESH4", *_TICKS, schema="ohlcv-1m", columns=["volume"]).collect()
    trades = data.query("ESH4", *_TICKS, schema="trades", columns=["size"]).collect()
    totals = [int(days["volume"].sum()), int(minutes["volume"].sum()), int(trades["size"].sum())]
    show.say()
    show.claim(
        f"ESH4 traded {totals[0]} contracts in these days by daily bars, minute bars and trades alike",
        holds=len(set(totals)) == 1,
    )


def _quarantine(data: HistoricalData, tape: Tape, show: _Show) -> None:
    import polars as pl

    rejects = data.store().quarantine()
    show.say(f"\nQuarantine: {count(rejects.height, 'row')}, none lost")
    shown = rejects.select("schema", "symbol", "row", pl.col("rules").list.join(", ")).sort("schema", "row")
    _sample(shown, dict(shown.schema), show, most=shown.height)
    found: dict[str, set[int]] = {}
    for name, row in rejects.select("schema", "row").iter_rows():
        found.setdefault(name, set()).add(row)
    planted = {path.name.split(".")[1]: set(rows) for path, rows in tape.planted.items() if rows}
    hostile = sum(map(len, planted.values()))
    show.report["quarantine"] = {name: len(rows) for name, rows in sorted(found.items())}
    show.claim(f"the {hostile} hostile rows that were planted are there, and no other", holds=found == planted)


def _rows(data: HistoricalData) -> int:
    """Rows that can be read from the store, counted by reading."""
    names: Sequence[str] = [n.name for s in data.schemas for n in s.names.values() if n.made_from is None]
    return sum(
        data.query((), "2020-01-01", "2030-12-31", schema=name, columns=["dataset"]).collect().height for name in names
    )


__all__ = ["demo", "register"]
