"""What a database or a role is set to does not change what is stored and answered."""

import contextlib
from urllib.parse import urlsplit

import numpy as np
import psycopg
import pytest
from psycopg import sql

from dbnfiles import PX, ns, records, write
from hdi.errors import StoreError
from hdi.model import DAY_NS, Window
from hdi.testing import Load, content, opened, trades
from hdi.testing.material import DAY, START
from same.twins import Ask, twins
from servers import make_layout

#: Settings that change how values are written and read as text, or when rows are seen.
STRANGE = {
    "timezone": "Asia/Tokyo", "datestyle": "German, DMY", "intervalstyle": "sql_standard", "extra_float_digits": "-15",
    "standard_conforming_strings": "off", "backslash_quote": "on", "escape_string_warning": "off",
    "bytea_output": "escape", "default_transaction_isolation": "serializable", "client_encoding": "LATIN1",
    "search_path": "market, public", "array_nulls": "off", "lc_monetary": "C", "enable_hashjoin": "off",
}  # fmt: skip
DAYS = ("2024-03-09", "2024-03-12")


def set_up(url, **settings):
    name = sql.Identifier(urlsplit(url).path[1:])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA market")
        for key, value in settings.items():
            parts = sql.SQL(", ").join(map(sql.Literal, value.split(", ")))
            connection.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.Identifier(key), parts))


def test_settings_of_a_database_change_no_answer(fresh_database, tmp_path):
    url = fresh_database()
    set_up(url, **STRANGE)
    symbol = "Caf\\'\\\\"
    at = ns(DAYS[0]) + np.arange(72) * 3_600 * 10**9 + np.arange(72) % 3 * 999
    rows = records("trades", 72, ts_recv=at, ts_event=at - 1, price=np.arange(-36, 36) * PX // 7)
    rows["side"][::9] = b"?"
    kinds = records("definition", 3, instrument_id=[1, 2, 3], raw_symbol=[b"a\\b", b"caf\xe9", "€".encode()],
                    ts_recv=ns(DAYS[0]), ts_event=ns(DAYS[0]))  # fmt: skip
    told = {"symbols": (symbol,), "window": DAYS, "mappings": {symbol: [(*DAYS, 1)]}}
    with twins(tmp_path, url) as pair:
        for turn in (rows, rows[::2]):
            pair.stored(write(tmp_path / "t.dbn.zst", "trades", turn, **told), refetch=True, min_rejects=1000)
        pair.stored(write(tmp_path / "d.dbn.zst", "definition", kinds, **told))
        _, books, _ = pair.same()
        assert books["trades_data_history"].height
        for schema in ("trades", "definition"):
            for end in ("2024-03-09", "2024-03-10T09:00:00+09:00", "2024-03-10T00:00:00.000000999Z", "2024-03-11"):
                pair.alike(Ask(schema, symbol, DAYS[0], end))


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(fresh_database, encoding):
    url = fresh_database()
    name, other = urlsplit(url).path[1:], f"{urlsplit(url).path[1:]}_{encoding.lower()}"
    with psycopg.connect(url, autocommit=True) as connection:
        make = "CREATE DATABASE {} ENCODING {} LOCALE 'C' TEMPLATE template0"
        connection.execute(sql.SQL(make).format(sql.Identifier(other), sql.Literal(encoding)))
        try:
            with pytest.raises(StoreError, match=encoding):
                opened(url.replace(name, other))
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(other)))


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_commit_sees_what_came_while_it_was_under_way_whatever_the_isolation(fresh_database, level):
    url = fresh_database(template="layout", prepare=make_layout)
    set_up(url, default_transaction_isolation=level)
    times = [START + k for k in range(5)]
    with contextlib.closing(opened(url)) as one, contextlib.closing(opened(url)) as other:
        Load(trades([START + DAY_NS]), window=Window(START + DAY_NS, START + 2 * DAY_NS)).commit(one)
        same = Load(trades(times), symbol="ESH4", stype="raw_symbol")
        receipt = Load(trades(times)).commit(one, before_finish=lambda: same.commit(other))
        assert (receipt.stored, receipt.unchanged) == (5, 5)
        assert content(one, window=DAY).height == 5
