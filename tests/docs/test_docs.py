"""Everything that README and guides tell people to type is typed here."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from databento_dbn import Metadata, Schema, StatusMsg, SType

from children import Children
from hdi.docs_pages import pages
from hdi.mapping import load_mapping
from hdi.model import Window
from hdi.pipeline import Options, ingest_files
from hdi.rehearsal import spawn
from hdi.schema_files import load_schemas
from hdi.stores import open_store
from tape import make_files

ROOT = Path(__file__).parents[2]
DAY = 86_400 * 10**9
START = 19_724 * DAY  # 2024-01-02


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language in a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def environment() -> dict[str, str]:
    """The environment with this interpreter's programs first, and none of hdi's own variables."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HDI_", "TIMESCALEDB_"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def run(command: str, folder: Path, **exported: str) -> subprocess.CompletedProcess[str]:
    """The command in a shell, in that folder."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder, env=environment() | exported, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


class Hands:
    """Types commands. Those of hdi alone need neither a shell nor a process that imports everything anew."""

    def __init__(self, children: Children, folder: Path) -> None:
        self._children = children
        self._files = [folder / "stdout", folder / "stderr"]

    def __call__(self, command: str, folder: Path, **exported: str) -> subprocess.CompletedProcess[str]:
        """The command, in that folder."""
        bare = re.sub(r"\"[^\"$`]*\"|'[^']*'", "", command)
        if not re.fullmatch(r"hdi [^|&;<>()$`*?~#\n]+", bare):
            return run(command, folder, **exported)
        words = shlex.split(command)[1:]
        output, errors = map(str, self._files)
        job = {"words": words, "folder": str(folder), "environment": environment() | exported}
        code = self._children.watch(self._children.fork(job | {"output": output, "errors": errors}), after=300)
        return subprocess.CompletedProcess(words, code, *(file.read_text(encoding="utf-8") for file in self._files))


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    with contextlib.closing(Children(Path(__file__).with_name("forked.py"))) as children:
        yield Hands(children, tmp_path_factory.mktemp("hands"))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder as a user has it, with files in ``downloads`` and the demo's lake, and what the demo printed there."""
    folder = tmp_path_factory.mktemp("work")
    make_files(folder / "downloads")
    done = run("hdi demo", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def workplace(shown: tuple[Path, str]) -> Path:
    return shown[0]


@pytest.fixture(scope="module")
def demo(shown: tuple[Path, str]) -> str:
    return shown[1]


def readme_commands() -> list[str]:
    return [line[2:] for block in blocks("README.md", "console") for line in block.splitlines() if line[:2] == "$ "]


def test_every_command_of_the_readme_works_in_its_order(workplace: Path, hands: Hands) -> None:
    commands = readme_commands()
    assert len(commands) >= 8
    if any("jq" in c for c in commands) and shutil.which("jq") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("jq is missing, and the README uses it")
        commands = [c for c in commands if "jq" not in c]
    for command in commands:
        done = hands(command, workplace)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip() or "--output-file" in command, f"{command} printed nothing"
    assert (workplace / "bars.parquet").stat().st_size > 0


def test_the_orders_of_the_readme_work_with_a_vendor(tmp_path: Path, hands: Hands) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    commands = [line[2:] for line in "".join(blocks("README.md", "shell")).splitlines() if line[:2] == "$ "]
    assert len(commands) >= 5
    with spawn(until="2025-01-01") as vendor:
        for command in commands:
            if command.startswith("export DATABENTO_API_KEY="):
                continue
            done = hands(f"{command} --force" if "--job" in command else command, tmp_path, **vendor.environment())
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            assert done.stdout.strip(), f"{command} printed nothing"
        assert vendor.books.calls["timeseries.get_range"] == 2


def test_the_server_commands_of_the_readme_work_in_their_order(
    workplace: Path, hands: Hands, fresh_database: Any
) -> None:
    commands = [line[2:] for line in blocks("README.md", "sh")[0].splitlines() if line[:2] == "$ "]
    assert [c.split()[0] for c in commands] == ["make", "export", "hdi", "hdi", "psql"]
    assert run("make timescaledb -n", ROOT).returncode == 0
    url = fresh_database()
    for command in commands[2:4]:
        done = hands(command.replace("$HDI_STORE", url), workplace, HDI_STORE=url)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), f"{command} printed nothing"
    query = commands[4].split('"')[1]
    with psycopg.connect(url) as connection:
        assert len(connection.execute(query).fetchall()) > 5


def test_the_two_commands_of_the_readme_run_the_demo_and_the_tests() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line.split("#")[0].strip() for line in lines if line.startswith("make ")]
    assert commands == ["make demo", "make test"]
    for command, what in zip(commands, ("hdi demo", "pytest"), strict=True):
        planned = run(f"{command} -n", ROOT)
        assert planned.returncode == 0, planned.stderr
        assert what in planned.stdout


def test_all_claims_of_the_demo_hold_and_it_says_that_the_data_is_synthetic(workplace: Path, demo: str) -> None:
    assert demo.startswith("SYNTHETIC data")
    assert "FAILED" not in demo
    assert demo.count("[ok]") >= 10
    assert (workplace / "data" / "demo" / "lake").is_dir()
    assert "hdi --store data/demo/lake query" in demo


