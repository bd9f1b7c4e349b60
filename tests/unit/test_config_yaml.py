"""The YAML reader: YAML 1.2 values, exact places, and a clear answer to everything that YAML is known to trip over."""

from __future__ import annotations

import pytest

from common.config import ConfigInvalidError, load_yaml, load_yaml_text, read_yaml, read_yaml_text
from common.config.yaml_document import MAX_BYTES, UNREADABLE
from common.config.yaml_nodes import MAX_DEPTH, MAX_NODES
from common.exits import Exit, InputFileError


def value_of(text: str) -> object:
    return load_yaml_text(text, "test.yaml").value


def problems_of(text: str) -> list[tuple[str, int | None, int | None]]:
    return [(problem.code, problem.line, problem.column) for problem in read_yaml_text(text, "test.yaml").problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100_000.0),
        ("1e+3", 1000.0),
        (".5", 0.5),
        ("-2.", -2.0),
        ("12", 12),
        ("+12", 12),
        ("-0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("9223372036854775807", 2**63 - 1),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
    ],
)
def test_plain_scalars_are_read_as_yaml_1_2(text: str, value: object) -> None:
    read = value_of(f"key: {text}")
    assert read == {"key": value}
    assert type(read["key"]) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "no",
        "on",
        "off",
        "y",
        "N",
        "010",
        "08",
        "-007",
        "1_000",
        "1:30",
        "2024-01-02",
        "1,5",
        "50%",
        "tRUE",
        "1e",
    ],
)
def test_what_yaml_1_1_would_twist_stays_the_text_that_was_written(text: str) -> None:
    assert value_of(f"key: {text}") == {"key": text}


@pytest.mark.parametrize("text", ['"12"', "'true'", '"~"', "! 12"])
def test_quoted_scalars_are_text(text: str) -> None:
    assert isinstance(value_of(f"key: {text}")["key"], str)


@pytest.mark.parametrize(
    "text", [".nan", ".inf", "-.INF", "1e999", "-1e400", "1e-999", "9223372036854775808", "9" * 5000, "0x" + "f" * 17]
)
def test_numbers_that_no_field_could_use_are_errors(text: str) -> None:
    document = read_yaml_text(f"a: 1\nkey: {text}", "test.yaml")
    assert [(p.code, p.line, p.column, p.key) for p in document.problems] == [("number", 2, 6, "key")]
    assert document.value == {"a": 1, "key": UNREADABLE}


def test_duplicate_keys_are_errors_and_the_first_counts() -> None:
    document = read_yaml_text("a: 1\nb: 2\na: 3\n", "test.yaml")
    assert document.value == {"a": 1, "b": 2}
    assert [(p.code, p.line, p.column) for p in document.problems] == [("duplicate-key", 3, 1)]
    assert "line 1" in document.problems[0].message


@pytest.mark.parametrize("key", ["1", "1.5", "true", "null", "~", "[a, b]", "{a: 1}", "? [a]\n", ".nan"])
def test_keys_must_be_text(key: str) -> None:
    document = read_yaml_text(f"{key}: 1\nfine: 2", "test.yaml")
    assert [problem.code for problem in document.problems] == ["key"]
    assert document.value == {"fine": 2}


def test_the_words_that_yaml_1_1_made_booleans_are_fine_as_keys() -> None:
    assert value_of('yes: 1\non: 2\n"3": 4') == {"yes": 1, "on": 2, "3": 4}


def test_merge_keys_fill_in_what_the_mapping_does_not_say() -> None:
    text = "base: &base {a: 1, b: 2}\nmore: &more {b: 5, c: 6}\none:\n  b: 3\n  <<: *base\ntwo:\n  <<: [*base, *more]\n"
    value = value_of(text)
    assert value["one"] == {"a": 1, "b": 3}
    assert value["two"] == {"a": 1, "b": 2, "c": 6}


def test_a_quoted_merge_key_is_an_ordinary_key() -> None:
    assert value_of("'<<': {a: 1}") == {"<<": {"a": 1}}


def test_merging_what_is_no_mapping_is_an_error() -> None:
    assert problems_of("a: {<<: 5}") == [("merge", 1, 9)]


