"""Whatever a run's files hold, a comparison is made or refused with a sentence; nothing is a bug."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compare_results
import optimization_report_tool
from common.comparison.analysis import analysis
from common.comparison.as_json import comparison_document
from common.comparison.changes import FieldChange
from common.comparison.decision import decide
from common.comparison.evidence import compare
from common.comparison.runs import load_side
from common.exits import ToolError
from tests.comparison_runs import write_run

JUNK = (None, True, -1, 0, 3, 1e308, 10**400, "x", "\u202e|\n#", "val_acc", [], {}, [1], {"a": 1}, float("nan"), 0.5)
FILES = ("metrics.json", "environment.json")


def places(value, path=()):
    """Every path into a nested value; of a list its first two entries."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def spoilt(document, path, junk, remove):
    document = copy.deepcopy(document)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    if remove and isinstance(inner, dict):
        del inner[path[-1]]
    else:
        inner[path[-1]] = junk
    return document


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    sides = write_run(folder / "a", num_right=180), write_run(folder / "b", overrides=["model.dropout=0.3"])
    documents = {name: json.loads((sides[1] / name).read_text()) for name in FILES}
    return sides, documents


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.data())
def test_damaged_files_are_no_bug(folders, data):
    (first, second), documents = folders
    name = data.draw(st.sampled_from(FILES))
    path = data.draw(st.sampled_from(sorted(places(documents[name]), key=str)))
    document = spoilt(documents[name], path, data.draw(st.sampled_from(JUNK)), data.draw(st.booleans()))
    try:
        (second / name).write_text(json.dumps(document))
        check(first, second, data.draw(st.sampled_from(["val_acc", "val_loss"])))
    finally:
        (second / name).write_text(json.dumps(documents[name]))


def check(first, second, metric):
    try:
        baseline, optimized = load_side("baseline", [first]), load_side("optimized", [second])
    except ToolError:
        return
    comparison = compare(baseline, optimized, metric=metric)
    changes: list[FieldChange] = []  # those depend on the configs alone
    decision = decide(comparison, 90.0)
    assert decision.commands
    assert analysis(comparison, changes)
    assert compare_results.report_text(comparison, None).startswith("# Comparison: ")
    assert "\n## Decision\n" in optimization_report_tool.report_text(comparison, changes, decision, None)
    json.dumps(comparison_document(comparison), allow_nan=False)
    if comparison.verdict in ("better", "worse"):
        pytest.fail("one run a side carries no verdict")
