"""Rules for faults of the network's code, its initial weights, and the training loop.

Where a limit has a source it is named; the others stand between what sound runs and runs with the fault showed in
``benchmarks/faults`` (on the digits), on a logarithmic scale about half-way.
"""

from __future__ import annotations

from common.comparison.runs import number
from common.diagnosis.evidence import RunEvidence
from common.diagnosis.findings import Fact, Finding, log_strength, strength

# A network that got this far of the way from the majority's share to 100% has learnt, whatever its weights look like.
LEARNT = 0.9
MANY_DEAD = 0.5  # SageMaker Debugger's rule; AutoTrainer's is 0.7
VANISHED = 1e-3  # AutoTrainer, arXiv:2103.07643


def gradients_not_cleared(run: RunEvidence) -> Finding | None:
    seen = run.health("weights", "gradients_cleared")
    uncleared = [value for value in seen if value is False]
    if not uncleared:
        return None
    growth = max(run.health_numbers("grad_norm_series", "growth"), default=None)
    facts = [Fact("epochs whose last step began with the gradients of the one before", f"{len(uncleared)} of "
                  f"{len(seen)}", "0")]  # fmt: skip
    if growth is not None:
        facts.append(Fact("largest growth of the gradient norm within an epoch", f"{growth:.1f}x", "below 2x"))
    return Finding(0.98, tuple(facts), "train_loss")


def double_softmax(run: RunEvidence) -> Finding | None:
    seen = run.health("activations", "looks_like_probabilities")
    if not seen or not all(value is True for value in seen):
        return None
    facts = [Fact("outputs in [0, 1] that add up to 1", f"in {len(seen)} of {len(seen)} epochs", "never: logits are "
                  "any numbers")]  # fmt: skip
    loss = number(run.last.get("val_loss"))
    if loss is not None:
        facts.append(Fact("last validation loss", f"{loss:.3f}", "not held up by a floor of ln(e + C - 1) - 1"))
    return Finding(0.97, tuple(facts), "val_loss")


def identical_units(run: RunEvidence) -> Finding | None:
    first = run.signal_number("initial_weights", "num_identical_unit_layers")
    last = run.last_health("weights", "num_identical_unit_layers")
    if not first or not last:
        return None
    total = run.signal_number("initial_weights", "num_layers") or 0
    confidence = 0.97 if run.learnt_share < LEARNT else 0.6
    facts = (
        Fact("layers whose units are all the same after the first step", f"{first:.0f} of {total:.0f}", "0"),
        Fact("the same after the last epoch", f"{last:.0f}", "0"),
        _accuracy(run),
    )
    return Finding(confidence, facts, "val_acc")


def dead_units(run: RunEvidence) -> Finding | None:
    shares = run.health_numbers("activations", "dead_share_max")
    # Units that steps far too long have killed are those steps' fault.
    if not shares or min(shares) <= MANY_DEAD or run.is_thrown_about:
        return None
    still = run.signal_number("initial_weights", "num_zero_update_layers") or 0
    confidence = max(strength(min(shares), 0.6, 0.95), 0.9 if still else 0.0)
    if run.learnt_share >= LEARNT:
        confidence = 0.6 if confidence > 0.9 else 0.3 * confidence
    facts = (
        Fact("largest share of dead units in a layer, first and last epoch", f"{shares[0]:.0%} and {shares[-1]:.0%}",
             "below 50% (SageMaker Debugger)"),
        Fact("layers that did not move in the first step", f"{still:.0f}", "0"),
        _accuracy(run),
    )  # fmt: skip
    return Finding(confidence, facts, "val_acc")


def frozen_layers(run: RunEvidence) -> Finding | None:
    first = run.signal_number("initial_weights", "num_zero_update_layers")
    last = run.last_health("weights", "num_zero_update_layers")
    total = run.signal_number("initial_weights", "num_layers")
    if not first or not last or not total or first >= total:
        return None
    # Behind dead units, and between equal ones, gradients are 0 without anything being frozen.
    if max(run.health_numbers("activations", "dead_share_max"), default=0.0) > MANY_DEAD:
        return None
    if run.signal_number("initial_weights", "num_identical_unit_layers"):
        return None
    deliberate = run.config is not None and run.config.model.pretrained is not None
    names = run.signal("initial_weights", "zero_update_layers")
    named = ", ".join(str(name) for name in names) if isinstance(names, list) else ""
    facts = (
        Fact("layers that did not move in the first step", f"{first:.0f} of {total:.0f}: {named}", "0"),
        Fact("the same in the last step", f"{last:.0f}", "0"),
    )
    return Finding(0.4 if deliberate else 0.95, facts, "train_loss")


def saturating_activations(run: RunEvidence) -> Finding | None:
    ratio = run.signal_number("initial_weights", "first_to_last_grad_ratio")
    if ratio is None or ratio == 0.0 or run.learnt_share >= LEARNT:
        return None
    facts = [Fact("gradient of the first layer over that of the last, first step", f"{ratio:.1e}", "above 1e-3 "
                  "(AutoTrainer)")]  # fmt: skip
    saturated = run.health_numbers("activations", "saturated_share_max")
    if saturated:
        facts.append(Fact("layers of sigmoid or tanh", "yes", "few, or none"))
    return Finding(log_strength(ratio, VANISHED, 1e-5), (*facts, _accuracy(run)), "train_loss")


def bad_initialisation(run: RunEvidence) -> Finding | None:
    ratio = run.signal_number("initial_loss_ratio")
    if ratio is None or ratio <= 0:
        return None
    facts = (Fact("loss of the first step over ln C", f"{ratio:.2f}", "near 1 (cs231n)"),)
    return Finding(log_strength(ratio, 3.5, 9.0), facts, "train_loss", (1,))


def unshuffled_data(run: RunEvidence) -> Finding | None:
    ratios = run.health_numbers("batch_label_entropy")
    if not ratios:
        return None
    ratio = max(ratios)
    facts = (Fact("entropy of the classes within a batch over that of shuffled batches", f"{ratio:.2f}", "near 1"),)
    return Finding(strength(ratio, 0.7, 0.3), facts, "train_loss")


def _accuracy(run: RunEvidence) -> Fact:
    value = "unknown" if run.best_val_acc is None else f"{run.best_val_acc:.1f}%"
    return Fact("best validation accuracy", value, f"above {run.majority_acc_pct:.1f}%, the most frequent class alone")
