"""The picture of a comparison: what is drawn is what was measured, over one seed or several."""

from __future__ import annotations

import pytest
from PIL import Image

from common import comparison_plots
from common.comparison_plots import Curves, plot_comparison
from tests.comparison_runs import epoch


@pytest.fixture
def drawn(monkeypatch):
    """The figures as they are when they are saved."""
    figures = []
    save = comparison_plots.save_figure

    def keep(figure, path, **options):
        figures.append(figure)
        save(figure, path, **options)

    monkeypatch.setattr(comparison_plots, "save_figure", keep)
    return figures


def run(*accuracies, best=None):
    return [epoch(num, value) for num, value in enumerate(accuracies, 1)], best or len(accuracies)


def lines(axes):
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}


def test_one_run_a_side(tmp_path, drawn):
    baseline, optimized = Curves("baseline", [run(60, 80, 75, best=2)]), Curves("optimized", [run(50, 85)])
    plot_comparison(baseline, optimized, tmp_path / "c.png", "a $title$")
    loss, accuracy = drawn[0].axes
    assert lines(accuracy)["baseline, validation"] == [(1, 60), (2, 80), (3, 75)]
    assert lines(accuracy)["optimized, training"] == [(1, 99), (2, 99)]
    assert lines(accuracy)["baseline, best epoch 2: 80.0%"] == [(2, 80)]
    assert lines(loss)["optimized, validation"] == [(1, 2 - 50 / 60), (2, 2 - 85 / 60)]
    assert not accuracy.collections
    assert accuracy.get_ylabel() == "Accuracy (%)" and accuracy.get_xlabel() == "Epoch"
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 900 and picture.height > 900


def test_several_seeds_are_mean_band_and_what_single_ones_did_beyond(tmp_path, drawn):
    baseline = Curves("baseline", [run(60, 80, 90), run(70, 90)])
    plot_comparison(baseline, Curves("optimized", [run(50, 85)]), tmp_path / "c.png", "")
    accuracy = drawn[0].axes[1]
    assert lines(accuracy)["baseline, validation"] == [(1, 65), (2, 85)]
    assert [(2, 80), (3, 90)] in lines(accuracy).values()
    band = accuracy.collections[0].get_paths()[0].vertices
    assert {(x, y) for x, y in band.tolist()} == {(1, 60), (2, 80), (2, 90), (1, 70)}
    assert lines(accuracy)["baseline, best epochs, mean 90.0%"] == [(3, 90), (2, 90)]


def test_the_legend_covers_no_panel(tmp_path, drawn):
    sides = [Curves(name, [run(60, 80), run(61, 81)]) for name in ("baseline", "optimized")]
    plot_comparison(*sides, tmp_path / "c.png", "")
    figure = drawn[0]
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert legend.x1 <= figure.bbox.x1


def test_the_sides_differ_in_shape_too(tmp_path, drawn):
    plot_comparison(Curves("a", [run(60)]), Curves("b", [run(70)]), tmp_path / "c.png", "")
    markers = {line.get_label(): line.get_marker() for line in drawn[0].axes[1].lines}
    assert markers["a, best epoch 1: 60.0%"] != markers["b, best epoch 1: 70.0%"]


def test_missing_values_and_sides_without_epochs_do_no_harm(tmp_path, drawn):
    broken = [epoch(1, 50.0) | {"val_acc": None, "val_loss": None}, epoch(2, 60.0) | {"train_loss": float("nan")}]
    plot_comparison(Curves("a", [(broken, None)]), Curves("b", [([], None)]), tmp_path / "c.png", "")
    assert lines(drawn[0].axes[1])["a, validation"] == [(2, 60)]
    with pytest.raises(ValueError, match="no epochs"):
        plot_comparison(Curves("a", [([], None)]), Curves("b", [([], None)]), tmp_path / "d.png", "")


def test_the_same_values_give_the_same_bytes(tmp_path):
    for name in ("c.png", "d.png"):
        plot_comparison(Curves("a", [run(60, 70)]), Curves("b", [run(70, 71)]), tmp_path / name, "t")
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "d.png").read_bytes()


def test_early_epochs_do_not_squeeze_the_plateau(tmp_path, drawn):
    values = [20, 60, *(95 + 0.1 * (num % 5) for num in range(30))]
    sides = [Curves(name, [run(*values)]) for name in "ab"]
    plot_comparison(*sides, tmp_path / "c.png", "")
    accuracy = drawn[0].axes[1]
    assert 90 < accuracy.get_ylim()[0] < 95
    assert "early epochs cut off" in accuracy.get_ylabel()
    plot_comparison(*(Curves(name, [run(20, 60, 95)]) for name in "ab"), tmp_path / "c.png", "")
    assert drawn[1].axes[1].get_ylim()[0] < 20


def test_losses_far_apart_are_drawn_on_a_logarithmic_axis(tmp_path, drawn):
    far = [epoch(1, 50.0, val_loss=2.0), epoch(2, 60.0, val_loss=0.05)]
    plot_comparison(Curves("a", [(far, 2)]), Curves("b", [(far, 2)]), tmp_path / "c.png", "")
    assert drawn[0].axes[0].get_yscale() == "log"
    assert drawn[0].axes[0].get_ylabel() == "Cross-entropy (log)"
