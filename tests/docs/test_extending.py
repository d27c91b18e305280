"""docs/add-a-vendor.md and docs/add-a-store.md: what they show is a package of its own here, and works as they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from docs.guides import Reader, Step, forking
from hdi.rehearsal import spawn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import validate_docs  # noqa: E402  (a script, not a package)

#: What is quick of the suites that the pages show: that they are found and run. (Ours run whole in tests/conformance.)
SUITES = {"add-a-vendor": "protocol or exists", "add-a-store": "empty"}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Somebody with a vendor, in a folder of their own."""
    folder = tmp_path_factory.mktemp("extending")
    with spawn(until="2024-07-01") as vendor, closing(forking()) as children:
        environment = vendor.environment()
        theirs = {"ACME_API_KEY": environment["DATABENTO_API_KEY"], "ACME_GATEWAY": environment["DATABENTO_GATEWAY"]}
        with Reader(folder, environment | theirs, {}, children) as made:
            yield made


def packaged(page: validate_docs.Page, folder: Path) -> dict[str, Path]:
    """The page's modules and entry points as a package that is installed in the folder: its files by name."""
    info = folder / "theirs-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n", encoding="utf-8")
    files = {}
    for block in page.blocks:
        if block.language == "python":
            name = block.text.partition("\n")[0].removeprefix("# ")
            files[name] = folder / name
            files[name].write_text(block.text, encoding="utf-8")
        elif block.language == "toml":
            points = re.sub(r'\[project\.entry-points\."(.*)"\]', r"[\1]", block.text).replace('"', "")
            (info / "entry_points.txt").write_text(points, encoding="utf-8")
    return files


@pytest.mark.parametrize("name", ["add-a-vendor", "add-a-store"])
def test_the_package_of_the_page_is_found_by_its_name_and_passes_the_suite(
    reader: Reader, tmp_path: Path, name: str
) -> None:
    page = validate_docs.page(ROOT / "docs" / f"{name}.md")
    files = packaged(page, tmp_path / "site")
    reader.environment["PYTHONPATH"] = str(tmp_path / "site")
    commands = [one.text for block in page.blocks for one in validate_docs.typed(block)]
    assert len(commands) == len(files) == 2
    printed = ""
    for command in commands:
        code, printed = reader.follow(Step(typed=command))
        assert code == 0, f"{command}\n{printed}"
    assert "stored" in printed or "rows in" in printed
    (suite,) = (path for file, path in files.items() if file.startswith("test_"))
    more = [f"{ROOT}/src", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", SUITES[name], str(suite)],
        cwd=tmp_path, env=reader.environment | {"PYTHONPATH": os.pathsep.join([str(suite.parent), *more])},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)


def test_a_vendor_of_another_package_is_not_given_the_key_of_databento(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hdi

    (tmp_path / "spy-1.dist-info").mkdir()
    (tmp_path / "spy-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: spy\nVersion: 1\n", encoding="utf-8"
    )
    (tmp_path / "spy-1.dist-info" / "entry_points.txt").write_text(
        "[hdi.sources]\nspy = spy_source\n", encoding="utf-8"
    )
    (tmp_path / "spy_source.py").write_text("def open(**given):\n    return given\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DATABENTO_API_KEY", "db-ThisIsNobodysKeyAndNeverWillBe")
    with hdi.open(tmp_path / "lake") as data:
        assert data.source("spy") == {"on_wait": None}
