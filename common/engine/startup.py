"""What a run tells at its start. The tags in brackets are a contract: people ``grep`` for them."""

from __future__ import annotations

from collections.abc import Sequence

from common.config import Config
from common.console import Console, format_count
from common.engine.parts import Parts
from common.engine.session import RunRequest


def announce(console: Console, request: RunRequest, parts: Parts, reproducibility: Sequence[str]) -> None:
    """Tell which configuration, seeds, data, model, optimiser and scheduler a run has, and what is odd about them."""
    config = request.loaded.config
    console.info(
        f"[CONFIG] {request.loaded.source} in {request.mode} mode: {config.training.epochs} epochs, "
        f"batch size {_batch_size(config)}, {config.training.precision} on {parts.device}{_processes(parts)}"
    )
    for notice in request.loaded.notices:
        console.info(f"[CONFIG] {notice}")
    for line in reproducibility:
        console.info(f"[REPRODUCIBILITY] {line}")
    _announce_data(console, parts)
    dropout = f", dropout {config.model.dropout:g}" if config.model.dropout else ""
    console.info(f"[MODEL] {config.model.architecture}: {format_count(parts.num_parameters)} parameters{dropout}")
    console.info(f"[OPTIMIZER] {_optimizer(config)}")
    console.info(f"[SCHEDULER] {_scheduler(config)}; {parts.steps_per_epoch} steps per epoch")


def reasons_for_doubt(config: Config) -> list[str]:
    """Why the same config may not give the same bits again on this very machine."""
    doubts = []
    if not config.reproducibility.deterministic:
        doubts.append("reproducibility.deterministic is off, so an operation may add up in another order each time")
    if config.reproducibility.benchmark and not config.reproducibility.deterministic:
        doubts.append("reproducibility.benchmark picks kernels by timing them")
    return doubts


def _announce_data(console: Console, parts: Parts) -> None:
    dataset = parts.dataset
    sizes = ", ".join(f"{split.num_samples} {name}" for name, split in dataset.splits.items())
    shape = "x".join(str(size) for size in dataset.input_shape)
    held = "streamed from disk" if dataset.splits["train"].is_streamed else "held in memory"
    console.info(f"[DATA] {dataset.name}: {sizes}; {dataset.num_classes} classes; input {shape}, {held}; "
                 f"fingerprint {dataset.fingerprint[:16]}")  # fmt: skip
    for notice in dataset.notices:
        console.info(f"[DATA] {notice}")
    for problem in dataset.problems:
        console.warning(f"[DATA] {problem.message}")


def _batch_size(config: Config) -> str:
    training = config.training
    if training.accumulate == 1:
        return str(training.batch_size)
    return f"{training.batch_size * training.accumulate} ({training.accumulate} x {training.batch_size})"


def _processes(parts: Parts) -> str:
    return "" if parts.world.is_alone else f", {parts.world.size} processes"


def _optimizer(config: Config) -> str:
    optimizer = config.optimizer
    parts = [f"{optimizer.type}: learning rate {optimizer.learning_rate:g}", f"weight decay {optimizer.weight_decay:g}"]
    if optimizer.type == "sgd":
        parts.append(f"momentum {optimizer.momentum:g}{' (Nesterov)' if optimizer.nesterov else ''}")
    if optimizer.gradient_clip_max_norm is not None:
        parts.append(f"gradients clipped at norm {optimizer.gradient_clip_max_norm:g}")
    return ", ".join(parts)


def _scheduler(config: Config) -> str:
    schedule = config.lr_scheduler
    warmup = f" after {schedule.warmup_epochs:g} epochs of warm-up" if schedule.warmup_epochs else ""
    return f"{'constant' if schedule.type == 'none' else schedule.type}{warmup}"
