"""What an epoch of metrics.json says, and measuring it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from common import checkpoints
from common.engine.evaluation import Evaluation, evaluate
from common.engine.parts import Parts
from common.health import ActivationWatch, recall_signals, series_signals, watch_activations
from common.late import LateMapping

# What an epoch's signals are worked out from may wait in main memory, where it is not more than this.
_MOST_WAITING_BYTES = 4 << 20
_BYTES_PER_SAMPLE = 32  # six totals, and a number in the epoch's order


@dataclass(frozen=True)
class Measurement:
    """What the model does at the end of an epoch, on its training sample and on the validation set."""

    train: Evaluation
    val: Evaluation
    activations: ActivationWatch


def measure(parts: Parts, epoch: int, check_stop: Callable[[], None] | None) -> Measurement | None:
    """Evaluate, with the averaged weights where there are some; None in epochs without validation."""
    settings, state = parts.settings, parts.state
    if epoch % settings.validate_every_n_epochs and epoch != settings.epochs:
        return None
    with nullcontext() if state.ema is None else state.ema.apply_to(state.model):
        train = evaluate(parts, parts.train_sample, check_stop)
        with watch_activations(state.model, num_passes=len(parts.validation.index_batches)) as watch:
            val = evaluate(parts, parts.validation, check_stop)
    return Measurement(train, val, watch)


def epoch_record(
    parts: Parts,
    measured: Measurement | None,
    steps: Sequence[Sequence[Tensor]],
    usage: Mapping,
    *,
    evaluation_s: float,
) -> dict:
    """The epoch that ``parts.state.progress`` stands at the end of, as metrics.json has it.

    Args:
        steps: the samples of each step, by micro-batch.
    """
    progress, norms = parts.state.progress, parts.state.progress.grad_norms
    train, val = (measured.train, measured.val) if measured else (None, None)
    return {
        "num": progress.epoch,
        "step": progress.step,
        "num_steps": progress.batch,
        "train_loss": progress.loss_sum / progress.samples if progress.samples else math.nan,
        "train_acc": train.metrics.accuracy_pct if train else None,
        "val_loss": val.loss if val else None,
        "val_acc": val.metrics.accuracy_pct if val else None,
        "val_f1": val.metrics.f1 if val else None,
        "val_precision": val.metrics.precision if val else None,
        "val_recall": val.metrics.recall if val else None,
        "lr": parts.state.scheduler.learning_rate,
        "time_s": progress.time_s + evaluation_s,
        "data_time_s": progress.data_time_s,
        "samples_per_s": progress.samples / progress.time_s if progress.time_s else None,
        **usage,
        "grad_norm": {"median": median(norms), "max": max(norms)} if norms else {"median": None, "max": None},
        "health": late_health(parts, measured, steps),
        "weights_sha256": checkpoints.state_sha256(parts.state.model.state_dict()),
    }


def late_health(parts: Parts, measured: Measurement | None, steps: Sequence[Sequence[Tensor]]) -> LateMapping:
    """What the signals say of the epoch, from what is there at its end and does not change later."""
    progress, clip = parts.state.progress, parts.clip_max_norm
    norms, losses, weights = progress.grad_norms, progress.step_losses, progress.weight_signals
    samples_so_far = parts.state.sample_history.totals
    watch, rows = (measured.activations, measured.val.metrics.per_class) if measured else (None, None)

    def health() -> dict:
        activations = watch.summary() if watch else None
        samples = samples_so_far.signals()
        return {
            "clipped_share": None if clip is None or not norms else sum(norm > clip for norm in norms) / len(norms),
            "grad_norm_series": series_signals(norms),
            "loss_series": series_signals(losses),
            "weights": weights,
            "activations": activations.as_dict() if activations else None,
            "samples": samples.as_dict() if samples else None,
            "recall": recall_signals([row.recall for row in rows], [row.support for row in rows]) if rows else None,
            "batch_label_entropy": parts.batch_mixing.label_entropy_ratio(_samples_of(step) for step in steps if step),
        }

    late = LateMapping(health)
    num_bytes = _BYTES_PER_SAMPLE * parts.num_train + (watch.num_bytes if watch else 0)
    if parts.device.type != "cpu" or num_bytes > _MOST_WAITING_BYTES:
        late.settle()
    return late


def _samples_of(step: Sequence[Tensor]) -> Tensor:
    return step[0] if len(step) == 1 else torch.cat(list(step))
