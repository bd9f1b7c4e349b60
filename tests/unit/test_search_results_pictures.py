"""Pictures of a search: that every trial is on them, at its place, and that axes fit what is shown."""

from __future__ import annotations

import math
from unittest import mock

import matplotlib.image
import pytest

from common.search_results import importance_pictures, score_pictures
from common.search_results.axes import score_axis, value_axis
from common.search_results.importance import importances
from common.search_results.pictures import ALL_NAMES, draw_pictures
from common.search_results.records import SpaceEntry
from tests.search_studies import DROPOUT, KIND, MOMENTUM, RATE, params_of, scored_study, study, trial


def good(params):
    return 97.0 - 2 * (math.log10(params[RATE]) + 2.5) ** 2 - params[DROPOUT]


def figure_of(module, draw, *arguments):
    """The figure that ``draw`` would save."""
    with mock.patch.object(module, "save_figure") as save:
        draw(*arguments, "unused.png")
    return save.call_args.args[0]


def marks(axes, label):
    """The places of all marks with that label."""
    return [place for line in axes.lines if line.get_label() == label
            for place in zip(line.get_xdata(), line.get_ydata(), strict=True)]  # fmt: skip


def labels(figure):
    return {text.get_text() for legend in figure.legends for text in legend.get_texts()}


def mixed_study():
    trials = [trial(number, good(params_of(number))) for number in range(14)]
    for number, state in enumerate(["diverged", "failed", "pruned", "running", "waiting"], 14):
        trials.append(trial(number, None, state=state))
    return study(trials, {3: (90.0, 91.0)})