def test_a_merged_value_has_the_place_where_it_is_written() -> None:
    document = load_yaml_text("base: &base\n  a: 1\nuse:\n  <<: *base\n", "test.yaml")
    assert (document.value_span(("use", "a")).line, document.value_span(("use", "a")).column) == (2, 6)


def test_an_alias_gives_equal_values_that_are_not_shared() -> None:
    value = value_of("a: &x {n: [1]}\nb: *x")
    assert value["a"] == value["b"]
    assert value["a"] is not value["b"]
    assert value["a"]["n"] is not value["b"]["n"]


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a\n  b:\n    - c: *a"])
def test_a_cycle_is_an_error(text: str) -> None:
    assert [code for code, _, _ in problems_of(text)] == ["alias-cycle"]


def test_an_alias_bomb_is_refused_before_it_expands() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert [code for code, _, _ in problems_of("\n".join(rows))] == ["too-large"]


def test_a_merge_bomb_is_refused() -> None:
    rows = ["a: &a {" + ", ".join(f"k{n}: 1" for n in range(4000)) + "}"]
    rows += [f"b{n}: {{<<: *a}}" for n in range(100)]
    assert [code for code, _, _ in problems_of("\n".join(rows))] == ["too-large"]


def test_an_unknown_alias_is_an_error() -> None:
    assert problems_of("pattern: *png") == [("unknown-alias", 1, 10)]


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!mine", "!!str", "!!binary", "!<x>"]
)
def test_tags_are_refused(tag: str) -> None:
    document = read_yaml_text(f"a: {tag} x\nb: 2", "test.yaml")
    assert [(p.code, p.line, p.column) for p in document.problems] == [("tag", 1, 4)]
    assert document.value["b"] == 2


@pytest.mark.parametrize(
    "hidden", ["\u202e", "\u2066", "\u200b", "\u200d", "\ufeff", "\x00", "\x07", "\x1b", "\x7f", "\x85", "\u2028",
               "\u00ad", "\U000e0041", "\u3164", "\ufffe"],
)  # fmt: skip
def test_hidden_characters_are_refused_in_values_and_comments(hidden: str) -> None:
    assert problems_of(f"a: x{hidden}y") == [("hidden-character", 1, 5)]
    assert problems_of(f"a: 1\n# x{hidden}") == [("hidden-character", 2, 4)]


@pytest.mark.parametrize("escape", [r"\u202e", r"\x1b[2J", r"\ud800", r"\0", r"\L", r"\N"])
def test_hidden_characters_are_refused_as_escapes(escape: str) -> None:
    document = read_yaml_text(f'a: "{escape}"\nb: 2', "test.yaml")
    assert [problem.code for problem in document.problems] == ["hidden-character"]
    assert document.value == {"a": UNREADABLE, "b": 2}


def test_hidden_characters_are_named() -> None:
    assert "U+202E RIGHT-TO-LEFT OVERRIDE" in read_yaml_text("a: \u202e", "test.yaml").problems[0].message


def test_ordinary_text_of_any_language_is_fine() -> None:
    assert value_of("a: Größe 漢字 العربية 🙂 ①") == {"a": "Größe 漢字 العربية 🙂 ①"}


def test_escapes_beyond_unicode_are_an_error() -> None:
    assert problems_of(r'a: "\UFFFFFFFF"') == [("syntax", 1, 7)]


@pytest.mark.parametrize(
    ("text", "line", "column", "word"),
    [
        ("a:\n\tb: 1", 2, 1, "tab"),
        ("a: b: c", 1, 5, "`:`"),
        ("a: 'x", 1, 4, "quote"),
        ("a: [1, 2\nb: 3", 1, 4, "bracket"),
        ('a: "\\d"', 1, 6, "escape"),
        ("a: @x", 1, 4, "character"),
        ("model:\n  dropout\n  b: 1", 2, 3, "colon"),
        ("dropout\nb: 1", 1, 1, "colon"),
        ("a:\n  b: 1\n c: 2", 3, 2, "indentation"),
        ("a:\u00a01\nb: 2", 1, 3, "plain"),
        ("%YAML 9999999999999.1\n---\na: 1", 1, 1, "directive"),
    ],
)
def test_syntax_errors_point_at_the_cause(text: str, line: int, column: int, word: str) -> None:
    (problem,) = read_yaml_text(text, "test.yaml").problems
    assert (problem.code, problem.line, problem.column) == ("syntax", line, column)
    assert word in problem.message


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_absurd_depth_is_an_error(opening: str) -> None:
    assert [code for code, _, _ in problems_of(opening * 200_000)] == ["too-deep"]


