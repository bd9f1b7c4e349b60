"""Rules for faults of the data: labels, splits, scales, sizes. For the limits see ``causes_code``."""

from __future__ import annotations

import math
from statistics import median

import numpy as np

from common.comparison.predictions import PredictionsUnusableError, read_predictions
from common.comparison.runs import number
from common.diagnosis.evidence import RunEvidence
from common.diagnosis.findings import Fact, Finding, log_strength, strength
from common.diagnosis.suspects import confident_disagreement_share


def non_finite_inputs(run: RunEvidence) -> Finding | None:
    left_out, total = run.num_rows_left_out
    set_aside = sum("set_aside_samples" in actions for _, actions, _ in run.events)
    seen = sum(
        int(run.signal_number("data", "splits", split, "num_non_finite_values") or 0) for split in ("train", "val")
    )
    if not (left_out or set_aside or seen):
        return None
    facts = []
    if left_out:
        facts.append(Fact("rows left out for missing, NaN or infinite values", f"{left_out} of {total}", "0"))
    if set_aside:
        facts.append(Fact("times that samples were set aside while training", str(set_aside), "0"))
    if seen:
        facts.append(Fact("non-finite values fed to the network", str(seen), "0"))
    return Finding(0.97, tuple(facts), "train_loss")


def unscaled_inputs(run: RunEvidence) -> Finding | None:
    std = run.signal_number("data", "splits", "train", "input_std")
    spread = run.signal_number("data", "splits", "train", "feature_std_ratio") or 1.0
    if std is None or std <= 0:
        return None
    far = max(std, 1 / std)
    confidence = max(log_strength(far, 6.0, 30.0), log_strength(spread, 100.0, 1000.0))
    facts = (
        Fact("standard deviation of the inputs as fed", f"{std:.3g}", "near 1 (LeCun et al. 1998)"),
        Fact("widest feature over the narrowest", f"{spread:.3g}x", "near 1x"),
    )
    return Finding(confidence, facts, "train_loss")


def splits_prepared_differently(run: RunEvidence) -> Finding | None:
    train, val = (
        {key: run.signal_number("data", "splits", split, key) for key in ("input_mean", "input_std")}
        for split in ("train", "val")
    )
    if None in (*train.values(), *val.values()) or min(train["input_std"], val["input_std"]) <= 0:
        return None
    noise = 1.5 * math.sqrt(1 / (run.num_val or 1) + 1 / (run.num_train or 1))
    shift = abs(val["input_mean"] - train["input_mean"]) / train["input_std"]
    scale = abs(math.log(val["input_std"] / train["input_std"]))
    confidence = max(strength(shift, 0.2 + noise, 0.5 + noise), strength(scale, 0.25 + noise, 0.6 + noise))
    facts = (
        Fact("mean of the validation inputs, in standard deviations from the training inputs' mean", f"{shift:.2f}",
             "near 0"),
        Fact("standard deviation of the validation inputs over that of the training inputs",
             f"{val['input_std'] / train['input_std']:.2f}", "near 1"),
    )  # fmt: skip
    return Finding(confidence, facts, "val_loss")


def leakage(run: RunEvidence) -> Finding | None:
    same, compared = (run.signal_number("data", "splits", "val", key) for key in
                      ("num_in_train", "num_compared_with_train"))  # fmt: skip
    if same is None or not compared:
        return None
    # Where equal samples are common (rows of a table), as many of them fall into two splits by chance.
    own = _share(run, "train", "num_repeated", "num_compared")
    exact = same / compared - 2 * own
    near, own_near = (_share(run, split, "num_near_train", "num_near_compared") for split in ("val", "train"))
    confidence = max(strength(exact, 0.02, 0.10), strength(near - 2 * own_near, 0.06, 0.2))
    # One equal sample in a small split is chance.
    if same <= 1 and near <= 0.05:
        return None
    facts = (
        Fact("validation samples equal to a training sample", f"{same:.0f} of {compared:.0f}", "0"),
        Fact("validation samples nearly equal to one", f"{near:.0%}", f"about {own_near:.0%}, as within training data"),
    )
    return Finding(confidence, facts, "val_acc")


def shuffled_labels(run: RunEvidence) -> Finding | None:
    val_acc, yardstick = run.best_val_acc, run.yardstick_acc_pct
    neighbours = run.signal_number("data", "splits", "train", "nearest_neighbour_agreement_pct")
    if val_acc is None or yardstick is None or neighbours is None:
        return None
    # In units of the noise: how far the best of anything that tried got beyond always naming one class, and how much
    # oftener neighbours agree than labels drawn at random would. The best of many tries is two or three beyond.
    beyond = (max(val_acc, yardstick) - run.majority_acc_pct) / run.standard_error_pct(run.majority_acc_pct)
    by_chance = _chance_agreement_pct(run)
    num_compared = run.signal_number("data", "splits", "train", "num_near_compared") or 0
    agreeing = (neighbours - by_chance) / run.standard_error_pct(by_chance, int(num_compared))
    facts = (
        Fact("best validation accuracy of the network", f"{val_acc:.1f}%", "above the next two"),
        Fact("accuracy of a linear classifier or the nearest neighbour, the better one", f"{yardstick:.1f}%",
             f"above {run.majority_acc_pct:.1f}%, the most frequent class alone"),
        Fact("training samples whose nearest neighbour has their label", f"{neighbours:.1f}%", "clearly more than "
             "by chance"),
    )  # fmt: skip
    return Finding(min(strength(beyond, 4.5, 2.5), strength(agreeing, 4.0, 1.5)), facts, "val_acc")


