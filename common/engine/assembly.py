"""The one place that turns a config into the parts of a training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from common.augmentation import build_augmentation
from common.config import Config, config_to_mapping
from common.data import BatchSource, Dataset, SplitFractions, load_dataset, make_batches
from common.device import autocast_for
from common.ema import ExponentialMovingAverage
from common.engine.parts import EvaluationSet, Parts, TrainerSettings
from common.engine.progress import CheckpointPlan, Criterion, EarlyStopping, Progress
from common.engine.state import TrainingState
from common.engine.training_step import TrainingStep
from common.exits import InputFileError
from common.health import BatchMixing, SampleHistory
from common.losses import build_loss
from common.models import build_model, count_parameters
from common.optimizers import build_optimizer
from common.parallel import World
from common.schedulers import build_scheduler
from common.seeding import derive_seed, preserve_rng

# Training samples that accuracy is measured on: as many as there are for validation, within these bounds. 256 give a
# standard error of 1.4 points at 95%, 2048 of half a point; more would cost time and tell no more than validation does.
TRAIN_SAMPLE_SIZES = (256, 2048)
# On a CPU 5.0 us a sample of the digits with simple_cnn, against 5.9 with 512 and 5.6 with 128: what the caches hold.
EVALUATION_BATCH_SIZE = 256


def load_data(config: Config, *, write_files: bool = True) -> Dataset:
    """The data set that a config names.

    Raises:
        InputFileError: it is missing, unreadable or unfit for training, or has other classes than the config says.
    """
    data = config.data
    dataset = load_dataset(
        data.source,
        root=data.root,
        split=SplitFractions(val=data.split.val, test=data.split.test, stratify=data.split.stratify),
        image_size=data.image_size,
        normalize=data.normalize,
        cache=data.cache,
        num_workers=data.num_workers,
        label_column=data.label_column,
        write_files=write_files,
    )
    # Rows with NaN were named, counted and left out; a run that may repair itself goes on without them.
    dataset.raise_on_errors(tolerated={"non_finite"} if config.diagnostics.nan_loss.reaction == "act" else set())
    expected = config.model.num_classes
    if expected is not None and expected != dataset.num_classes:
        raise InputFileError(
            f"is {expected}, but the data has {dataset.num_classes} classes",
            field="model.num_classes",
            hint="leave it out to take it from the data",
        )
    return dataset


def build_parts(config: Config, dataset: Dataset, device: torch.device, world: World, *, mode: str) -> Parts:
    """Everything a training needs. The random streams must have been seeded; building the model draws from them."""
    model = world.synchronize_batch_norm(_build_model(config, dataset)).to(device)
    if config.training.channels_last and len(dataset.input_shape) == 3:
        model = model.to(memory_format=torch.channels_last)
    precision = autocast_for(device, config.training.precision)
    source = _train_source(config, dataset, device)
    settings = _settings(config, dataset)
    state = _state(
        config,
        dataset,
        model,
        steps_per_epoch=settings.steps_per_epoch(dataset.splits["train"].num_samples),
        scaler=torch.amp.GradScaler(device.type) if precision.needs_grad_scaler else None,
    )
    step = _step(config, dataset, state, precision.context, world)
    if config.training.compile:
        model.compile()
    validation = _evaluation_set(dataset, "val", device, settings.batch_size)
    return Parts(
        dataset=dataset,
        device=device,
        world=world,
        state=state,
        step=step,
        train_source=source,
        train_sample=_train_sample(dataset, device, settings.batch_size),
        validation=validation,
        settings=settings,
        plan=_checkpoint_plan(config, mode),
        autocast=precision.context,
        batch_mixing=BatchMixing(dataset.splits["train"].labels, dataset.num_classes),
        num_parameters=count_parameters(model),
    )


def evaluation_set(parts: Parts, split: str) -> EvaluationSet:
    """All samples of a split of the training's data, to be measured on."""
    return _evaluation_set(parts.dataset, split, parts.device, parts.settings.batch_size)


def start_afresh(config: Config, parts: Parts, attempt: int) -> None:
    """Put new random weights and an empty optimizer in place, from a seed of their own for every attempt.

    The training's random stream goes on as if nothing had been drawn.
    """
    with preserve_rng():
        torch.manual_seed(derive_seed(config.reproducibility.seed, "initial weights", attempt))
        fresh = _build_model(config, parts.dataset).state_dict()
    state = parts.state
    state.model.load_state_dict(fresh)
    state.optimizer.state.clear()
    if state.ema is not None:
        state.ema = ExponentialMovingAverage(state.model, state.ema.decay)


def _build_model(config: Config, dataset: Dataset) -> nn.Module:
    return build_model(
        config.model.architecture,
        input_shape=dataset.input_shape,
        num_classes=dataset.num_classes,
        dropout=config.model.dropout,
        hidden_dims=config.model.hidden_dims,
        activation=config.model.activation,
        pretrained=config.model.pretrained,
        architecture_args=config.model.architecture_args,
    )


def _model_spec(config: Config, dataset: Dataset, model: nn.Module) -> dict:
    return {
        "architecture": config.model.architecture,
        "architecture_args": config.model.architecture_args,
        "input_shape": list(dataset.input_shape),
        "num_classes": dataset.num_classes,
        "dropout": config.model.dropout,
        "hidden_dims": None if config.model.hidden_dims is None else list(config.model.hidden_dims),
        "activation": config.model.activation,
        "class_names": list(dataset.class_names),
        "preprocessing": dataset.preprocessing(),
        "num_parameters": count_parameters(model),
    }


