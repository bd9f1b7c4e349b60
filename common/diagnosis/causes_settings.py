"""Rules for settings: learning rate, momentum, regularisation, batch, width. For the limits see ``causes_code``."""

from __future__ import annotations

import math

from common.comparison.runs import number
from common.diagnosis.causes_code import LEARNT
from common.diagnosis.evidence import RunEvidence
from common.diagnosis.findings import Fact, Finding, log_strength, strength

HIGH_MOMENTUM = 0.97
# What a sound training's watched updates reach at most, of the weights; the rate is raised towards it by factors of 10.
USUAL_UPDATE = 3e-3
MOST_TENFOLD = 6
# Beyond the yardstick's own noise, a network that stays this many points behind next to nothing does not do its work.
BEHIND_PCT = 3.0


def loss_not_finite(run: RunEvidence) -> Finding | None:
    remedies = [actions for kind, actions, _ in run.events if kind == "nan_loss"]
    lasting = [actions for actions in remedies if actions not in (["replay_batch"], ["set_aside_samples"])]
    missing = [epoch["num"] for epoch in run.epochs if number(epoch.get("train_loss")) is None]
    if not lasting and not missing:
        return None
    facts = [Fact("remedies taken or suggested for a loss that was not finite", str(len(remedies)), "0")]
    if missing:
        facts.append(Fact("epochs without a finite training loss", ", ".join(map(str, missing[:10])), "none"))
    return Finding(0.96, tuple(facts), "train_loss", tuple(missing))


def one_off_non_finite(run: RunEvidence) -> Finding | None:
    replays = [
        event for _, actions, event in run.events if actions == ["replay_batch"] and event.get("recurred") is False
    ]
    if not replays:
        return None
    steps = ", ".join(str(event.get("step")) for event in replays[:10])
    facts = (Fact("steps whose loss was not finite and went well when replayed", steps, "none"),)
    return Finding(0.95, facts, "train_loss", tuple(int(number(event.get("epoch")) or 0) for event in replays))


def excessive_momentum(run: RunEvidence) -> Finding | None:
    if run.config is None or run.config.optimizer.type != "sgd" or run.config.optimizer.momentum < HIGH_MOMENTUM:
        return None
    found = learning_rate_too_high(run)
    if found is None:
        return None
    momentum = run.config.optimizer.momentum
    fact = Fact("momentum; in the long run it multiplies the step by 1 / (1 - m)", f"{momentum:g}: "
                f"{1 / (1 - momentum):.0f}x", "0.9: 10x")  # fmt: skip
    return Finding(found.confidence, (fact, *found.facts), found.curve)


def learning_rate_too_high(run: RunEvidence) -> Finding | None:
    growth, first = run.weight_growth, run.signal_number("initial_weights", "update_to_weight_median")
    if growth is None or first is None:
        return None
    confidence = max(log_strength(growth, 10.0, 30.0), log_strength(first, 0.5, 2.0))
    if not does_badly(run):
        # Weights that are thrown far from their start are a fault even where the network gets over it, if a minor one.
        confidence = 0.6 if confidence > 0.9 else 0.3 * confidence
    facts = (
        Fact("size of the weights at the end over that at the start", f"{growth:.1f}x", "below 5x"),
        Fact("first update over the weights it changed", f"{first:.1e}", "near 1e-3 (cs231n)"),
        *_outcome(run),
    )
    return Finding(confidence, facts, "train_loss")


def learning_rate_too_low(run: RunEvidence) -> Finding | None:
    ratios = run.health_numbers("weights", "update_to_weight_median")
    first = run.signal_number("initial_weights", "update_to_weight_median")
    if not ratios or first is None or min(first, *ratios) <= 0 or not does_badly(run):
        return None
    largest = max(first, *ratios)
    facts = (
        Fact("largest update over the weights it changed, of the watched steps", f"{largest:.1e}",
             "near 1e-3 (cs231n)"),
        *_outcome(run),
    )  # fmt: skip
    tenfold = max(1, round(math.log10(USUAL_UPDATE / largest)))
    return Finding(log_strength(largest, 3e-4, 1e-4), facts, "train_loss", times=min(tenfold, MOST_TENFOLD))


def excessive_weight_decay(run: RunEvidence) -> Finding | None:
    if run.config is None or run.config.optimizer.weight_decay < 0.02 or not does_badly(run):
        return None
    growth = run.weight_growth
    if growth is None:
        return None
    facts = (
        Fact("size of the weights at the end over that at the start", f"{growth:.2f}x", "above 0.8x"),
        Fact("weight_decay", f"{run.config.optimizer.weight_decay:g}", "0 to 0.05"),
        *_outcome(run),
    )
    return Finding(strength(growth, 0.8, 0.6), facts, "train_loss")


def excessive_dropout(run: RunEvidence) -> Finding | None:
    if run.config is None:
        return None
    dropout = run.config.model.dropout
    trained, validated = number(run.last.get("train_loss")), number(run.last.get("val_loss"))
    if trained is None or validated is None or not does_badly(run):
        return None
    facts = (
        Fact("dropout", f"{dropout:g}", "0 to 0.5"),
        Fact("last loss with dropout, in training, beside that without, in validation", f"{trained:.3f} beside "
             f"{validated:.3f}", "alike"),
        *_outcome(run),
    )  # fmt: skip
    return Finding(strength(dropout, 0.7, 0.85), facts, "train_loss")


def too_few_updates(run: RunEvidence) -> Finding | None:
    steps = [number(epoch.get("num_steps")) or 0 for epoch in run.epochs]
    fall = run.loss_fall("train_loss")
    if not steps or max(steps) > 4:
        return None
    doubtful, certain = (150, 50) if does_badly(run) else (35, 20)
    facts = (
        Fact("updates of the weights in all", f"{sum(steps):.0f}", "several hundred"),
        Fact("updates an epoch", f"{max(steps):.0f}", "10 or more"),
        Fact("fall of the training loss over the last third of the epochs", f"{fall:.0%}", "near 0 at the end"),
        *_outcome(run),
    )
    return Finding(min(log_strength(sum(steps), doubtful, certain), strength(fall, 0.01, 0.04)), facts, "train_loss")


def network_too_small(run: RunEvidence) -> Finding | None:
    units = run.last_health("weights", "narrowest_units")
    if not units or not run.num_classes or run.fitted_share >= LEARNT:
        return None
    facts = (
        Fact("units of the narrowest layer", f"{units:.0f}", f"not far below the number of classes, {run.num_classes}"),
        *_outcome(run),
    )
    return Finding(log_strength(units / run.num_classes, 0.5, 0.25), facts, "train_acc")


def does_badly(run: RunEvidence) -> bool:
    """Whether the network stays behind next to nothing, or where that is not known, does not get half of the way."""
    if run.yardstick_acc_pct is None or run.best_val_acc is None:
        return run.learnt_share < 0.5
    return run.falls_short_pct > max(BEHIND_PCT, run.standard_error_pct(run.yardstick_acc_pct))


def _outcome(run: RunEvidence) -> tuple[Fact, ...]:
    if run.best_val_acc is None:
        return ()
    yardstick = run.yardstick_acc_pct
    healthy = f"above {run.majority_acc_pct:.1f}%, the most frequent class alone"
    if yardstick is not None:
        healthy = f"at least {yardstick:.1f}%, as a linear classifier or the nearest neighbour"
    return (Fact("best validation accuracy", f"{run.best_val_acc:.1f}%", healthy),)