def label_errors(run: RunEvidence) -> Finding | None:
    disputed = run.last_health("samples", "negative_margin_share")
    try:
        contradicted = confident_disagreement_share(read_predictions(run.run))
    except PredictionsUnusableError:
        return None
    # A network that learnt nothing, or whose weights are thrown about, contradicts labels for reasons of its own.
    if disputed is None or run.learnt_share < 0.1 or run.is_thrown_about:
        return None
    share = min(disputed, contradicted)
    # A network that is merely bad at its task stays behind next to nothing; wrong labels hold both back alike.
    fits_as_well = strength(run.falls_short_pct, 5.0, 1.0)
    facts = (
        Fact("training samples for which another class was preferred on average over the epochs", f"{disputed:.1%}",
             "below 8% (area under the margin, Pleiss et al. 2020)"),
        Fact("validation samples confidently given another class than their label's", f"{contradicted:.1%}",
             "below 8% (confident learning, Northcutt et al. 2021)"),
    )  # fmt: skip
    return Finding(min(strength(share, 0.085, 0.15), fits_as_well), facts, "val_acc")


def class_imbalance(run: RunEvidence) -> Finding | None:
    ratio = run.signal_number("data", "splits", "train", "imbalance_ratio")
    if ratio is None:
        return None
    f1, accuracy = number(run.best.get("val_f1")), number(run.best.get("val_acc"))
    lowest = run.last_health("recall", "recall_min")
    confidence = log_strength(ratio, 12.0, 50.0)
    suffers = lowest is not None and lowest < 0.7
    facts = [Fact("samples of the largest class over those of the smallest", f"{ratio:.0f}x", "below 10x")]
    if lowest is not None:
        facts.append(Fact("recall of the worst class", f"{lowest:.0%}", "near the others'"))
    if f1 is not None and accuracy is not None:
        facts.append(Fact("macro F1 beside accuracy", f"{f1:.2f} beside {accuracy:.1f}%", "alike"))
    return Finding(confidence if suffers else min(confidence, 0.7), tuple(facts), "val_f1")


def too_few_samples(run: RunEvidence) -> Finding | None:
    if not run.num_train or not run.num_classes:
        return None
    per_class = run.num_train / run.num_classes
    gap = run.best_gap_pct
    facts = [Fact("training samples a class", f"{per_class:.1f}", "20 or more")]
    if gap is not None:
        facts.append(Fact("training accuracy minus validation accuracy, best epoch", f"{gap:.1f} points", "below 15"))
    return Finding(log_strength(per_class, 10.0, 5.0), tuple(facts), "val_acc")


def tiny_validation(run: RunEvidence) -> Finding | None:
    if not run.num_val:
        return None
    noise = run.standard_error_pct(run.best_val_acc if run.best_val_acc is not None else 50.0)
    facts = (
        Fact("validation samples", str(run.num_val), "25 or more; 100 for a standard error of 3 points at 90%"),
        Fact("what a single sample weighs", f"{100 / run.num_val:.1f} points", "below 4"),
        Fact("standard error of the best validation accuracy", f"{noise:.1f} points", "below 5"),
    )
    return Finding(strength(run.num_val, 24.5, 20.0), facts, "val_acc")


def unsteady_validation(run: RunEvidence) -> Finding | None:
    """The documented spread of validation accuracy, over the detrended last third and against its binomial error."""
    values = run.series("val_acc")
    last_third = np.array(values[-max(6, len(values) // 3) :])
    if len(last_third) < 6:
        return None
    epochs = np.arange(len(last_third))
    spread = float(np.std(last_third - np.polyval(np.polyfit(epochs, last_third, 1), epochs), ddof=2))
    noise = run.standard_error_pct(median(last_third))
    limit = run.threshold("val_acc_spread_pct")
    confidence = min(strength(spread, limit, 2 * limit), strength(spread / noise, 2.5, 5.0))
    facts = (
        Fact("spread of validation accuracy over the last third of the epochs, without its trend", f"{spread:.1f} "
             "points", f"below {limit:g} (diagnostics.val_acc_spread_pct)"),
        Fact("what chance alone would give", f"{noise:.1f} points", "of the same size"),
    )  # fmt: skip
    numbers = tuple(epoch["num"] for epoch in run.validated[-len(last_third) :])
    return Finding(confidence, facts, "val_acc", numbers)


def _share(run: RunEvidence, split: str, key: str, of: str) -> float:
    count, total = (run.signal_number("data", "splits", split, name) for name in (key, of))
    return count / total if count is not None and total else 0.0


def _chance_agreement_pct(run: RunEvidence) -> float:
    """Percent of pairs that have one label, of training labels drawn at random."""
    counts = run.signal("data", "splits", "train", "class_counts")
    known = [number(count) or 0.0 for count in counts] if isinstance(counts, list) else []
    total = sum(known)
    return 100 * sum((count / total) ** 2 for count in known) if total > 0 else 100 / (run.num_classes or 2)
