"""Settings that contradict each other: valid one by one, but together not what anybody wants."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from common.config.field_types import direction_of
from common.config.sections import Config

Finding = tuple[str, str, str | None]  # dotted key, clause, hint

_TABULAR_SOURCES = frozenset({"wine", "breast_cancer", "iris", "csv", "parquet"})
_IMAGE_TRANSFORMS = frozenset({"random_crop", "horizontal_flip", "rotation", "color_jitter", "cutout"})


def conflicts(config: Config) -> Iterator[Finding]:
    """Every contradiction in ``config``, in the order of the sections."""
    yield from _in_model(config)
    yield from _in_optimizer(config)
    yield from _in_training(config)
    yield from _in_early_stopping(config)
    yield from _in_reproducibility(config)
    yield from _in_data(config)
    yield from _in_augmentation(config)
    yield from _in_schedule(config)
    yield from _in_checkpointing(config)
    yield from _in_evaluation(config)
    yield from _in_export(config)


def _in_model(config: Config) -> Iterator[Finding]:
    model = config.model
    if model.hidden_dims is not None and model.architecture.startswith("resnet") and len(model.hidden_dims) != 4:
        yield "model.hidden_dims", f"must be the widths of the four stages of {model.architecture}", "give four widths"
    if model.architecture_args and ":" not in model.architecture:
        yield (
            "model.architecture_args", f"has no effect on {model.architecture}",
            "remove it; it is for architectures given by import path",
        )  # fmt: skip


def _in_optimizer(config: Config) -> Iterator[Finding]:
    optimizer = config.optimizer
    if _is_not_default(optimizer, "momentum") and optimizer.type != "sgd":
        yield "optimizer.momentum", f"has no effect on {optimizer.type}", "remove it, or use sgd"
    if _is_not_default(optimizer, "betas") and optimizer.type not in {"adam", "adamw"}:
        yield "optimizer.betas", f"has no effect on {optimizer.type}", "remove it, or use adam or adamw"
    if optimizer.nesterov and optimizer.type != "sgd":
        yield "optimizer.nesterov", f"has no effect on {optimizer.type}", "remove it, or use sgd"
    if optimizer.learning_rate > 1:
        yield (
            "optimizer.learning_rate",
            f"{optimizer.learning_rate:g} is unusually high",
            "try 1e-4 to 0.1",
        )


def _in_training(config: Config) -> Iterator[Finding]:
    training = config.training
    if training.device == "cpu" and training.precision == "fp16":
        yield "training.precision", "fp16 on a CPU is slow and inexact", "use bf16 or fp32"


def _in_early_stopping(config: Config) -> Iterator[Finding]:
    stopping = config.early_stopping
    if stopping.enabled and stopping.patience >= config.training.epochs:
        yield (
            "early_stopping.patience",
            f"{stopping.patience} can never run out within training.epochs: {config.training.epochs}",
            "lower the patience, or disable early stopping",
        )
    if stopping.direction != direction_of(stopping.metric, "auto"):
        yield "early_stopping.mode", f"{stopping.mode} contradicts the metric {stopping.metric}", "use auto"


def _in_reproducibility(config: Config) -> Iterator[Finding]:
    if not config.reproducibility.deterministic:
        yield "reproducibility.deterministic", "false: two runs of this config may differ", "set it to true"
    elif config.reproducibility.benchmark:
        yield (
            "reproducibility.benchmark", "true contradicts deterministic: true, since cuDNN may choose differently",
            "set one of the two to false",
        )  # fmt: skip


def _in_data(config: Config) -> Iterator[Finding]:
    data = config.data
    if data.pin_memory and config.training.device == "cpu":
        yield "data.pin_memory", "true has no effect with training.device: cpu", "set it to false"
    if data.num_workers == 0:
        if data.persistent_workers:
            yield "data.persistent_workers", "true has no effect with num_workers: 0", "set num_workers, or remove it"
        if _is_not_default(data, "prefetch_factor"):
            yield "data.prefetch_factor", "has no effect with num_workers: 0", "set num_workers, or remove it"
    if data.label_column is not None and data.source not in {"csv", "parquet"} and ":" not in data.source:
        yield "data.label_column", f"has no effect on {data.source}", "remove it"
    if data.image_size is not None and data.source in _TABULAR_SOURCES:
        yield "data.image_size", f"has no effect on {data.source}, which holds no images", "remove it"


def _in_augmentation(config: Config) -> Iterator[Finding]:
    augmentation = config.data_augmentation
    if augmentation.enabled and not augmentation.transforms:
        yield "data_augmentation.enabled", "true, but there are no transforms", "list some, or set it to false"
    if not augmentation.enabled and augmentation.transforms:
        yield "data_augmentation.transforms", "listed, but enabled is false", "set data_augmentation.enabled: true"
    seen: set[str] = set()
    for index, transform in enumerate(augmentation.transforms):
        key = f"data_augmentation.transforms[{index}]"
        if transform.name in seen:
            yield key, f"{transform.name} is listed twice", "remove one"
        if transform.name in _IMAGE_TRANSFORMS and config.data.source in _TABULAR_SOURCES:
            yield key, f"{transform.name} is for images, and {config.data.source} holds none", "remove it"
        seen.add(transform.name)


def _in_schedule(config: Config) -> Iterator[Finding]:
    schedule, epochs = config.lr_scheduler, config.training.epochs
    if schedule.warmup_epochs >= epochs:
        yield "lr_scheduler.warmup_epochs", f"{schedule.warmup_epochs:g} covers all {epochs} epochs", "make it smaller"
    if schedule.min_lr >= config.optimizer.learning_rate:
        yield "lr_scheduler.min_lr", "not below optimizer.learning_rate, so the rate cannot fall", "make it smaller"
    if schedule.type == "step" and schedule.step_size >= epochs:
        yield "lr_scheduler.step_size", f"{schedule.step_size} is never reached in {epochs} epochs", "make it smaller"
    stopping = config.early_stopping
    if schedule.type == "reduce_on_plateau" and stopping.enabled and schedule.patience >= stopping.patience:
        yield (
            "lr_scheduler.patience", f"{schedule.patience}: early stopping ends the run before the rate falls",
            f"make it smaller than early_stopping.patience: {stopping.patience}",
        )  # fmt: skip


def _in_checkpointing(config: Config) -> Iterator[Finding]:
    checkpointing = config.checkpointing
    if not checkpointing.save_best and not checkpointing.save_last:
        yield "checkpointing.save_best", "false, and save_last too: the trained model is lost", "set one to true"
    if checkpointing.save_top_k > 1 and not checkpointing.save_best:
        yield "checkpointing.save_top_k", "has no effect with save_best: false", "set save_best: true"
    if checkpointing.direction != direction_of(checkpointing.monitor, "auto"):
        yield "checkpointing.mode", f"{checkpointing.mode} contradicts the metric {checkpointing.monitor}", "use auto"


def _in_evaluation(config: Config) -> Iterator[Finding]:
    every = config.validation.validate_every_n_epochs
    if every > config.training.epochs:
        yield (
            "validation.validate_every_n_epochs", f"{every} is never reached in {config.training.epochs} epochs",
            "make it smaller",
        )  # fmt: skip
    if config.test_set.evaluate_at_end and not config.test_set.enabled:
        yield "test_set.evaluate_at_end", "true, but test_set.enabled is false", "enable the test set"
    if config.test_set.enabled and config.data.split.test == 0 and config.data.source not in {"image_folder", "npz"}:
        yield "data.split.test", "0, but test_set.enabled is true", "hold some examples out for the test"


def _in_export(config: Config) -> Iterator[Finding]:
    export = config.export
    if export.enabled and not export.formats:
        yield "export.formats", "empty, but export.enabled is true", "list a format, such as onnx"
    if export.quantization.enabled and not export.enabled:
        yield "export.quantization.enabled", "true, but export.enabled is false", "enable the export"


def _is_not_default(section: BaseModel, name: str) -> bool:
    """Whether somebody chose the value; a config that a tool wrote out in full has the default of every field."""
    return getattr(section, name) != type(section).model_fields[name].default
