"""YAML with positions: what a file means, and where an error says it stands."""

from pathlib import Path

import pytest

from hdi.document import load, parse
from hdi.errors import ConfigError

HERE = Path("file.yaml")
TEXT = """\
# a comment
kind: trades
names:
  trades: {grid: day}
rules:
  - name: A
    check: x > 0
  - name: B
"""


def data(text):
    return parse(text, HERE).data


def error(text):
    with pytest.raises(ConfigError) as caught:
        parse(text, HERE)
    assert caught.value.exit_code == 2
    return caught.value.message


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ((), "file.yaml:2:1"),
        (("kind",), "file.yaml:2:1: kind"),
        (("names", "trades"), "file.yaml:4:3: names.trades"),
        (("names", "trades", "grid"), "file.yaml:4:12: names.trades.grid"),
        (("rules", 0), "file.yaml:6:5: rules.0"),
        (("rules", 1, "name"), "file.yaml:8:5: rules.1.name"),
        (("rules", 1, "check"), "file.yaml:8:5: rules.1.check"),  # not there: its nearest parent
        (("names", "tbbo", "grid"), "file.yaml:3:1: names.tbbo.grid"),
        (("nothing",), "file.yaml:2:1: nothing"),
    ],
)
def test_a_key_is_named_with_its_line_and_column(keys, where):
    document = parse(TEXT, HERE)
    assert document.where(*keys) == where
    assert document.error("is wrong", *keys, hint="Mend it.").message == f"{where}: is wrong"
    assert document.error("is wrong", *keys, hint="Mend it.").hint == "Mend it."


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("N", "N"),
        ("true", True), ("True", True), ("FALSE", False), ("2024-01-02", "2024-01-02"),
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"), ("~", None), ("null", None), ("", None), ("3", 3),
        ("1.5", 1.5),
        ("0", 0), ("-7", -7), ("9" * 5_000, "9" * 5_000), (".5", 0.5), ("-1.5e+3", -1500.0),
        # What YAML 1.1 takes for other numbers than it looks like: octal, base 60, base 16, base 2.
        ("0123", "0123"), ("020317", "020317"), ("5:37", "5:37"), ("5:37.5", "5:37.5"), ("0x4F5D", "0x4F5D"),
        ("0b11", "0b11"), ("1_000", "1_000"), ("1_000.5", "1_000.5"), ("+7", "+7"), ("-0", "-0"),
        ("'3'", "3"), ("ES.c.0", "ES.c.0"), ("é", "é"), ("[a, b]", ["a", "b"]), ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)  # fmt: skip
def test_scalars_mean_what_they_look_like(text, value):
    assert data(f"key: {text}") == {"key": value}


def test_every_key_is_text():
    assert data("null: 1\n1: 2\ntrue: 3\n2024-01-02: 4\nno: 5") == {
        "null": 1,
        "1": 2,
        "true": 3,
        "2024-01-02": 4,
        "no": 5,
    }


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "null", "\ufeff"])
def test_nothing_is_an_empty_mapping(text):
    assert data(text) == {}


def test_anchors_are_repeated_and_merged():
    document = parse("a: &a {x: 1}\nb: *a\nc:\n  <<: *a\n  y: 2\n", HERE)
    assert document.data == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}
    assert document.where("a", "x") == "file.yaml:1:8: a.x"
    assert document.where("c", "y") == "file.yaml:5:3: c.y"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "file.yaml:3:1: a: the key is given twice"),
        ("a:\n  b: 1\n  b: 2\n", "file.yaml:3:3: a.b: the key is given twice"),
        ("1: a\n'1': b\n", "file.yaml:2:1: 1: the key is given twice"),
        ("? [a, b]\n: 1\n", "file.yaml:1:3: a key must be plain text"),
        ("a: [1, 2", "file.yaml:"),
        ("a:\n\t- b", "file.yaml:2:1: not valid YAML: "),
        ("a: 1\n---\nb: 2\n", "file.yaml:2:1: not valid YAML: "),
        ("a: b: c", "file.yaml:1:5: not valid YAML: "),
        ("a: *nobody", "file.yaml:1:4: not valid YAML: "),
        ("a: !!python/object/apply:os.system [ls]", "file.yaml:1:4: not valid YAML: "),
        ("a: \0", "file.yaml:1:1: not valid YAML: "),
        ("a: &a [*a]", "file.yaml:1:4: a.0: refers to itself"),
        ("a: &a {b: {c: *a}}", "file.yaml:1:4: a.b.c: refers to itself"),
        ("[" * 100_000, "file.yaml:1:1: not valid YAML: nested too deeply"),
        ("{a: " * 20_000, "file.yaml:1:1: not valid YAML: nested too deeply"),
        ("- " * 20_000, "file.yaml:1:1: not valid YAML: nested too deeply"),
        (
            "a:\n" + "".join(" " * i + "- \n" for i in range(1, 3_000)),
            "file.yaml:1:1: not valid YAML: nested too deeply",
        ),
    ],
    ids=range(17),
)
def test_what_is_wrong_is_said_with_its_place(text, message):
    assert error(text).startswith(message)


LAUGHS = {
    "lists": ["a0: &a0 [1, 2]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))],
    "merges": ["a0: &a0 {x: 1, y: 2}",
               *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 40))],
}  # fmt: skip


@pytest.mark.parametrize("lines", LAUGHS.values(), ids=LAUGHS)
def test_aliases_of_aliases_that_would_fill_the_memory_are_refused_at_once(lines):
    assert "its aliases (*name) stand for more than 100,000 values" in error("\n".join(lines))


def test_aliases_that_repeat_little_are_read():
    assert data("a: &a [1, 2]\nb: [*a, *a]\nc: {<<: {x: 1}, y: 2}\n") == {
        "a": [1, 2], "b": [[1, 2], [1, 2]], "c": {"x": 1, "y": 2}
    }  # fmt: skip


def test_long_lines_are_read_like_short_ones():
    text = "x" * 5_000
    assert data(f"a: {text}\nb: no\nc: 2024-01-02\n") == {"a": text, "b": "no", "c": "2024-01-02"}


class TestFiles:
    def test_one_is_read_as_utf8(self, tmp_path):
        (tmp_path / "f.yaml").write_text("a: é\n", encoding="utf-8")
        document = load(tmp_path / "f.yaml")
        assert document.data == {"a": "é"}
        assert document.where("a") == f"{tmp_path / 'f.yaml'}:1:1: a"

    @pytest.mark.parametrize("content", [b"a: \xe9\n", b"\x89PNG\r\n\x1a\n"])
    def test_other_bytes_are_an_error(self, tmp_path, content):
        (tmp_path / "f.yaml").write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be read"):
            load(tmp_path / "f.yaml")

    def test_a_missing_file_and_a_folder_are_errors(self, tmp_path):
        for path in (tmp_path, tmp_path / "none.yaml", tmp_path / "none" / "f.yaml"):
            with pytest.raises(ConfigError, match="cannot be read") as caught:
                load(path)
            assert str(path) in caught.value.message
