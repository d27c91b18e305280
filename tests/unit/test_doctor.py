"""``hdi doctor`` on this machine: each thing that can be wrong is found, and says how it is mended."""

import os

import pytest

from hdi import configuring
from hdi.doctor import here, stored, vendor
from hdi.raw import Part
from hdi.sources import Reached


@pytest.fixture
def checked(tmp_path):
    """The settings of a folder."""

    def call(env=None, **files):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        return configuring.check(variables=env or {}, cwd=tmp_path)

    return call


@pytest.fixture
def found(checked):
    return checked().settings


@pytest.mark.parametrize(
    ("version", "bounds", "fits"),
    [
        ("2.1.0", ">=2.1,<3", True), ("3.0", ">=2.1,<3", False), ("2.0.9", ">=2.1,<3", False),
        ("2.1", ">=2.1.0", True), ("3.11.7", ">=3.11", True), ("1.8.1", "~=1.8.0", True), ("1.9", "~=1.8.0", False),
        ("3.0.0rc1", "<3", False), ("1.0", "!=1.0", False), ("1.0", "", True),
    ],
)  # fmt: skip
def test_a_version_is_compared_by_its_numbers(version, bounds, fits):
    assert here._within(version, bounds) is fits


def test_this_python_and_these_libraries_are_the_ones_that_are_needed():
    assert (here.python().state, here.libraries().state) == ("pass", "pass")


def test_wrong_settings_fail_with_every_problem(checked):
    (finding,) = here.settings(checked(env={"LOG_LEVEL": "LOUD", "HDI_X": "1"}))
    assert finding.state == "fail"
    assert {"LOUD", "HDI_X"} <= set(finding.said.replace("'", " ").split())


def test_a_secret_that_others_can_read_is_warned_of_and_not_shown(checked, tmp_path):
    loaded = checked(**{".env": "DATABENTO_API_KEY=db-very-secret\n"}).settings
    (tmp_path / ".env").chmod(0o644)
    (finding,) = here.env(tmp_path, loaded)
    assert (finding.state, finding.mend) == ("warn", f"chmod 600 {tmp_path / '.env'}")
    assert "secret" in finding.said
    assert "db-very" not in finding.said
    (tmp_path / ".env").chmod(0o600)
    assert next(here.env(tmp_path, loaded)).state == "pass"


def test_raw_files_that_others_can_get_at_are_named(found):
    part = Part(found.data_dir)
    part.write(b"x")
    (kept,) = [f for f in here.folders(found) if f.name == "raw files"]
    assert (kept.state, kept.said[:7]) == ("pass", "1 files")
    part.discard()
    folder = found.data_dir / "raw" / "open"
    folder.mkdir()
    folder.chmod(0o755)
    (loose,) = [f for f in here.folders(found) if f.name == "raw files"]
    assert loose.state == "warn"
    assert str(folder) in loose.said
    assert loose.mend == f"chmod -R go-rwx {found.data_dir / 'raw'}"


def test_a_file_where_a_folder_should_be_fails(found):
    found.log.dir.write_text("")
    (logs,) = [f for f in here.folders(found) if f.name == "logs"]
    assert (logs.state, bool(logs.mend)) == ("fail", True)


def test_free_space_is_measured(found):
    finding = here.disk(found)
    assert finding.state in ("pass", "warn")
    assert "free at" in finding.said


def test_parts_of_processes_that_are_gone_are_told_and_those_of_living_ones_not(found):
    part = Part(found.data_dir)
    part.write(b"xyz")
    assert stored.leftovers(found.data_dir).state == "pass"
    os.close(part._fd)
    finding = stored.leftovers(found.data_dir)
    assert finding.state == "warn"
    assert finding.said.startswith("1 parts of files, 3 bytes")


@pytest.mark.parametrize(("calendar", "state"), [("GLBX.MDP3", "pass"), ("NO.SUCH", "warn")])
def test_a_dataset_of_a_job_without_a_calendar_is_warned_of(checked, tmp_path, calendar, state):
    folder = tmp_path / "configs" / "api_specific"
    folder.mkdir(parents=True)
    job = f"{{dataset: {calendar}, schema: ohlcv-1d, symbols: ES.c.0, start_date: 2023-01-01, end_date: 2023-01-31}}"
    (folder / "databento.yaml").write_text(f"jobs: {{a: {job}}}")
    finding = stored.calendars(checked())
    assert finding.state == state
    assert calendar in finding.said


@pytest.mark.parametrize(
    ("ahead", "state"),
    [
        (0.4, "pass"),
        (-2.4, "pass"),
        (2.6, "warn"),
        (-59.0, "warn"),
        (61.0, "fail"),
        (-3600.0, "fail"),
        (None, "not measured"),
    ],
)
def test_a_clock_is_judged_by_what_it_is_off_for_certain(ahead, state):
    finding = vendor._clock(Reached("https://x", 0.1, ahead, 0.5))
    assert finding.state == state
    assert bool(finding.mend) == (state in ("warn", "fail"))
