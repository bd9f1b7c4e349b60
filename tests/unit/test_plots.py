"""The pictures: what is drawn is what was measured, bytes repeat, and odd values do no harm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from common import plots
from common.plots import plot_confusion_matrix, plot_learning_curves

ROOT = Path(__file__).resolve().parents[2]


def epochs(count: int) -> list[dict]:
    return [
        {
            "num": num,
            "train_loss": 2.0 / num,
            "val_loss": 2.2 / num,
            "train_acc": 100.0 - 60.0 / num,
            "val_acc": 98.0 - 60.0 / num,
            "lr": 1e-3,
        }
        for num in range(1, count + 1)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """The figures as they are when they are saved."""
    figures = []
    save = plots.save_figure

    def keep(figure, path, **options):
        figures.append(figure)
        save(figure, path, **options)

    monkeypatch.setattr(plots, "save_figure", keep)
    return figures


def curves(axes) -> dict[str, list[tuple[float, float]]]:
    labelled = [line for line in axes.lines if not line.get_label().startswith("_")]
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in labelled}


def test_draws_the_values_and_marks_the_best_epoch(tmp_path, drawn):
    plot_learning_curves(epochs(4), 3, tmp_path / "curves.png", "a title")
    loss, accuracy, rate = drawn[0].axes
    assert curves(loss)["training"] == [(1, 2.0), (2, 1.0), (3, 2.0 / 3), (4, 0.5)]
    assert curves(loss)["best epoch 3: 0.7333"] == [(3, 2.2 / 3)]
    assert curves(accuracy)["validation"] == [(1, 38.0), (2, 68.0), (3, 78.0), (4, 83.0)]
    assert curves(accuracy)["best epoch 3: 78.0%"] == [(3, 78.0)]
    assert rate.get_xlabel() == "Epoch"
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["Cross-entropy loss", "Accuracy (%)", "Learning\nrate"]
    assert drawn[0].get_suptitle() == "a title"


def test_the_curves_differ_in_line_style_too(tmp_path, drawn):
    plot_learning_curves(epochs(4), None, tmp_path / "curves.png", "")
    styles = {line.get_label(): line.get_linestyle() for line in drawn[0].axes[0].lines}
    assert styles == {"training": "--", "validation": "-"}


@pytest.mark.parametrize("count", [1, 2, 20, 100])
def test_epochs_are_whole_numbers_within_the_axis(tmp_path, drawn, count):
    plot_learning_curves(epochs(count), 1, tmp_path / "curves.png", "")
    axes = drawn[0].axes[-1]
    low, high = axes.get_xlim()
    shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert shown and all(tick == int(tick) and tick >= 1 for tick in shown)


def test_no_legend_covers_its_panel(tmp_path, drawn):
    plot_learning_curves(epochs(20), 7, tmp_path / "curves.png", "")
    for axes in drawn[0].axes[:2]:
        legend, panel = axes.get_legend().get_window_extent(), axes.get_window_extent()
        assert legend.y0 >= panel.y1 - 1
        assert legend.x1 <= drawn[0].bbox.x1


def test_an_epoch_that_was_not_finite_is_marked_and_gaps_are_bridged(tmp_path, drawn):
    records = epochs(4)
    records[1].update(train_loss=None, val_loss=None, val_acc=None)
    records[2]["val_loss"] = None  # validation did not run
    plot_learning_curves(records, 2, tmp_path / "curves.png", "")
    loss = curves(drawn[0].axes[0])
    assert [num for num, _ in loss["training"]] == [1, 3, 4]
    assert [num for num, _ in loss["validation"]] == [1, 4]
    assert [num for num, _ in loss["not finite"]] == [2]
    assert not any(label.startswith("best") for label in loss)  # there is no value to mark


def test_nothing_finite_still_gives_a_picture(tmp_path, drawn):
    nothing = dict.fromkeys(("train_loss", "val_loss", "train_acc", "val_acc", "lr"))
    plot_learning_curves([{"num": 1, **nothing}], None, tmp_path / "curves.png", "")
    assert [axes.texts[0].get_text() for axes in drawn[0].axes] == ["no finite value"] * 2


def test_axes_turn_logarithmic_where_a_linear_one_would_hide_values(tmp_path, drawn):
    records = epochs(3)
    records[0].update(train_loss=4e5, lr=1e-1)
    plot_learning_curves(records, None, tmp_path / "curves.png", "")
    plot_learning_curves(epochs(3), None, tmp_path / "curves.png", "")
    assert [axes.get_yscale() for axes in drawn[0].axes] == ["log", "linear", "log"]
    assert [axes.get_yscale() for axes in drawn[1].axes] == ["linear", "linear", "linear"]


def test_a_learning_rate_of_zero_throughout_is_drawn(tmp_path, drawn):
    plot_learning_curves([{**epochs(1)[0], "lr": 0.0}], None, tmp_path / "curves.png", "")
    assert drawn[0].axes[2].get_ylim() == (0, 1)


def test_the_same_values_give_the_same_bytes_whatever_the_users_settings(tmp_path):
    names = ["cat", "dog"]
    plot_learning_curves(epochs(5), 2, tmp_path / "a.png", "title")
    plot_confusion_matrix([[3, 1], [0, 4]], names, tmp_path / "c.png", "title")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 4, "savefig.dpi": 30, "text.color": "red"}):
        plot_learning_curves(epochs(5), 2, tmp_path / "b.png", "title")
        plot_confusion_matrix([[3, 1], [0, 4]], names, tmp_path / "d.png", "title")
        assert matplotlib.rcParams["font.size"] == 4  # and they are left as they were
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "d.png").read_bytes()


def test_the_pictures_are_sound_png_files(tmp_path):
    plot_learning_curves(epochs(5), 2, tmp_path / "a.png", "title")
    plot_confusion_matrix([[3, 1], [0, 4]], ["cat", "dog"], tmp_path / "b.png", "title")
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as picture:
            picture.verify()
            assert picture.format == "PNG" and min(picture.size) > 300


@pytest.mark.parametrize("num_classes", [2, 10, 11, 20, 21, 60])
def test_every_size_of_confusion_matrix_is_readable(tmp_path, drawn, num_classes):
    matrix = np.diag(np.arange(1, num_classes + 1))
    matrix[0, 1] = 3
    plot_confusion_matrix(matrix, [f"class {i}" for i in range(num_classes)], tmp_path / "matrix.png", "")
    axes = drawn[0].axes[0]
    written = [text.get_text() for text in axes.texts]
    if num_classes > 20:
        assert written == []
    elif num_classes > 10:
        assert written == ["1", "3", *(str(i) for i in range(2, num_classes + 1))]
    else:
        assert written[:4] == ["1", "25%", "3", "75%"]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:2] == (["class 0", "class 1"] if num_classes <= 50 else ["class 0", "class 2"])


def test_the_colour_is_the_share_of_the_true_class(tmp_path, drawn):
    plot_confusion_matrix([[1, 3], [0, 0]], ["a", "b"], tmp_path / "matrix.png", "")
    axes = drawn[0].axes[0]
    shares = axes.images[0].get_array()
    assert shares[0].tolist() == [25.0, 75.0]
    assert shares.mask.tolist() == [[False, False], [True, True]]
    assert axes.get_ylabel() == "True class (grey: no examples)"


def test_a_share_is_never_rounded_to_none_or_all(tmp_path, drawn):
    plot_confusion_matrix([[99_999, 1], [0, 5]], ["a", "b"], tmp_path / "matrix.png", "")
    assert [t.get_text() for t in drawn[0].axes[0].texts] == ["99999", "99.9%", "1", "0.1%", "5", "100%"]


@pytest.mark.filterwarnings("error")
def test_names_are_shown_as_they_are(tmp_path, drawn):
    names = ["price $x_{$", "猫", "a" * 60]
    plot_confusion_matrix(np.eye(3, dtype=int), names, tmp_path / "matrix.png", r"$\frac{")
    plot_learning_curves(epochs(2), 1, tmp_path / "curves.png", r"$\frac{")
    labels = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert labels == ["price $x_{$", "猫", "a" * 23 + "…"]


def test_refuses_what_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match="no epochs"):
        plot_learning_curves([], None, tmp_path / "a.png", "")
    with pytest.raises(ValueError, match=r"\(2, 2\) does not fit 3"):
        plot_confusion_matrix([[1, 0], [0, 1]], ["a", "b", "c"], tmp_path / "a.png", "")
    with pytest.raises(ValueError, match="does not fit 0"):
        plot_confusion_matrix(np.zeros((0, 0)), [], tmp_path / "a.png", "")
    assert list(tmp_path.iterdir()) == []


def test_neither_pyplot_nor_torch_is_needed(tmp_path):
    code = (
        "import sys; from common import plots; assert 'matplotlib' not in sys.modules\n"
        "plots.plot_confusion_matrix([[1]], ['a'], sys.argv[1], 't')\n"
        "assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], cwd=ROOT, check=True)
