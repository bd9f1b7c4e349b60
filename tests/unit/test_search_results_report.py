"""search_results.md: that it says what was found, how far to trust it, and what became of every trial."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.config import load_config
from common.search_results.pictures import Pictures
from common.search_results.records import SpaceEntry
from common.search_results.report import report_text
from common.search_results.writing import write_results
from tests.search_studies import DROPOUT, RATE, scored_study, study, trial

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def base():
    return load_config(ROOT / "configs" / "training_config.yaml")


def report(folder, record, base):
    """The report alone; drawing the pictures takes longer than all the rest."""
    return report_text(record, base, folder, Pictures((), None))


def report_with_pictures(folder, record, base):
    write_results(folder, record, base)
    return (folder / "search_results.md").read_text(encoding="utf-8")


def section(text, heading):
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    assert found, f"no section {heading}"
    return found.group(1)


def cells(text):
    """The rows of the first table in ``text``."""
    lines = [line for line in text.split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[:1] + lines[2:]]


@pytest.fixture
def confirmed():
    trials = [trial(0, 96.0), trial(1, 99.0), trial(2, 97.0), trial(3, None), trial(4, 90.0)]
    return study(trials, {1: (94.0, 94.2), 2: (97.0, 96.0), 0: (None, 95.0)})


def test_the_verdict_gives_the_expected_score_and_calls_the_search_s_maximum_optimistic(tmp_path, confirmed, base):
    verdict = report(tmp_path, confirmed, base).split("## ")[0]
    expected = re.search(r"Winner: trial 2, expected validation accuracy (\d\d\.\d\d)% ± 0\.58 points", verdict)
    # Drawn from its 96.5 towards the mean with the other that did not diverge.
    assert expected and 95.3 < float(expected[1]) < 96.5
    assert "best score was 99.00% (trial 1)" in verdict and "optimistic" in verdict
    assert "5 of 5 trials are done (4 complete, 1 diverged)" in verdict


def test_the_confirmation_lists_every_seed_s_score(tmp_path, confirmed, base):
    rows = cells(section(report(tmp_path, confirmed, base), "Confirmation"))
    assert rows[0] == ["Trial", "In the search", "Seed 1001", "Seed 1002", "Mean of all", "Spread"]
    assert rows[1] == ["1", "99.00%", "94.00%", "94.20%", "95.73%", "2.83 points"]
    assert rows[2][0] == "✓ 2" and rows[3][2] == "diverged"


def test_without_confirmation_the_score_is_called_the_maximum_of_the_search(tmp_path, base):
    text = report(tmp_path, study([trial(0, 96.0), trial(1, 97.0)]), base)
    assert "optimistic" in text.split("## ")[0]
    assert "maximum of the search" in section(text, "Confirmation")


def test_the_commands_train_the_winner_and_compare_it(tmp_path, confirmed, base):
    steps = section(report(tmp_path, confirmed, base), "What to do next")
    assert f"--config {tmp_path}/best_config.yaml --mode optimization --output-dir results/optimization/" in steps
    assert "--config configs/training_config.yaml --mode baseline" in steps
    assert "compare_results.py --baseline results/baseline/metrics.json --optimized results/optimization/" in steps
    assert "same command goes on" not in steps


@pytest.mark.parametrize("end", ["interrupted", "timeout"])
def test_an_unfinished_search_says_how_to_go_on(tmp_path, base, end):
    trials = [trial(0, 96.0), trial(1, None, state="running"), trial(2, None, state="waiting")]
    text = report(tmp_path, study(trials, end=end, n_trials=9), base)
    assert "1 of 9 trials are done (1 complete, 1 running, 1 waiting)" in text.split("## ")[0]
    command = "python hyperparam_search.py --n-trials 3 --output 'results/my search/'"
    assert command in section(text, "What to do next") and command in section(text, "Repeating it")


def test_a_partial_grid_is_told_as_k_of_n(tmp_path, base):
    grid = {"method": "grid_search", "size": 12}
    assert "3 of 12 grid points: a part" in report(tmp_path, study([trial(n, 90.0) for n in range(3)], **grid), base)
    whole = study([trial(n, 90.0) for n in range(12)], **grid)
    assert "12 of 12 grid points: the whole grid" in report(tmp_path, whole, base)


def test_the_ten_best_trials_come_in_order_and_the_rest_is_pointed_to(tmp_path, base):
    record = study([trial(number, 90.0 + number % 5) for number in range(14)])
    text = section(report(tmp_path, record, base), "Trials")
    rows = cells(text)
    assert rows[0][:4] == ["Rank", "Trial", "Validation accuracy", "learning_rate"]
    assert [row[1] for row in rows[1:]] == ["4", "9", "3", "8", "13", "2", "7", "12", "1", "6"]
    assert "the best 10 of 14" in text and "(trials.csv)" in text
    assert rows[1][rows[0].index("optimizer.type")] == "sgd" and rows[3][-2:] == ["4 of 5", "5.5s"]


def test_every_trial_without_a_score_says_why(tmp_path, base):
    trials = [trial(0, 96.0), trial(1, None), trial(2, None, state="failed", message="no | memory\nleft", attempts=3),
              trial(3, 55.0, state="pruned", message="below the median")]  # fmt: skip
    rows = cells(section(report(tmp_path, study(trials), base), "Without a score"))
    assert [row[:3] for row in rows[1:]] == [
        ["1", "diverged", "the loss was no longer finite in epoch 2"],
        ["2", "failed", "no \\| memory left"],
        ["3", "pruned", "below the median"],
    ]
    assert rows[2][-1] == "3"


def test_a_search_without_a_winner_says_so_and_gives_no_command_to_train(tmp_path, base):
    text = report(tmp_path, study([trial(number, None) for number in range(12)]), base)
    assert "**No winner" in text and "training_orchestrator" not in text and "The winner\n" not in text


def test_a_winner_at_the_end_of_its_range_is_pointed_out(tmp_path, base):
    space = (SpaceEntry(RATE, choices=(1e-3, 1e-2)), SpaceEntry(DROPOUT, choices=(0.0, 0.2, 0.4)))
    ends = study([trial(0, 96.0, params={RATE: 1e-2, DROPOUT: 0.0}), trial(1, 90.0)], space=space)
    steps = section(report(tmp_path, ends, base), "What to do next")
    assert "`optimizer.learning_rate` at 0.01, the highest value" in steps
    assert "model.dropout" not in steps  # nothing lies below 0


def test_what_mattered_is_named_where_the_trials_show_it_and_not_where_they_do_not(tmp_path, base):
    text = report_with_pictures(tmp_path, scored_study(30, lambda params: 90.0 + 20 * params[DROPOUT]), base)
    mattered = section(text, "What mattered")
    assert "More than chance: dropout." in mattered and "random forest" in mattered
    assert "Too few trials" in section(
        report_with_pictures(tmp_path, scored_study(9, lambda p: p[RATE]), base), "What mattered"
    )


def test_every_picture_in_the_report_exists(tmp_path, base):
    for num_trials in (1, 30):
        text = report_with_pictures(
            tmp_path, scored_study(num_trials, lambda params: 90.0 + 20 * params[DROPOUT]), base
        )
        shown = set(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text))
        assert shown == {path.name for path in tmp_path.glob("*.png")}


def test_losses_are_shown_as_numbers_and_the_lowest_comes_first(tmp_path, base):
    record = study([trial(0, 0.5), trial(1, 0.25)], metric="val_loss", direction="minimize")
    text = report(tmp_path, record, base)
    assert "validation loss 0.2500" in text and [row[1] for row in cells(section(text, "Trials"))[1:]] == ["1", "0"]


def test_the_space_is_shown_with_its_ranges_and_conditions(tmp_path, confirmed, base):
    rows = cells(section(report(tmp_path, confirmed, base), "Search space"))
    assert rows[1:] == [
        ["optimizer.learning_rate", "1e-05 to 0.1, logarithmic", "-"],
        ["model.dropout", "0.0, 0.2, 0.4", "-"],
        ["optimizer.type", "adam, sgd", "-"],
        ["optimizer.momentum", "0.0 to 0.95", "optimizer.type is sgd"],
    ]
