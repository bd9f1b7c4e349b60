"""The recorded tables that searches are replayed from are complete, and hold what their plans say."""

from __future__ import annotations

import pytest

from benchmarks.search.replay import confirmations, replay
from benchmarks.search.tables import PLANS, load_table, read_rows
from common.search_results.trial_files import parse_cell


@pytest.mark.parametrize("name", PLANS)
def test_each_line_has_the_values_of_its_configuration(name):
    plan = PLANS[name]
    table = load_table(name)
    rows = read_rows(plan.path)
    assert len(rows) == len(table.configurations) * len(plan.seeds)
    for row in rows:
        assert {path: parse_cell(row[path]) for path in plan.space} == table.configurations[int(row["configuration"])]
    scores = [score for line in table.scores for score in line if score is not None]
    assert all(0 <= score <= 100 for score in scores) and len(set(scores)) > 20


def test_a_replay_takes_the_recorded_scores_of_one_seed_and_confirms_with_others():
    table = load_table("digits_adam_seeds")
    found = replay(table, "random_search", 12, study_seed=3, column=5, lag=0)
    assert len(set(found.tried)) == 12
    assert list(found.scores) == [table.scores[number][5] for number in found.tried]
    first, *_ = entries = confirmations(table, found, 12, (5, 0, 11))
    assert len(entries) == 3 and first.values[0] == max(found.scores)
    assert first.seeds == (6, 1, 12) and first.values[1] == table.scores[found.tried[first.number]][0]


def test_a_torn_last_line_is_not_read(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("configuration,seed,val_acc\n0,1,90.0\n0,2,9", encoding="utf-8")
    assert [row["seed"] for row in read_rows(path)] == ["1"]
