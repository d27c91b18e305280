"""The vendor's bytes, kept under ``raw/``: where, how, once, and never anything else in their place."""

import fcntl
import hashlib
import os
import stat
from pathlib import Path

import pytest

from dbnfiles import fragment, records, write
from files.lab import Lab
from hdi import raw


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "my file.dbn.zst", "trades", records("trades", 9))


def test_a_file_is_kept_under_its_origin_dataset_schema_day_unit_and_digest(lab, file):
    (outcome,) = lab.good(file)
    (unit,) = [r.unit.id for r in outcome.receipts]
    (kept,) = lab.raw()
    assert str(kept.relative_to(lab.root)) == (
        f"data/raw/databento/GLBX.MDP3/trades/2024-01-02/{unit}-{digest(file)[:12]}.dbn.zst"
    )
    assert kept.read_bytes() == file.read_bytes()
    (row,) = lab.store.ledger().to_dicts()
    assert (row["raw_file"], row["raw_digest"], row["raw_bytes"]) == (str(kept), digest(file), file.stat().st_size)


def test_the_ledger_names_it_from_everywhere(tmp_path, file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lab = Lab(Path())
    lab.good(file.name)
    assert lab.store.ledger()["raw_file"].to_list() == [str(tmp_path / lab.raw()[0])]


def test_nobody_else_may_read_it_whatever_the_umask(lab, file):
    before = os.umask(0)
    try:
        lab.good(file)
    finally:
        os.umask(before)
    (kept,) = lab.raw()
    assert mode(kept) == 0o600
    folders = [p for p in kept.parents if p.is_relative_to(lab.root / "data" / "raw")]
    assert len(folders) == 5
    assert {mode(p) for p in [*folders, lab.root / "data" / "raw" / ".part"]} == {0o700}


def test_the_users_own_file_is_left_as_it_is(lab, file):
    file.chmod(0o640)
    before = file.stat()
    lab.good(file)
    after = file.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_nlink, after.st_ino) == (
        before.st_mode, before.st_mtime_ns, 1, before.st_ino,
    )  # fmt: skip
    assert lab.raw()[0].stat().st_ino != after.st_ino


def test_a_plain_file_is_kept_plain_and_a_fragment_without_dates_undated(lab, tmp_path):
    lab.good(write(tmp_path / "a.dbn", "trades", records("trades", 3), pack=False))
    lab.good(fragment(tmp_path / "b.dbn.zst", "tbbo", records("tbbo", 3)))
    plain, packed = sorted(lab.raw(), key=lambda p: p.suffix)
    assert plain.name.endswith(".dbn")
    assert packed.parent.name == "undated"
    assert packed.name.endswith(".dbn.zst")


def test_another_origin_has_its_own_folder(tmp_path, file):
    lab = Lab(tmp_path, origin="synthetic")
    lab.good(file)
    assert lab.raw()[0].relative_to(lab.root / "data" / "raw").parts[0] == "synthetic"


def test_what_is_there_is_not_written_again(lab, file):
    lab.good(file)
    (kept,) = lab.raw()
    before = kept.stat()
    lab.good(file, refetch=True)
    assert lab.raw() == [kept]
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.fault("disk", "the kept copy of a file is damaged", "lake")
@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_a_damaged_copy_is_set_aside_and_never_overwritten(lab, file, damage):
    lab.good(file)
    (kept,) = lab.raw()
    whole = kept.read_bytes()
    damaged = bytes([whole[0] ^ 1]) + whole[1:] if damage is None else damage
    kept.write_bytes(damaged)
    lab.good(file, refetch=True)
    assert kept.read_bytes() == whole
    (aside,) = [p for p in lab.raw() if p != kept]
    assert aside.name.startswith(f"{kept.name}.damaged-")
    assert aside.read_bytes() == damaged


def test_other_bytes_of_the_same_unit_lie_beside_the_first(lab, file, tmp_path):
    lab.good(file)
    other = write(tmp_path / "other.dbn.zst", "trades", records("trades", 8))
    lab.good(other, refetch=True)
    assert {digest(p) for p in lab.raw()} == {digest(file), digest(other)}
    assert len({p.name.split("-")[0] for p in lab.raw()}) == 1


def test_without_a_copy_path_and_digest_are_remembered(lab, file, monkeypatch):
    monkeypatch.chdir(file.parent)
    lab.good(file.name, keep=False)
    assert not (lab.root / "data").exists()
    (row,) = lab.store.ledger().to_dicts()
    assert (row["raw_file"], row["raw_digest"], row["raw_bytes"]) == (str(file), digest(file), file.stat().st_size)
    assert lab.ingest(file)[0].status == "skipped"


def test_a_dry_run_and_a_skipped_file_keep_nothing(lab, file):
    lab.ingest(file, dry_run=True)
    assert not (lab.root / "data").exists()
    lab.good(file, keep=False)
    assert lab.ingest(file)[0].status == "skipped"
    assert lab.raw() == []


def test_a_file_whose_rows_are_refused_is_kept_for_a_look(lab, tmp_path):
    path = write(tmp_path / "bad.dbn.zst", "trades", records("trades", 300, side=b"X"))
    assert lab.error(path).exit_code == 4
    assert [digest(p) for p in lab.raw()] == [digest(path)]


def test_no_part_file_is_left_by_any_outcome(lab, file, tmp_path):
    broken = tmp_path / "broken.dbn.zst"
    broken.write_bytes(file.read_bytes()[:-2])
    lab.ingest(file, broken, tmp_path / "none", file)
    assert list((lab.root / "data" / "raw" / ".part").iterdir()) == []


def test_a_sweep_takes_what_nobody_holds_and_nothing_else(tmp_path):
    data = tmp_path / "data"
    held = raw.Part(data)
    held.write(b"half")
    folder = data / "raw" / ".part"
    (folder / "dead.part").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    (folder / "folder.part").mkdir()
    assert raw.sweep(data) == 1
    assert sorted(p.suffix for p in folder.iterdir()) == [".part", ".part", ".txt"]
    kept = held.keep(("a", "b"), "c.dbn", hashlib.sha256(b"half").hexdigest(), 4)
    assert (data / "raw" / "a" / "b" / "c.dbn").read_bytes() == b"half"
    assert kept.size == 4
    assert raw.sweep(tmp_path / "nothing") == 0


def test_a_part_that_is_given_up_goes_away(tmp_path):
    part = raw.Part(tmp_path)
    part.write(b"half")
    part.discard()
    part.discard()
    assert list((tmp_path / "raw" / ".part").iterdir()) == []


def test_a_part_is_locked_while_it_is_written(tmp_path):
    part = raw.Part(tmp_path)
    (path,) = (tmp_path / "raw" / ".part").iterdir()
    with path.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    part.discard()
