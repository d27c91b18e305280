"""deploy/: each query is asked of a real server or read, and each series is one that ``hdi metrics`` gives."""

import json
import re
from pathlib import Path

import psycopg
import pytest
import yaml

from dbnfiles import ns, records, write
from docs.promql import Malformed, read
from hdi import HistoricalData
from lakes import Place

ROOT = Path(__file__).parents[2] / "deploy"
DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
RULES = [r for g in yaml.safe_load((ROOT / "prometheus" / "alerts.yml").read_text())["groups"] for r in g["rules"]]
COMPOSE = yaml.safe_load((ROOT.parent / "docker-compose.yml").read_text())["services"]
#: What Prometheus makes itself.
OWN = {"up": {"job", "instance"}}
#: Labels that Prometheus adds to every series, and that of a histogram's bounds.
ADDED = {"job", "instance"}


def panels(kind):
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                if target["datasource"]["type"] == kind:
                    yield pytest.param(panel, target, id=f"{path.stem}: {panel['title']}: {target['refId']}")


EXPRESSIONS = [pytest.param(p.values[1]["expr"], p.values[1]["legendFormat"], id=p.id) for p in panels("prometheus")]
EXPRESSIONS += [
    pytest.param(rule["expr"], " ".join(rule["annotations"].values()), id=rule["alert"]) for rule in RULES
]  # fmt: skip


@pytest.fixture(scope="module")
def database(databases, tmp_path_factory):
    """A database with rows, rejects and a ledger."""
    folder = tmp_path_factory.mktemp("deploy")
    with databases.kept() as fresh:
        place = Place(folder, address=fresh())
        window = ("2024-01-02", "2024-01-05")
        days = [ns(f"2024-01-0{n}") for n in (2, 3, 4)]
        bars = records("ohlcv-1d", 3, instrument_id=7, ts_event=days)
        bars["high"][1] = bars["low"][1] - 1
        path = write(folder / "bars.dbn.zst", "ohlcv-1d", bars, symbols=("ES.c.0",), stype_in="continuous",
                     window=window, mappings={"ES.c.0": [(*window, 7)]})  # fmt: skip
        place.stored(path)
        yield place


@pytest.fixture(scope="module")
def series(database):
    """Every series that ``hdi metrics`` gives, with its labels."""
    flags = {"data_dir": str(database.folder / "data"), "log.dir": str(database.folder / "logs")}
    found = {}
    with HistoricalData.open(database.url, **flags) as data:
        for family in data.metrics().collect():
            endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            for ending in endings:
                more = {"le"} if ending == "_bucket" else set()
                found[family.name + ending] = {*family._labelnames} | more
    return found


@pytest.mark.parametrize(("expression", "words"), EXPRESSIONS)
def test_every_expression_is_well_formed_and_asks_for_series_and_labels_that_there_are(expression, words, series):
    asked = read(expression)
    known = series | OWN
    for name, labels in asked.selectors:
        assert name in known, name
        assert labels <= known[name] | ADDED, name
    there = set().union(*(known[name] for name, _ in asked.selectors))
    named = set(re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", words)) - {"value"}
    assert asked.grouped | named <= there
    if asked.grouped:
        assert named <= asked.grouped


@pytest.mark.parametrize(("panel", "target"), [*panels("grafana-postgresql-datasource")])
def test_every_query_of_a_dashboard_is_answered_by_the_server(panel, target, database):
    span = "'2023-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'"
    query = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN {span}", target["rawSql"])
    assert "$__" not in query
    with psycopg.connect(database.address) as connection:
        connection.execute("SET default_transaction_read_only = on")
        answer = connection.execute(query)
        rows, columns = answer.fetchall(), [column.name for column in answer.description]
    if target["format"] == "time_series":
        assert columns[0] == "time"
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert rows or panel["title"] == "Open discrepancies"


@pytest.mark.parametrize(
    "wrong",
    [
        "sum(", "sum by (a hdi_up", 'x{a="b"', "rate(x)", "rate(x[5])", "x[5m] > 1", "increase(x[5m], 2)", "nope(x)",
        "x y", "x >", "topk(x)", "x{a=b}", "",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused(wrong):
    with pytest.raises(Malformed):
        read(wrong)


def test_the_files_are_where_the_services_look_for_them():
    (source,) = list((ROOT / "grafana/provisioning/datasources").iterdir())
    sources = {each["uid"]: each["type"] for each in yaml.safe_load(source.read_text())["datasources"]}
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for where in [panel["datasource"], *(target["datasource"] for target in panel["targets"])]:
                assert sources[where["uid"]] == where["type"]
    assert len({json.loads(path.read_text())["uid"] for path in DASHBOARDS}) == len(DASHBOARDS)
    mounts = dict(mount.split(":")[:2] for mount in COMPOSE["grafana"]["volumes"])
    assert {(ROOT.parent / folder).is_dir() for folder in mounts} == {True}
    provider = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/hdi.yml").read_text())["providers"][0]
    assert provider["options"]["path"] == mounts["./deploy/grafana/dashboards"]
    home = COMPOSE["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(provider["options"]["path"])
    assert (ROOT / "grafana" / "dashboards" / Path(home).name).is_file()


def test_prometheus_asks_the_service_that_serves():
    config = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    assert [(ROOT / "prometheus" / name).is_file() for name in config["rule_files"]] == [True]
    (job,) = config["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert COMPOSE[host]["command"][-1] == port
    assert job["job_name"] == "hdi"
    prometheus = [
        source["url"]
        for source in yaml.safe_load((ROOT / "grafana/provisioning/datasources/hdi.yml").read_text())["datasources"]
        if source["type"] == "prometheus"
    ]
    assert prometheus == ["http://prometheus:9090"]


def test_every_rule_says_what_is_wrong_how_bad_it_is_and_what_to_do():
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "do"}
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