def test_the_output_in_the_readme_is_what_the_demo_prints(demo: str) -> None:
    printed = [re.sub(r"\d+\.\d+ s", "", line) for line in demo.splitlines()]
    words = [" ".join(line.split()) for line in printed]
    (shown,) = blocks("README.md", "text")
    for line in shown.splitlines():
        wanted = " ".join(re.sub(r"\d+\.\d+ s", "", line).replace("...", "").rstrip(" ,").split())
        assert any(wanted in w or _parts_in(wanted, w) for w in words), f"the demo does not print: {line}"


def _parts_in(wanted: str, printed: str) -> bool:
    """True when a shortened line names the same file and says the same of it."""
    name, _, rest = wanted.partition(".dbn.zst ")
    return bool(rest) and name in printed and rest in printed


def test_the_lake_page_reads_the_demos_lake(workplace: Path) -> None:
    code = blocks("docs/open-the-lake.md", "python")
    assert len(code) == 3
    for block in code:
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=workplace, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def status_file(folder: Path) -> Path:
    """A complete DBN file of three status records, one of a tri-state that no venue has."""
    rows = np.zeros(3, np.dtype(StatusMsg._dtypes))
    rows["length"], rows["rtype"] = rows.dtype.itemsize // 4, 18
    rows["publisher_id"], rows["instrument_id"] = 1, 118
    rows["ts_event"] = rows["ts_recv"] = START + np.arange(3) * 10**9 + 7
    rows["action"] = [7, 8, 9]
    rows["is_trading"] = [b"Y", b"N", b"?"]
    header = Metadata(
        dataset="GLBX.MDP3", start=START, end=START + DAY, stype_in=SType("instrument_id"),
        stype_out=SType("instrument_id"), schema=Schema("status"), symbols=["118"], partial=[], not_found=[],
        mappings=[], version=3,
    )  # fmt: skip
    path = folder / "status.dbn"
    path.write_bytes(header.encode() + rows.tobytes())
    return path


def test_the_schema_page_shows_a_kind_of_the_package_whole() -> None:
    schema, _ = load_schemas().find("status")
    assert blocks("docs/add-a-schema.md", "yaml")[0] == Path(schema.where).read_text(encoding="utf-8")


def test_the_kind_of_the_schema_page_is_stored_and_documented_by_its_file(tmp_path: Path) -> None:
    schemas = load_schemas()
    schema, name = schemas.find("status")
    assert schema.table == "status_data"
    store = open_store(f"lake:{tmp_path}/lake", schemas, write=True)
    options = Options(tmp_path, tmp_path / "dlq")
    (outcome,) = ingest_files(store, schemas, load_mapping("databento"), [status_file(tmp_path)], options)
    assert outcome.error is None
    (receipt,) = outcome.receipts
    assert (receipt.fetched, receipt.stored, dict(receipt.rules)) == (3, 3, {"UNKNOWN_TRI_STATE": 1})
    (frame,) = store.read(schema, name.name, Window(START, START + DAY), None, list(schema.dtypes))
    assert frame["action"].to_list() == [7, 8, 9]
    assert frame["action_name"].to_list() == ["trading", "halt", "pause"]
    assert frame["is_trading"].to_list() == ["Y", "N", "?"]
    assert frame["ts_recv"].to_physical().to_list() == [START + k * 10**9 + 7 for k in range(3)]
    assert schema.contract().columns.keys() == {*schema.dtypes, "_unit", "_row"}
    shown = pages(schemas)
    assert any("Trading status" in text and "UNKNOWN_TRI_STATE" in text for text in shown.values())


def test_a_kind_of_ones_own_lies_beside_those_of_the_package_on_the_command_line(tmp_path: Path, hands: Hands) -> None:
    (tmp_path / "configs" / "schemas").mkdir(parents=True)
    own = blocks("docs/add-a-schema.md", "yaml")[0]
    for theirs, mine in (
        ("status_data", "notice_data"), ("kind: status", "kind: notice"), ("trading-status: status", "notices: notice"),
        ("  status:", "  notice:"),
    ):  # fmt: skip
        own = own.replace(theirs, mine)
    (tmp_path / "configs" / "schemas" / "notice.yaml").write_text(own, encoding="utf-8")
    status_file(tmp_path)
    assert hands("hdi ingest --api dbn status.dbn", tmp_path).returncode == 0
    ask = "hdi query -s 118 --schema {} --start-date 2024-01-02 --end-date 2024-01-02 --output-format csv"
    found = [hands(ask.format(schema), tmp_path) for schema in ("status", "notices")]
    assert [len(done.stdout.splitlines()) for done in found] == [4, 1], found[1].stderr
    assert found[0].stdout.splitlines()[0] == found[1].stdout.splitlines()[0]


def test_the_rules_of_the_schema_page_load(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(blocks("docs/add-a-schema.md", "yaml")[1], encoding="utf-8")
    trades = load_schemas(rules=[path]).find("trades")[0]
    assert {"HUGE_TRADE"} <= {r.name for r in trades.rules}
