"""The pages for those who run it: each of their commands is typed, and ends as the page shows.

quickstart, operations, troubleshooting, add-a-symbol, health-and-settings, quarantine, reconciliation, data-lock and
monitoring are typed here; docs/logs.md has a test beside this one, docs/backup-and-maintenance.md a drill in
tests/upkeep. `make docs-validate` reads what needs no typing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from dotenv import dotenv_values

from children import Children
from docs.guides import QUICK, QUICK_UNTIL, Reader, Step, alike, forking, plain, reading_from, steps
from hdi.rehearsal import spawn
from hdi.rehearsal.process import Spawned
from hdi.settings import describe

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import validate_docs  # noqa: E402  (a script, not a package)

PAGES = (
    "operations", "troubleshooting", "add-a-symbol", "health-and-settings", "quarantine", "reconciliation", "data-lock",
    "monitoring",
)  # fmt: skip
#: What the demo's lake stands for here: the same kinds of data, of fewer days.
DEMO = "--dataset GLBX.MDP3 --max-rejects 100 --force"
FRONT = "CL.c.0,ES.c.0,NG.c.0"
ORDERS = (
    ("ohlcv-1d", FRONT, "2024-01-01", "2024-03-31"),
    ("ohlcv-1m", FRONT, "2024-03-15", "2024-03-15"),
    ("trades", FRONT, "2024-03-15", "2024-03-15"),
)
#: Ends that are no failure of the page: a log is followed until somebody stops it, grep finds nothing, and what the
#: vendor planted in the lake is found by hdi reconcile.
FOLLOWED, NOT_FOUND, DISCREPANT = 124, 1, 4
#: What differs from desk to desk, and what stands for it.
DIFFERS = (
    (r"(?<![\w.])\.{0,3}/[\w./-]+", "#"), (r"\b[0-9a-f]{16,}\b", "#"), (r"\bqueries\b", "query"),
    (r"\b(ahead of|behind)\b", "#"),
    (r"\b([A-Z]{2}[FGHJKMNQUVXZ]\d|[A-Z]{2}\.c\.0)(,([A-Z]{2}[FGHJKMNQUVXZ]\d|[A-Z]{2}\.c\.0))*\b", "#"),
    (r"\b[A-Z]+_[A-Z_]+\b|price_out_of_range", "#"), (r"<?\$?\d[\w.:+-]*", "#"), (r"# (KB|MB|GB|KiB|MiB|GiB)", "# B"),
    (r"(# \w+?)s\b", r"\1"), (r" +", " "), (r"-{2,}", "--"),
)  # fmt: skip
LOOKING = re.compile(r"(.*\| *)?(grep|docker) ")


class Desk:
    """A working folder with a repository's scripts in it, a vendor, a lake, and another one like the demo's."""

    def __init__(self, reader: Reader) -> None:
        self.folder, self._reader = reader.folder, reader

    def begin(self) -> None:
        """What a vendor with bad rows gave to both stores."""
        for name in ("main.py", "scripts"):
            (self.folder / name).symlink_to(ROOT / name)
        assert self.types("hdi init")[0] == 0
        self.buy("trades", "ES.c.0", "2024-03-14", "2024-03-15")
        with self.within({"HDI_DATA_DIR": "data/demo"}):
            for order in ORDERS:
                self.buy(*order, store="data/demo/lake")

    def buy(self, schema: str, symbols: str, start: str, end: str, store: str = "data/lake") -> None:
        """Order it and store it."""
        order = f"--schema {schema} -s {symbols} --start-date {start} --end-date {end}"
        self.done(f"hdi --store {store} ingest --api databento {DEMO} {order}")

    def types(self, command: str) -> tuple[int, str]:
        """The exit code and what was printed."""
        return self._reader.follow(Step(typed=command))

    def done(self, command: str) -> str:
        """What was printed by a command that must succeed."""
        code, printed = self.types(command)
        assert code == 0, f"{command}\n{printed}"
        return printed

    def within(self, more: dict[str, str]) -> ExitStack:
        """The environment with some more in it, until the end of the block."""
        stack = ExitStack()
        before = dict(self._reader.environment)
        self._reader.environment.update(more)
        stack.callback(self._reader.environment.update, before)
        stack.callback(self._reader.environment.clear)
        return stack


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with closing(forking()) as made:
        yield made


@pytest.fixture(scope="module")
def vendor() -> Iterator[Spawned]:
    """The vendor of the pages, without bad rows."""
    with spawn(until=QUICK_UNTIL) as serving:
        yield serving


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, children: Children, vendor: Spawned) -> Iterator[Desk]:
    """A desk whose data came from a vendor with bad rows, and that buys from one without."""
    if shutil.which("jq") is None:
        pytest.fail("jq is missing, and the guide uses it") if os.environ.get("CI") == "true" else pytest.skip("no jq")
    folder = tmp_path_factory.mktemp("desk")
    with spawn(until=QUICK_UNTIL, hostile=6) as worse, Reader(folder, worse.environment(), {}, children) as reader:
        Desk(reader).begin()
    with Reader(folder, vendor.environment(), {}, children) as reader:
        made = Desk(reader)
        made.buy("ohlcv-1d", "ES.c.0,NQ.c.0", "2024-01-01", "2024-12-31")
        made.done("hdi query -s ES.c.0 --start-date 2024-01-02 --end-date 2024-01-02")
        yield made


def misconfigured(desk: Desk) -> None:
    """The settings with the two mistakes of the page."""
    (desk.folder / "wrong").mkdir(exist_ok=True)
    (desk.folder / "wrong" / "system_config.yaml").write_text("log: {level: LOUD, dri: logs}\n", encoding="utf-8")


def ruled(desk: Desk) -> None:
    """The rule of the page."""
    path = desk.folder / "configs" / "rules" / "mine.yaml"
    path.write_text("trades:\n  INVALID_SIDE: {severity: WARNING}\n", encoding="utf-8")


#: What has to be there before a command, and what is typed instead of it: numbers that differ from desk to desk.
BEFORE: dict[str, Callable[[Desk], None]] = {
    "hdi config validate": misconfigured,
    "cat configs/rules/mine.yaml": ruled,
}


def instead(desk: Desk, command: str, shown: str) -> str:
    """The command as it is typed here."""
    if command.startswith("hdi quarantine show "):
        found = re.search(r"^\d+:\d+", desk.done("hdi quarantine list --rule INVALID_SIDE --limit 1"), re.MULTILINE)
        assert found is not None
        return f"hdi quarantine show {found[0]}"
    if command == "hdi config validate" and "error: " in shown:
        return "hdi --config-dir wrong config validate"
    return f"timeout 0.3 bash -c {validate_docs.shlex.quote(command)}" if command.startswith("tail -f") else command


def ends(command: str, shown: str) -> set[int]:
    """The exit codes that the page promises."""
    if re.search(r"^error: ", shown, re.MULTILINE):
        return {1, 2, 3, 4, 5}
    if command.startswith("tail -f"):
        return {FOLLOWED}
    if " reconcile" in command:
        return {0, DISCREPANT}
    return {0, NOT_FOUND} if LOOKING.match(command) else {0}


@pytest.mark.parametrize("name", PAGES)
def test_each_command_of_the_page_ends_as_it_shows(desk: Desk, name: str, subtests: pytest.Subtests) -> None:
    page = validate_docs.page(ROOT / "docs" / f"{name}.md")
    with desk.within({}):
        for block in (each for each in page.blocks if not each.unrun):
            prepare(desk, block)
            for one in validate_docs.typed(block):
                follow(desk, one, subtests)


def prepare(desk: Desk, block: validate_docs.Block) -> None:
    """What a block adds to a file of the settings, or the Python that it is."""
    if named := re.match(r"# (configs/\S+)\n", block.text):
        with (desk.folder / named[1]).open("a", encoding="utf-8") as file:
            file.write(block.text)
    if block.language == "python":
        done = subprocess.run(
            [sys.executable, "-c", block.text], cwd=desk.folder, env=desk._reader.environment,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() or "print(" not in block.text


def follow(desk: Desk, one: validate_docs.Typed, subtests: pytest.Subtests) -> None:
    """Type it, or take it over into the environment."""
    command = re.sub(r" *\\\n *", " ", one.text).strip()
    if command.startswith("export "):
        desk._reader.environment.update(word.split("=", 1) for word in validate_docs.shlex.split(command)[1:])
        return
    if command.startswith("cat > .env "):
        return  # test_the_env_file_of_the_page_is_read
    BEFORE.get(command, lambda _: None)(desk)
    with subtests.test(command=command):
        code, printed = desk.types(instead(desk, command, one.shown))
        assert code in ends(command, one.shown), f"line {one.line}: {code}\n{printed}"
        missing = unlike(one.shown, printed)
        assert not missing, f"line {one.line}: nothing like this is printed:\n{missing}\n{printed}"


def unlike(shown: str, printed: str) -> list[str]:
    """The lines of the page that no printed line is like: other words, or another order of them.

    Numbers, names, dates and places differ from desk to desk. ``...`` stands for anything.
    """
    lines = [shape(line) for line in printed.splitlines()]
    wanted = {
        line: ".*".join(re.escape(shape(part)) for part in line.split("..."))
        for line in shown.splitlines() if line.strip(" .")
    }  # fmt: skip
    return [line for line, like in wanted.items() if not any(re.fullmatch(like, each) for each in lines)]


def shape(line: str) -> str:
    """The line without what differs from desk to desk."""
    for pattern, put in DIFFERS:
        line = re.sub(pattern, put, line)
    return line.strip()


def test_the_env_file_of_the_page_is_read(tmp_path: Path) -> None:
    page = validate_docs.page(ROOT / "docs" / "operations.md")
    (written,) = (t for b in page.blocks for t in validate_docs.typed(b) if t.text.startswith("cat > .env"))
    subprocess.run(["bash", "-c", written.text], cwd=tmp_path, check=True, timeout=20)
    values = dotenv_values(tmp_path / ".env")
    assert values["TIMESCALEDB_DBNAME"] == "hist_data"
    known = {name for setting in describe() for name in (setting.env or "").split()}
    assert values.keys() <= known


def test_the_quick_start_prints_what_stands_below_its_commands(
    tmp_path: Path, children: Children, vendor: Spawned
) -> None:
    text = QUICK.read_text(encoding="utf-8")
    assert f"hdi rehearse --until {QUICK_UNTIL} " in text
    told = steps(text)
    assert len(told) > 8
    with reading_from(vendor, tmp_path, children) as reader:
        for step in told:
            code, printed = reader.follow(step)
            assert code == 0, f"{step.command}\n{printed}"
            assert alike(printed) == alike(step.shown), step.command


def test_a_page_that_is_wrong_is_told_by_its_lines(tmp_path: Path) -> None:
    page = tmp_path / "wrong.md"
    page.write_text(
        "# Wrong\n\n[gone](gone.md) [nowhere](#nowhere) `src/hdi/gone.py` `hdi.model.Gone` `log.gone`\n"
        '`hdi query --gone` HDI_GONE [titled](titled.md "so") ![drawn](drawn.png) [apart][it]\n\n[it]: apart.md\n\n'
        "`--nothing` `tests/conftest.py::test_gone` `NO_SUCH_RULE` `hdi_no_metric` `make nosuch` `db.nosuch(1)`\n\n"
        "| `hdi plan`, `spent` | |\n\n```python\nfrom hdi.model import Nil\n\nhdi.open().gone()\n```\n"
        "```console\n$ hdi query --bogus\n$ hdi frobnicate | head\n$ make nothing\n```\n\n```yaml\na: [\n```\n"
        "```yaml\nalerts: {comand: []}\n```\n```toml\n[a\n```\n"
        "### `an error that nobody raises`\n",
        encoding="utf-8",
    )
    told = "\n".join(validate_docs.problems([validate_docs.page(page)]))
    for what in (
        "gone.md, which", "#nowhere, and", "`src/hdi/gone.py`", "`hdi.model.Gone`", "`log.gone`", "option --gone",
        "HDI_GONE", "titled.md, which", "drawn.png, which", "apart.md, which", "option --nothing", "::test_gone`",
        "`NO_SUCH_RULE`", "`hdi_no_metric`", "`make nosuch`", "HistoricalData.nosuch", "command spent", "model.Nil",
        "HistoricalData.gone", "bogus", "frobnicate", "make nothing", "no yaml", "`alerts.comand`", "no toml",
        "no test runs", "nobody raises",
    ):  # fmt: skip
        assert what in told, what


def test_commands_of_hdi_are_told_from_those_of_the_shell() -> None:
    assert plain("hdi query -s ES.c.0") == ["query", "-s", "ES.c.0"]
    assert plain("python main.py runs --failed   # what; did not end well") == ["runs", "--failed"]
    assert plain("hdi runs | head") is None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make site` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_has_every_page_and_fetches_nothing(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    made = {path.relative_to(site) for path in site.rglob("*.html")}
    assert {p.with_name("index.html") if p.name == "README.html" else p for p in pages} <= made
    assert {Path("architecture.html"), Path("notebook.html")} <= made
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//", text), path
        assert not re.findall(r"<link[^>]+(?:stylesheet|preconnect|preload)[^>]+//", text), path


def test_the_scripts_work_on_a_server_and_tell_what_is_unhealthy(desk: Desk, fresh_database: Callable[[], str]) -> None:
    url = fresh_database()
    desk.buy("ohlcv-1d", "ES.c.0", "2024-01-02", "2024-01-03", store=url)
    with desk.within({"HDI_STORE": url}):
        assert re.search(
            r"^connected: timescaledb .*\n(.*\n)+^healthy$", desk.done("scripts/health_check.sh"), re.MULTILINE
        )
        assert re.search(r"ohlcv_data: [1-9]", desk.done("scripts/data_quality_check.sh"))
        assert "Active connections: " in desk.done("scripts/performance_dashboard.sh --once")
    with desk.within({"HDI_STORE": str(desk.folder / "main.py")}):
        code, told = desk.types("scripts/health_check.sh")
    assert code == 1
    assert "unhealthy\n" in told


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("health_check.sh", "hdi status said nothing"), ("data_quality_check.sh", "not measured: hdi status says why"),
        ("performance_dashboard.sh --once", "not measured: hdi status says why"),
    ],
)  # fmt: skip
def test_a_script_that_gets_no_answer_says_so_and_fails(tmp_path: Path, script: str, told: str) -> None:
    if shutil.which("jq") is None:
        pytest.fail("jq is missing") if os.environ.get("CI") == "true" else pytest.skip("no jq")
    name, *words = script.split()
    environment = {"PATH": os.environ["PATH"], "HDI": str(tmp_path / "gone")}
    done = subprocess.run(
        [str(ROOT / "scripts" / name), *words], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert told in done.stdout + done.stderr
