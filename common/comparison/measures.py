"""The measures that runs are compared by: what they are called, their units, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass

POINTS = "points"


@dataclass(frozen=True)
class Measure:
    """One measure of metrics.json.

    Attributes:
        key: its name there.
        unit: ``%`` or `` points`` (differences are in points) or nothing.
        margin: the smallest difference that matters in practice, unless the user says otherwise.
        kind: what stands behind the split's name in the key: ``acc``, ``loss``, ``f1``, ...
    """

    key: str
    title: str
    unit: str
    digits: int
    higher_is_better: bool
    margin: float

    @property
    def kind(self) -> str:
        return self.key.partition("_")[2]

    @property
    def is_validation(self) -> bool:
        return self.key.startswith("val_")

    def show(self, value: float | None) -> str:
        """``95.12%`` or ``0.1234``; ``n/a`` for None."""
        return "n/a" if value is None else f"{value:.{self.digits}f}{self.unit}"

    def show_difference(self, value: float | None) -> str:
        """``+1.20``, with a sign always; ``n/a`` for None."""
        return "n/a" if value is None else f"{value:+.{self.digits}f}"

    def with_unit(self, value: float | None) -> str:
        """A difference in words: ``+1.20 points``."""
        return self.show_difference(value) + (f" {POINTS}" if self.unit and value is not None else "")

    def size(self, value: float | None) -> str:
        """The size of a difference, without a sign: ``1.20 points``."""
        unit = f" {POINTS}" if self.unit else ""
        return "n/a" if value is None else f"{abs(value):.{self.digits}f}{unit}"


def _percent(key: str, title: str) -> Measure:
    return Measure(key, title, "%", 2, True, margin=0.5)


def _fraction(key: str, title: str) -> Measure:
    return Measure(key, title, "", 4, True, margin=0.005)


def _loss(key: str, title: str) -> Measure:
    return Measure(key, title, "", 4, False, margin=0.01)


# The gap has no key in metrics.json: it is the difference of two that have.
GAP = Measure("gap_acc", "Train-val gap", " points", 2, higher_is_better=False, margin=0.5)
MEASURES = (
    _percent("val_acc", "Validation accuracy"),
    _loss("val_loss", "Validation loss"),
    _fraction("val_f1", "Validation F1 (macro)"),
    _fraction("val_precision", "Validation precision (macro)"),
    _fraction("val_recall", "Validation recall (macro)"),
    _percent("train_acc", "Train accuracy"),
    _loss("train_loss", "Train loss"),
    GAP,
)
TEST_MEASURES = (
    _percent("test_acc", "Test accuracy"),
    _loss("test_loss", "Test loss"),
    _fraction("test_f1", "Test F1 (macro)"),
    _fraction("test_precision", "Test precision (macro)"),
    _fraction("test_recall", "Test recall (macro)"),
)
BY_KEY = {measure.key: measure for measure in MEASURES}
# What a comparison can be decided by.
PRIMARY_KEYS = tuple(measure.key for measure in MEASURES if measure is not GAP)