def test_depth_within_bounds_is_read() -> None:
    assert problems_of("[" * MAX_DEPTH + "]" * MAX_DEPTH) == []
    assert problems_of("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)) == [("too-deep", 1, MAX_DEPTH + 1)]


def test_depth_through_aliases_is_bounded_too() -> None:
    rows = ["a0: &a0 [1]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 60)]
    assert [code for code, _, _ in problems_of("\n".join(rows))] == ["too-deep"]


def test_absurd_numbers_of_values_are_an_error() -> None:
    assert [code for code, _, _ in problems_of("- x\n" * (MAX_NODES + 1))] == ["too-large"]


def test_absurd_size_is_an_error(tmp_path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"# x\n" * (MAX_BYTES // 4 + 1))
    assert [problem.code for problem in read_yaml(path).problems] == ["too-large"]


def test_a_second_document_is_an_error() -> None:
    assert problems_of("a: 1\n---\nb: 2") == [("several-documents", 2, 1)]


def test_document_markers_around_one_document_are_fine() -> None:
    assert value_of("%YAML 1.2\n---\na: 1\n...\n") == {"a": 1}


@pytest.mark.parametrize("text", ["", "\n", "# comment\n", "---\n"])
def test_an_empty_document_is_none(text: str) -> None:
    assert value_of(text) is None


def test_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: 1e-3\r\n")
    document = load_yaml(path)
    assert document.value == {"a": 1, "b": {"c": 0.001}}
    assert document.value_span(("b", "c")).line == 3
    assert document.key_span(("a",)).column == 1


def test_old_mac_line_ends_count_as_lines() -> None:
    assert problems_of("a: 1\rb: .nan") == [("number", 2, 4)]


def test_places_are_in_characters_and_lines_of_the_file() -> None:
    document = load_yaml_text("é: ü\nlist:\n  - {b: 'x y'}\n", "guide.md", first_line=10)
    key, value = document.key_span(("list", 0, "b")), document.value_span(("list", 0, "b"))
    assert (key.line, key.column, key.end_column) == (12, 6, 7)
    assert (value.line, value.column, value.end_column) == (12, 9, 14)
    assert (document.value_span(("é",)).line, document.value_span(("é",)).column) == (10, 4)


def test_a_value_that_is_left_out_is_noted() -> None:
    document = load_yaml_text("a:\nb: null\nc: {d: }\n", "test.yaml")
    assert document.value == {"a": None, "b": None, "c": {"d": None}}
    assert document.written_empty == {("a",), ("c", "d")}


@pytest.mark.parametrize("content", [b"\xff\xfea\x00:\x00", b"a: \xe9\n", b"a: \xed\xa0\x80\n", b"\xfe\xff\x00a"])
def test_what_is_not_utf_8_cannot_be_read(tmp_path, content: bytes) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match="UTF-8"):
        read_yaml(path)


def test_paths_that_are_no_files_cannot_be_read(tmp_path) -> None:
    for path, reason in [(tmp_path, "folder"), (tmp_path / "none.yaml", "no such file"), ("a\0b", "cannot be read")]:
        with pytest.raises(InputFileError, match=reason) as raised:
            read_yaml(path)
        assert raised.value.exit is Exit.BAD_INPUT


def test_load_yaml_raises_with_the_whole_report(tmp_path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("a: 1\na: 2\nb: .nan\n")
    with pytest.raises(ConfigInvalidError, match="not a valid search space, 2 errors") as raised:
        load_yaml(path, what="search space")
    assert raised.value.exit is Exit.NO
    assert str(raised.value).count("error[") == 2


def test_a_device_without_end_is_read_no_further_than_the_limit() -> None:
    assert [problem.code for problem in read_yaml("/dev/zero").problems] == ["too-large"]
