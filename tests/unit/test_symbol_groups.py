"""Groups of symbols: what a name with @ stands for, and what is wrong with a file of them."""

from pathlib import Path

import pytest

from hdi import HistoricalData
from hdi.errors import ConfigError, RequestError
from hdi.symbol_groups import FILE, expand, load_groups, named

TEXT = """
ENERGY: [CL.c.0, NG.c.0]
INDEX: ES.c.0, NQ.c.0
ALL: ["@ENERGY", "@index", SPY, CL.c.0]
IDS: [1234]
"""


@pytest.fixture
def folder(tmp_path):
    def write(text=TEXT):
        (tmp_path / FILE).write_text(text)
        return tmp_path

    return write


def test_a_group_stands_for_its_symbols_and_groups_within_are_taken_apart(folder):
    groups = load_groups(folder())
    assert groups["ENERGY"] == ("CL.c.0", "NG.c.0")
    assert groups["INDEX"] == ("ES.c.0", "NQ.c.0")
    assert groups["ALL"] == ("CL.c.0", "NG.c.0", "ES.c.0", "NQ.c.0", "SPY")
    assert groups["IDS"] == ("1234",)


def test_symbols_keep_their_order_and_none_comes_twice(folder):
    assert expand(["ES.c.0, @ENERGY", "CL.c.0", "@energy"], folder()) == ("ES.c.0", "CL.c.0", "NG.c.0")


def test_without_a_group_no_file_is_looked_at(folder):
    assert expand(["ES.c.0,ES.FUT"], folder("- not a mapping")) == ("ES.c.0", "ES.FUT")
    assert expand(["ES.c.0"], None) == ("ES.c.0",)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [("@ENRGY", "@ENERGY"), ("@", "Known: @ENERGY")],
)
def test_an_unknown_group_is_told_with_the_closest(folder, asked, hint):
    with pytest.raises(RequestError, match="unknown group") as error:
        expand([asked], folder())
    assert hint in error.value.hint
    assert FILE in error.value.hint


def test_where_no_group_is_defined_the_error_says_where_they_stand(tmp_path):
    with pytest.raises(RequestError, match="unknown group @ENERGY") as error:
        expand(["@ENERGY"], tmp_path)
    assert FILE in error.value.hint


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ("A: []", ":1:1: A", "a symbol is needed"),
        ("\nA: [true]", ":2:1: A", "not a symbol"),
        ("A: {b: c}", ":1:1: A", "not a symbol"),
        ("lower: [ES.c.0]", ":1:1: lower", "capitals"),
        ("A: ['@B']", ":1:1: A", "unknown group @B"),
        ("A: ['@B']\nB: ['@A']", ": B", "cannot hold itself"),
        ("A: ['@A']", ": A", "cannot hold itself"),
        ("[A]", ":1:1", "a group is a name"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_place(folder, text, at, said):
    with pytest.raises(ConfigError, match=said) as error:
        expand(["@A"], folder(text))
    assert at in error.value.message


def test_the_packaged_groups_are_read_and_serve_queries_and_orders():
    configs = Path(__file__).parents[2] / "configs"
    with HistoricalData.open(config_dir=configs) as data:
        assert data.symbols_of("@FUTURES") == ("CL.c.0", "NG.c.0", "HO.c.0", "RB.c.0", "ES.c.0", "NQ.c.0", "GC.c.0")
        buying = data.buying(dataset="GLBX.MDP3", schema="ohlcv-1d", symbols="@METALS,ES.FUT", start="2024-01-02",
                             end="2024-01-02", dry_run=True)  # fmt: skip
        assert buying.request.symbols == {"parent": ("ES.FUT",), "continuous": ("GC.c.0",)}


def test_a_symbol_is_what_is_written_and_no_number_of_another_notation(folder):
    text = "A: [0123, 020317, 5:37, 0x4F5D, 1_000, 0, 20317]"
    assert load_groups(folder(text))["A"] == ("0123", "020317", "5:37", "0x4F5D", "1_000", "0", "20317")


def test_groups_that_hold_each_other_many_times_over_are_taken_apart_once(folder):
    text = "".join(f"G{i}: ['@G{i + 1}', '@G{i + 1}', S{i}]\n" for i in range(40)) + "G40: [S40]"
    assert load_groups(folder(text))["G0"] == tuple(f"S{i}" for i in range(40, -1, -1))


def test_a_long_chain_of_groups_is_followed_to_its_end(folder):
    chain = "".join(f"G{i}: ['@G{i + 1}']\n" for i in range(1_500))
    assert expand(["@G0"], folder(f"{chain}G1500: [ES.c.0]")) == ("ES.c.0",)
    with pytest.raises(ConfigError, match="a group cannot hold itself"):
        expand(["@G0"], folder(f"{chain}G1500: ['@G7']"))


def test_a_mistake_is_told_once_however_many_groups_lead_to_it(folder):
    text = "A: ['@B']\nB: ['@C']\nC: ['@B']\nD: ['@A', '@E']\nE: ['@B', '@NONE']"
    with pytest.raises(ConfigError) as error:
        expand(["@A"], folder(text))
    circle, unknown = error.value.message.splitlines()
    assert circle.endswith(":3:1: C: B in C in B: a group cannot hold itself")
    assert unknown.endswith(":5:1: E: unknown group @NONE")


@pytest.mark.parametrize("kind", ["dangling link", "folder"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path, kind):
    path = tmp_path / FILE
    path.mkdir() if kind == "folder" else path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"symbol_groups\.yaml: cannot be read"):
        expand(["@ENERGY"], tmp_path)


def test_what_was_asked_for_by_itself_is_told_apart_from_groups():
    assert named(["ES.c.0, @ENERGY", "@INDEX", "SPY"]) == {"ES.c.0", "SPY"}
