"""What the inputs of each target begin as: small, and right or nearly so."""

import struct
import sys
from importlib import resources
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
_DAYS = ("2024-01-02", "2024-01-04")
_KINDS = ("trades", "tbbo", "ohlcv-1m", "ohlcv-1d", "statistics", "definition")


def dbn() -> list[bytes]:
    """Files of several kinds and versions, plain and packed."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        import dbnfiles
    finally:
        sys.path.pop(0)
    import tempfile

    made = []
    with tempfile.TemporaryDirectory() as folder:
        for k, schema in enumerate(_KINDS):
            at = dbnfiles.ns(_DAYS[0]) + np.arange(4) * dbnfiles.MINUTE
            at = at // (86_400 * 10**9) * (86_400 * 10**9) if schema == "ohlcv-1d" else at
            rows = dbnfiles.records(schema, 4, version=1 + k % 3, instrument_id=1 + np.arange(4), ts_event=at)
            path = Path(folder) / "x"
            dbnfiles.write(path, schema, rows, version=1 + k % 3, pack=k % 2 == 0, window=_DAYS,
                           symbols=(f"ESH{k}",), mappings={f"ESH{k}": [(*_DAYS, i) for i in (1, 2, 3, 4)]})  # fmt: skip
            made.append(path.read_bytes())
    return made


def plain_dbn() -> list[bytes]:
    """The same unpacked, with counts and lengths that lie."""
    from hdi.sources.dbn import zstd

    plain = [zstd.decompress(d) if d[:4] == b"\x28\xb5\x2f\xfd" else d for d in dbn()]
    lying = []
    for data in plain[:2]:
        head = 8 + struct.unpack_from("<I", data, 4)[0]
        for at in range(head - 64, head, 4):
            for number in (0xFFFF_FFFF, 0x8000_0000, 0x0100_0000):
                lying += [data[:at] + struct.pack("<I", number) + data[at + 4 :]]
    return plain + lying[::7]


def bomb() -> list[bytes]:
    """A gigabyte of nothing in 32 KB."""
    from hdi.sources.dbn import zstd

    packer = zstd.ZstdCompressor()
    head = next(data for data in plain_dbn() if data[:3] == b"DBN")
    nothing = [packer.compress(bytes(1 << 24)) for _ in range(64)]
    return [packer.compress(head) + b"".join(nothing) + packer.flush()]


def yaml() -> list[bytes]:
    """The files of configs/, and of the package, each behind the byte that names who reads it."""
    folder, package = ROOT / "configs", Path(str(resources.files("hdi")))
    jobs = "jobs:\n  mine: {dataset: GLBX.MDP3, schema: trades, symbols: [ESH4], start_date: 2024-01-02, end_date: x}\n"
    texts = [
        (0, b"log: {level: INFO, max_bytes: 10}\ningest: {budget_usd: 1.5}\n"),
        (1, jobs.encode()), (2, (folder / "rules" / "example.yaml").read_bytes()),
        (2, b"trades:\n  MINE: {check: price > 1, severity: ERROR, message: no, symbols: ['ES*']}\n"),
        (3, (package / "schemas" / "trades.yaml").read_bytes()),
        (4, (folder / "symbol_groups.yaml").read_bytes()), (4, b"groups: {a: [ES.c.0, '@b'], b: ['@a']}\n"),
        (5, (folder / "calendars.yaml").read_bytes()), (6, (folder / "roll_rules.yaml").read_bytes()),
        *((kind, laughing(how, under).encode()) for kind, how, under in _LAUGHS),
        (0, b"a: &a [*a]\n"), (4, b"&a {? *a : 1}\n"), (1, b"jobs: {x: !!python/object:os.system {}}\n"),
    ]  # fmt: skip
    return [bytes([kind]) + text for kind, text in texts]


_LAUGHS = (
    (0, "[{}]", "log: *a7"), (0, "[{}]", "store: *a7"), (0, "{{<<: [{}]}}", "log: *a7"),
    (1, "[{}]", "jobs: {x: {symbols: *a7}}"), (2, "[{}]", "trades: {MINE: {check: *a7}}"),
    (3, "{{<<: [{}]}}", "x: *a7"),
    (4, "[{}]", "ALL: *a7"), (5, "[{}]", "calendars: *a7"), (7, "[{}]", "undefined: {trades: *a7}"),
)  # fmt: skip


def laughing(how: str, under: str) -> str:
    """Aliases of aliases that stand for ten million values, as lists or as merges, under some key."""
    first = "a0: &a0 {x: 1, y: 2}" if "<<" in how else "a0: &a0 [x, y]"
    rest = (f"a{k}: &a{k} {how.format(', '.join([f'*a{k - 1}'] * 9))}" for k in range(1, 8))
    return "\n".join((first, *rest, under, ""))


def rule() -> list[bytes]:
    """Checks of every sort that the packaged rules have, and some that are none."""
    return [
        b"price > 0", b"size BETWEEN 1 AND 5 AND side IN ('A', 'B', 'N')", b"symbol LIKE 'ES%' OR price IS NULL",
        b"CASE WHEN price > 1 THEN size > 0 ELSE TRUE END", b"CAST(price AS DOUBLE) / size < 1e9",
        b"ts_event <= ts_recv", b"length(symbol) = 4 AND upper(side) = side", b"regexp_like(symbol, '^(E+)+$')",
        b"((((((price))))))", b"price = (SELECT max(price) FROM trades)", b"abs(price) % 0 = 1", b"now() > ts_event",
        b"strftime(ts_event, '%Y') = '2024'", b"size + 99999999999999999999 > 0", b"substr(symbol, -1, 9) || 'x' = 'x'",
        b"length(replace(replace(replace(symbol, '', '%s'), '', '%s'), '', '%s')) > 1" % ((b"x" * 90,) * 3),
        b"lpad(symbol, 100000000, 'x') = 'x'", b"replace(symbol, 'E', 'S') = 'x'",
    ]  # fmt: skip


def statement() -> list[bytes]:
    """Statements that read, and some that want more."""
    return [
        b"SELECT * FROM trades_data", b"SELECT symbol, count(*) AS n FROM trades_data GROUP BY 1 ORDER BY 2 DESC",
        b"WITH a AS (SELECT price FROM trades_data) SELECT avg(price) OVER () FROM a", b"SELECT 1; SELECT 2",
        b"DROP TABLE trades_data", b"COPY trades_data TO 'x.csv'", b"SELECT * FROM read_csv('/etc/passwd')",
        b"EXPLAIN SELECT 1", b"SELECT $$a$$, E'\\n', \"symbol\" FROM ohlcv_data -- x\n", b"/* /* */ SELECT 1",
        b"SELECT ts_event AT TIME ZONE 'UTC', INTERVAL '1 day' FROM trades_data WHERE price > 1::DECIMAL(38, 9)",
        b"ATTACH 'x' AS y", b"PRAGMA version", b"SET memory_limit = '1TB'", b"SELECT {'a': [1, NULL]}, MAP {1: 2}",
        b"SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS t(x, y) JOIN trades_data USING (x)", b"SUMMARIZE trades_data",
        b"/* /* */ explain SELECT 1 --*/ CREATE TABLE x AS SELECT 1", b"SELECT 1 --\r, 2",
        b"EXPLAIN (FORMAT json) SELECT 1",
        b'SELECT * FROM (WITH "x.csv" AS (SELECT 1) SELECT * FROM "x.csv") a, "x.csv" b, trades_data',
    ]  # fmt: skip


def arguments() -> list[bytes]:
    """Choices that reach each of the commands."""
    return [bytes([1, k, n, 0, n, 0, k, 2, n, n, 1, k]) for k in range(40) for n in (1, 3, 5)]


def server() -> list[bytes]:
    """Choices of fragments; what they are is not known here."""
    plain = [bytes([0, 1, k]) for k in (0, 47, 48)]
    return plain + [bytes([3, *(1 + (7 * k + j) % 60 for j in range(8))]) for k in range(40)]


def disk() -> list[bytes]:
    """A file of each kind, behind the byte that names it."""
    from fuzz import targets

    return [bytes([k]) + kind.seed for k, kind in enumerate(targets.kinds())]


SEEDS = {
    "decode": lambda: dbn() + plain_dbn() + bomb(), "dbn": lambda: dbn() + plain_dbn()[:6], "yaml": yaml, "rule": rule,
    "statement": statement, "server": server, "disk": disk, "arguments": arguments,
}  # fmt: skip