def test_every_state_is_marked_in_every_panel_that_has_the_hyperparameter():
    record = mixed_study()
    figure = figure_of(score_pictures, score_pictures.plot_hyperparameters, record)
    panels = {axes.get_xlabel().split(" ")[0]: axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == ["learning_rate", "dropout", "optimizer.type", "momentum"]
    for name, path in (("learning_rate", RATE), ("momentum", MOMENTUM)):
        shown = [one for one in record.trials if path in one.params]
        for state in ("diverged", "failed", "pruned", "running", "waiting"):
            assert len(marks(panels[name], state)) == sum(one.state == state for one in shown)
        scored = marks(panels[name], "trial") + marks(panels[name], "worse than shown")
        assert sorted(x for x, _ in scored) == sorted(one.params[path] for one in shown if one.state == "complete")
    assert (
        panels["momentum"]
        .get_xlabel()
        .endswith(f"({sum(MOMENTUM in one.params for one in record.trials)} of 19 trials)")
    )
    assert {"trial", "diverged", "failed", "pruned", "running", "waiting", "median"} <= labels(figure)


def test_trials_without_a_score_stand_below_all_others_and_within_the_axis():
    figure = figure_of(score_pictures, score_pictures.plot_hyperparameters, mixed_study())
    axes = figure.axes[0]
    bottom, top = axes.get_ylim()
    lowest = min(y for label in ("trial", "worse than shown") for _, y in marks(axes, label))
    assert all(bottom < y < lowest for _, y in marks(axes, "diverged"))
    assert all(bottom < y < top for _, y in marks(axes, "trial"))


def test_a_few_bad_trials_do_not_press_the_others_together():
    values = [96.0 + 0.1 * number for number in range(16)] + [12.0, 30.0]
    axis = score_axis(study([trial(number, value) for number, value in enumerate(values)]))
    assert axis.low > 80 and axis.is_beyond(12.0) and not axis.is_beyond(96.0)
    assert axis.low < axis.clipped(12.0) < 96.0
    losses = [0.1 + 0.01 * number for number in range(16)] + [40.0]
    record = study(
        [trial(number, value) for number, value in enumerate(losses)], metric="val_loss", direction="minimize"
    )
    assert score_axis(record).high < 5 and score_axis(record).is_beyond(40.0)


def test_equal_scores_have_an_axis_with_room():
    axis = score_axis(study([trial(number, 97.5) for number in range(12)]))
    assert axis.low == 97.0 and axis.high == 98.0


@pytest.mark.parametrize(("choices", "scale"), [
    ((1e-4, 1e-3, 1e-2), "log"), ((0.3, 0.4, 0.5), "linear"), ((32, 64, 128), "linear"), ((0, 1e-5, 1e-3), "steps"),
    ((0.0, 0.5, 0.9, 0.99), "steps"), (("adam", "sgd"), "steps"), (([64], [128, 64]), "steps"),
    ((True, False), "steps"), ((0.5,), "steps"), ((None, 1.0), "steps"),
])  # fmt: skip
def test_the_scale_of_a_list_fits_its_values(choices, scale):
    record = study([trial(0, 90.0, params={RATE: choices[0]})], space=[SpaceEntry(RATE, choices=choices)])
    axis = value_axis(record, RATE)
    assert axis.scale == scale
    assert len({axis.position(value) for value in choices}) == len(choices)


def test_ranges_are_true_to_scale_and_marks_of_lists_move_aside_by_less_than_to_the_next():
    record = mixed_study()
    assert value_axis(record, RATE).scale == "log" and value_axis(record, MOMENTUM).scale == "linear"
    assert value_axis(record, RATE).jittered(1e-3, 5) == 1e-3
    dropout = value_axis(record, DROPOUT)
    moved = [dropout.jittered(0.2, number, by=0.035) for number in range(50)]
    assert len(set(moved)) == 50 and all(abs(place - 0.2) < 0.02 for place in moved)
    assert moved == [dropout.jittered(0.2, number, by=0.035) for number in range(50)]


def test_a_list_that_came_back_as_another_kind_of_sequence_is_the_same_value():
    space = [SpaceEntry(RATE, choices=((64, 32), (16,)))]
    axis = value_axis(study([trial(0, 90.0, params={RATE: [64, 32]})], space=space), RATE)
    assert len(axis.values) == 2 and axis.position([64, 32]) == axis.position((64, 32)) == 0


def test_best_so_far_only_gets_better_and_ends_at_the_last_trial():
    record = mixed_study()
    figure = figure_of(score_pictures, score_pictures.plot_history, record)
    by_number, by_time = figure.axes
    steps = marks(by_number, "best so far (one seed)")
    heights = [y for _, y in steps]
    assert heights == sorted(heights) and heights[-1] == max(one.value for one in record.trials if one.value)
    assert steps[-1][0] == 18
    total = sum(one.duration_s for one in record.trials)
    assert marks(by_time, "best so far (one seed)")[-1][0] == pytest.approx(total)
    assert by_time.get_xlabel().endswith("(s)")
    assert len(marks(by_number, "the same with fresh seeds")) == 2
    assert "expected with another seed: 90.50%" in labels(figure)


def test_best_so_far_of_a_loss_goes_down():
    record = study(
        [trial(n, value) for n, value in enumerate([0.5, 0.7, 0.2])], metric="val_loss", direction="minimize"
    )
    figure = figure_of(score_pictures, score_pictures.plot_history, record)
    assert [y for _, y in marks(figure.axes[0], "best so far (one seed)")] == [0.5, 0.2, 0.2]


def test_the_pair_shows_each_trial_that_has_both_and_counts_the_others():
    record = mixed_study()
    figure = figure_of(importance_pictures, importance_pictures.plot_pair, record, (RATE, MOMENTUM), "Two")
    axes = figure.axes[0]
    both = [one for one in record.trials if MOMENTUM in one.params]
    assert len(axes.collections[0].get_offsets()) == sum(one.state == "complete" for one in both)
    assert f"Two ({len(record.trials) - len(both)} trials lack one of them)" in {
        text.get_text() for text in figure.texts
    }


def test_what_decides_the_score_is_important_and_the_rest_is_not():
    found = importances(scored_study(30, good))
    assert found[0].path == RATE and found[0].is_clear
    assert {entry.path for entry in found} == {RATE, DROPOUT, KIND, MOMENTUM}
    assert not next(entry for entry in found if entry.path == KIND).is_clear
    assert importances(scored_study(30, good)) == found


def test_scores_that_have_nothing_to_do_with_the_hyperparameters_make_none_clear():
    values = [90.0 + (number * 7919 % 101) / 50 for number in range(40)]
    found = importances(study([trial(number, value) for number, value in enumerate(values)]))
    assert sum(entry.is_clear for entry in found) == 0


def test_divergence_counts_as_an_outcome():
    found = importances(scored_study(30, lambda params: None if params[DROPOUT] == 0.4 else 95.0))
    assert found[0].path == DROPOUT and found[0].is_clear


@pytest.mark.parametrize("record", [
    scored_study(9, good), scored_study(30, lambda params: 95.0), scored_study(30, lambda params: None),
    study([trial(number, None, state="failed") for number in range(30)]),
], ids=["few", "equal", "all diverged", "all failed"])  # fmt: skip
def test_nothing_is_said_about_importance_where_nothing_can_be(record):
    assert importances(record) is None


@pytest.mark.parametrize(("record", "names"), [
    (scored_study(10, good), set(ALL_NAMES)),
    (scored_study(3, good), set(ALL_NAMES) - {"importance.png"}),
    (scored_study(2, lambda params: None), set(ALL_NAMES) - {"importance.png"}),
    (mixed_study(), set(ALL_NAMES)),
    (study([trial(0, 90.0, params={RATE: 0.01})], space=[SpaceEntry(RATE, choices=(0.01,))]),
     {"score_by_hyperparameter.png", "best_so_far.png"}),
    (study([]), set()),
], ids=["10", "3", "diverged", "mixed", "one", "none"])  # fmt: skip
def test_pictures_are_drawn_of_what_there_is_and_older_ones_removed(tmp_path, record, names):
    for name in ALL_NAMES:
        (tmp_path / name).write_bytes(b"old")
    assert set(draw_pictures(tmp_path, record).names) == names == {path.name for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[0] > 200 and pixels[..., :3].std() > 0.03
