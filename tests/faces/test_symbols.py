"""hdi symbols, on a lake that holds the tape."""

import json

import pytest

from tape import CONTRACTS


@pytest.fixture
def symbols(cli, demo_home):
    """Runs ``hdi symbols`` on the demo's lake."""

    def call(*arguments, before=()):
        return cli("--store", f"lake:{demo_home / 'lake'}", *before, "symbols", *arguments)

    return call


def test_every_contract_is_listed_with_its_class_exchange_days_and_schemas(symbols):
    ran = symbols(before=["--json"])
    assert ran.code == 0
    rows = {row["symbol"]: row for row in json.loads(ran.out)}
    assert set(CONTRACTS) <= set(rows)
    h4 = rows["ESH4"]
    assert (h4["stype"], h4["root"], h4["instrument_id"]) == ("raw_symbol", "ES", CONTRACTS["ESH4"].id)
    assert (h4["instrument_class"], h4["exchange"]) == ("F", "XCME")
    assert {"trades", "definition", "ohlcv-1d"} <= set(h4["schemas"])
    assert h4["first_day"] <= "2024-01-02" <= h4["last_day"]


def test_a_table_on_a_pipe_has_a_heading_and_a_line_for_each_symbol(symbols):
    ran = symbols("ES")
    heading, rule, *lines = ran.out.splitlines()
    assert heading.split() == ["dataset", "symbol", "stype", "root", "instrument_id", "instrument_class", "exchange",
                               "first_day", "last_day", "schemas"]  # fmt: skip
    assert set(rule) == {"-", " "}
    assert {line.split()[3] for line in lines} == {"ES"}
    assert f"{len(lines)} symbols" in ran.err


def test_a_continuous_symbol_shows_when_it_rolled(symbols):
    ran = symbols("ES.c.0", before=["--json"])
    rolls = json.loads(ran.out)
    assert [row["instrument_id"] for row in rolls] == [CONTRACTS["ESH4"].id, CONTRACTS["ESM4"].id]
    # Nothing of the tape says what the second one is called on its days.
    assert [row["contract"] for row in rolls] == ["ESH4", None]
    assert rolls[0]["last_day"] < rolls[1]["first_day"]
    [one] = json.loads(symbols("ES.c.0", "--on", rolls[1]["first_day"], before=["--json"]).out)
    assert one["instrument_id"] == CONTRACTS["ESM4"].id


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ESH5"], "Did you mean ESH4"),
        (["ES.c.7"], "ES.c.0"),
        (["ES", "--on", "yesterday"], "'yesterday' is not a date"),
        (["ES", "--dataset", "GLBX"], "Did you mean GLBX.MDP3"),
    ],
)
def test_what_is_not_there_or_no_date_is_told_with_what_is(symbols, arguments, said):
    ran = symbols(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_of_an_empty_store_nothing_is_listed_and_a_pattern_is_an_error(cli, store):
    ran = cli("--store", store, "--json", "symbols")
    assert (ran.code, json.loads(ran.out)) == (0, [])
    assert cli("--store", store, "symbols", "ES").code == 2


@pytest.fixture
def groups(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "symbol_groups.yaml").write_text("ALL: ['@ES', NQH5]\nES: [ES.c.0, ESH4]\n")


@pytest.mark.usefixtures("groups")
def test_of_a_group_each_member_is_listed_and_one_that_was_never_stored_without_days(symbols):
    ran = symbols("@all", before=["--json"])
    rows = {row["symbol"]: row for row in json.loads(ran.out)}
    assert (ran.code, list(rows)) == (0, ["ES.c.0", "ESH4", "NQH5"])
    assert rows["ESH4"] == json.loads(symbols("ESH4", before=["--json"]).out)[0]
    lost = {"symbol": "NQH5", "stype": "raw_symbol", "root": "NQ", "schemas": []}
    assert rows["NQH5"] == dict.fromkeys(rows["ESH4"]) | lost
    assert "nothing is stored of NQH5, which a group names" in ran.err
    text = symbols("@ALL")
    assert "2 symbols" in text.err
    assert "NQH5" in text.out


@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize(
    ("arguments", "said"), [(["@AL"], "Did you mean @ALL"), (["@ES", "--dataset", "GLBX"], "Did you mean GLBX.MDP3")]
)
def test_a_group_or_dataset_that_nobody_knows_is_an_error(symbols, arguments, said):
    ran = symbols(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
