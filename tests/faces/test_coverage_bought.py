"""``hdi coverage`` of what was bought: the vendor's words on its days, and contracts under several names."""

import json
import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import databento  # noqa: F401  (its import sets warning filters)

from api.desk import Ask, Desk
from hdi.rehearsal.vendor import Rehearsal


@pytest.fixture(scope="module")
def bought(tmp_path_factory):
    """Daily bars of ES.c.0 for 2024-01 to -03, and ESZ3 through 2024-01: with a degraded day, in a lake."""
    home = tmp_path_factory.mktemp("coverage")
    with pytest.MonkeyPatch.context() as patch, Rehearsal(until="2024-06-01", scale=0.02, folder=home / "v") as vendor:
        for name, value in vendor.environment().items():
            patch.setenv(name, value)
        vendor.fault("degraded:day=2024-02-06")
        desk = Desk(home / "desk", vendor)
        desk.stored(Ask("ES.c.0", "2024-01-01", "2024-03-31"))
        desk.stored(Ask("ESH4", "2024-01-01", "2024-03-31"))
    return f"lake:{home / 'desk' / 'lake'}"


@pytest.fixture
def lines(cli, bought):
    def call(*arguments):
        ran = cli("--store", bought, "--json", "coverage", *arguments)
        assert ran.code == 0, ran.err
        document = json.loads(ran.out)
        assert document["synthetic"] is True
        return {line["symbol"]: line for line in document["lines"]}

    return call


def test_a_month_with_a_day_that_the_vendor_calls_degraded_says_so(lines):
    months = {m["month"]: m for m in lines()["ES.c.0"]["months"]}
    assert [months[m]["state"] for m in sorted(months)] == ["full", "degraded", "full"]
    assert (months["2024-02"]["held_days"], months["2024-02"]["degraded_days"]) == (25, 1)


def test_rows_that_lie_under_another_name_belong_to_the_contract_too(lines):
    found = lines()
    assert found["ESH4"]["held_days"] == found["ESH4"]["days"] == found["ES.c.0"]["days"] == 91 - 13 - 1
    until_the_roll = lines("-s", "ES.c.0", "--end-date", "2024-03-15")["ES.c.0"]["rows"]
    assert found["ESH4"]["rows"] == until_the_roll > 0
    assert found["ESH4"]["last_day"] == "2024-03-15"


def test_a_contract_that_was_never_asked_for_is_held_while_a_continuous_symbol_stood_for_it(lines):
    line = lines("-s", "ESM4")["ESM4"]
    assert line["units"] == 0
    assert line["rows"] > 0
    assert [m["month"] for m in line["months"]] == ["2024-03"]
