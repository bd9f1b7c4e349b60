"""What an epoch of metrics.json says, and measuring it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import median

from common import checkpoints
from common.engine.evaluation import Evaluation, evaluate
from common.engine.parts import Parts


def measure(
    parts: Parts, epoch: int, check_stop: Callable[[], None] | None
) -> tuple[Evaluation | None, Evaluation | None]:
    """How well the model does on its training sample and on the validation set; None in epochs without validation."""
    settings, state = parts.settings, parts.state
    if epoch % settings.validate_every_n_epochs and epoch != settings.epochs:
        return None, None
    sets = (parts.train_sample, parts.validation)
    if state.ema is None:
        train, val = (evaluate(parts, samples, check_stop) for samples in sets)
        return train, val
    with state.ema.apply_to(state.model):
        train, val = (evaluate(parts, samples, check_stop) for samples in sets)
    return train, val


def epoch_record(
    parts: Parts, train: Evaluation | None, val: Evaluation | None, usage: Mapping, *, evaluation_s: float
) -> dict:
    """The epoch that ``parts.state.progress`` stands at the end of, as metrics.json has it."""
    progress, norms = parts.state.progress, parts.state.progress.grad_norms
    clip = parts.clip_max_norm
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
        "health": {
            "clipped_share": None if clip is None or not norms else sum(norm > clip for norm in norms) / len(norms)
        },
        "weights_sha256": checkpoints.state_sha256(parts.state.model.state_dict()),
    }
