"""What a training would do, found out by doing a little of it and keeping nothing."""

from __future__ import annotations

import time

import torch

from common.checkpoints import to_bytes
from common.console import Console, format_bytes, format_count, format_duration
from common.data import split_into_batches
from common.engine.evaluation import evaluate
from common.engine.parts import EvaluationSet, Parts
from common.engine.run import prepare
from common.engine.session import RunRequest
from common.engine.training_step import MicroBatch
from common.parallel import World

# The first step pays for memory and kernel choice once; the next few show what a step costs.
TIMED_STEPS = 3


def dry_run(request: RunRequest, console: Console) -> dict:
    """Build everything, train and validate on a few batches, tell the plan; no file is written.

    Returns:
        The plan, for programs: sizes in samples and bytes, times in seconds.
    """
    parts, _ = prepare(request, console, World(), write_files=False)
    try:
        plan = _plan(request, parts)
    finally:
        parts.close()
    for line in _lines(plan):
        console.result(line)
    return plan


def _plan(request: RunRequest, parts: Parts) -> dict:
    config = request.loaded.config
    steps = parts.steps_per_epoch
    step_s, loss = _try_training(parts)
    validation_s = _try_validation(parts)
    samples = {name: split.num_samples for name, split in parts.dataset.splits.items()}
    checkpoint_bytes = len(to_bytes(parts.state.capture(parts.world)))
    epochs = config.training.epochs
    return {
        "dry_run": True,
        "mode": request.mode,
        "output_dir": str(request.output_dir),
        "device": str(parts.device),
        "samples": samples,
        "num_classes": parts.dataset.num_classes,
        "num_parameters": parts.num_parameters,
        "epochs": epochs,
        "steps_per_epoch": steps,
        "steps": steps * epochs,
        "first_loss": loss,
        "step_s": step_s,
        "estimated_s": epochs * (steps * step_s + validation_s),
        "checkpoint_bytes": checkpoint_bytes,
        "estimated_disk_bytes": checkpoint_bytes * parts.plan.most_files(epochs),
    }


def _try_training(parts: Parts) -> tuple[float, float]:
    """Seconds of one step, and the mean loss of the first."""
    settings = parts.settings
    samples = torch.cat(parts.train_sample.index_batches)[: settings.samples_per_step]
    micro_batches = split_into_batches(samples, settings.batch_size)
    first_loss, times = 0.0, []
    for number in range(1 + TIMED_STEPS):
        started = time.perf_counter()
        stream = (MicroBatch(batch) for batch in parts.train_source.batches(micro_batches))
        result = parts.step.run(
            stream, num_micro_batches=len(micro_batches), num_samples=len(samples), epoch=1, step=number
        )
        times.append(time.perf_counter() - started)
        first_loss = first_loss if number else result.loss_sum / result.num_samples
    return min(times[1:]), first_loss


def _try_validation(parts: Parts) -> float:
    """Seconds that one evaluation of the whole validation set and the training sample would take."""
    one = EvaluationSet(parts.validation.source, parts.validation.index_batches[:1])
    started = time.perf_counter()
    evaluate(parts, one)
    batches = len(parts.validation.index_batches) + len(parts.train_sample.index_batches)
    return (time.perf_counter() - started) * batches


def _lines(plan: dict) -> list[str]:
    samples = ", ".join(f"{format_count(count)} {name}" for name, count in plan["samples"].items())
    return [
        f"Plan: {plan['mode']} run into {plan['output_dir']} on {plan['device']}",
        f"Data: {samples} samples, {plan['num_classes']} classes",
        f"Model: {format_count(plan['num_parameters'])} parameters; loss at the start {plan['first_loss']:.4f}",
        f"Steps: {plan['epochs']} epochs x {plan['steps_per_epoch']} = {format_count(plan['steps'])}, "
        f"{1000 * plan['step_s']:.1f} ms each",
        f"Estimated time: {format_duration(plan['estimated_s'])} at most, without early stopping",
        f"Estimated disk: {format_bytes(plan['estimated_disk_bytes'])} "
        f"({format_bytes(plan['checkpoint_bytes'])} per checkpoint)",
        "Dry run: nothing was written",
    ]