def _state(config: Config, dataset: Dataset, model: nn.Module, *, steps_per_epoch: int, scaler) -> TrainingState:
    optimizer = build_optimizer(
        model,
        config.optimizer.type,
        config.optimizer.learning_rate,
        config.optimizer.weight_decay,
        momentum=config.optimizer.momentum,
        betas=config.optimizer.betas,
        nesterov=config.optimizer.nesterov,
    )
    schedule = config.lr_scheduler
    scheduler = build_scheduler(
        optimizer,
        schedule.type,
        total_epochs=config.training.epochs,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=schedule.warmup_epochs,
        patience=schedule.patience,
        factor=schedule.factor,
        min_lr=schedule.min_lr,
        step_size=schedule.step_size,
        mode=config.early_stopping.direction,
    )
    ema = None if config.training.ema is None else ExponentialMovingAverage(model, config.training.ema)
    return TrainingState(
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        ema=ema,
        scaler=scaler,
        sample_history=SampleHistory(dataset.splits["train"].labels),
        progress=Progress(),
        config=config_to_mapping(config),
        model_spec=_model_spec(config, dataset, model),
    )


def _step(config: Config, dataset: Dataset, state: TrainingState, autocast: Callable, world: World) -> TrainingStep:
    device = next(state.model.parameters()).device
    seed = config.reproducibility.seed
    transforms = config.data_augmentation.transforms if config.data_augmentation.enabled else ()
    return TrainingStep(
        world.wrap(state.model, device),
        state.optimizer,
        state.scheduler,
        build_loss(
            label_smoothing=config.training.label_smoothing,
            class_weights=config.training.class_weights,
            train_label_counts=dataset.splits["train"].class_counts(dataset.num_classes),
        ).to(device),
        augmentation=build_augmentation(transforms, seed=seed, normalizer=dataset.normalizer(device))
        if transforms
        else None,
        ema=state.ema,
        scaler=state.scaler,
        autocast=autocast,
        world=world,
        averaged_model=state.model,
        sample_history=state.sample_history,
    )


def _settings(config: Config, dataset: Dataset) -> TrainerSettings:
    stopping, checkpointing = config.early_stopping, config.checkpointing
    return TrainerSettings(
        epochs=config.training.epochs,
        seed=config.reproducibility.seed,
        batch_size=config.training.batch_size,
        accumulate=config.training.accumulate,
        drop_last=config.data.drop_last,
        num_classes=dataset.num_classes,
        validate_every_n_epochs=config.validation.validate_every_n_epochs,
        save_every_n_steps=checkpointing.checkpoint_every_n_steps,
        save_every_n_s=checkpointing.checkpoint_every_n_seconds,
        min_s_between_saves=checkpointing.min_seconds_between_saves,
        monitor=Criterion(checkpointing.monitor, checkpointing.direction),
        early_stopping=EarlyStopping(
            Criterion(stopping.metric, stopping.direction, stopping.min_delta), stopping.patience, stopping.enabled
        ),
        clip_max_norm=config.optimizer.gradient_clip_max_norm,
    )


def _checkpoint_plan(config: Config, mode: str) -> CheckpointPlan:
    checkpointing = config.checkpointing
    stem = "final_model_{}.pt" if mode == "production" else "{}_model.pt"
    return CheckpointPlan(
        best_name=stem.format("best"),
        last_name=stem.format("last"),
        save_best=checkpointing.save_best,
        save_last=checkpointing.save_last,
        every_n_epochs=checkpointing.checkpoint_every_n_epochs,
        keep_last_n=checkpointing.keep_last_n,
        top_k=checkpointing.save_top_k if checkpointing.save_top_k > 1 else 0,  # the best one has a file of its own
        criterion=Criterion(checkpointing.monitor, checkpointing.direction),
    )


def _train_source(config: Config, dataset: Dataset, device: torch.device) -> BatchSource:
    data = config.data
    return make_batches(
        dataset.splits["train"],
        device,
        normalizer=dataset.normalizer(device),
        num_workers=data.num_workers,
        pin_memory=data.pin_memory,
        persistent_workers=data.persistent_workers,
        prefetch_factor=data.prefetch_factor,
    )


def _train_sample(dataset: Dataset, device: torch.device, batch_size: int) -> EvaluationSet:
    """Training samples, evenly spread over the split, that show how well the model fits what it was trained on."""
    num_train = dataset.splits["train"].num_samples
    fewest, most = TRAIN_SAMPLE_SIZES
    size = min(num_train, max(fewest, min(most, dataset.splits["val"].num_samples)))
    indices = torch.arange(size) * num_train // size
    return _evaluation_set(dataset, "train", device, batch_size, indices)


def _evaluation_set(dataset, split: str, device, batch_size: int, indices: torch.Tensor | None = None) -> EvaluationSet:
    samples = dataset.splits[split]
    if indices is None:
        indices = torch.arange(samples.num_samples)
    source = make_batches(samples, device, normalizer=dataset.normalizer(device))
    return EvaluationSet(source, _even_batches(indices, max(batch_size, EVALUATION_BATCH_SIZE)))


def _even_batches(indices: torch.Tensor, size: int) -> list[torch.Tensor]:
    """In pieces of about ``size``, up to half as many again: a small rest would cost as much time as a whole batch."""
    return list(indices.tensor_split(max(round(len(indices) / size), 1)))
