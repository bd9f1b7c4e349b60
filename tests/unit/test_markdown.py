from __future__ import annotations

from common import markdown


def test_table_columns_line_up_and_pipes_are_escaped():
    text = markdown.table(["Name", "N"], [("a|b", 1), ("long name", 12345)])
    assert text.split("\n") == [
        "| Name      | N     |",
        "| --------- | ----- |",
        "| a\\|b      | 1     |",
        "| long name | 12345 |",
    ]


def test_code_block_fence_is_longer_than_any_inside():
    assert markdown.code_block("```x```", "md") == "````md\n```x```\n````"


def test_document_and_lists():
    text = markdown.document("T", [("", "intro"), ("One", markdown.bullet_list([], empty="None."))])
    assert text == "# T\n\nintro\n\n## One\n\nNone.\n"
