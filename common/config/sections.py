"""What a config can say: every section and field, with its meaning, range and default.

This is the one place. The validator, the defaults, ``configs/schema.json`` and ``configs/README.md`` follow from it.
A field without a default is required.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from common.config.augmentation_schema import AnyTransform
from common.config.field_types import (
    Count,
    CountFromZero,
    Device,
    Direction,
    FractionBelowOne,
    FractionInside,
    Line,
    Measure,
    Metric,
    NotNegative,
    Percent,
    PlainMapping,
    Positive,
    Section,
    Seed,
    Text,
    choice,
    choice_or_import_path,
    direction_of,
)

ARCHITECTURES = ("simple_mlp", "simple_cnn", "resnet18", "resnet34", "resnet50", "small_transformer")
DATA_SOURCES = (
    "digits", "wine", "breast_cancer", "iris", "image_folder", "npz", "csv", "parquet", "mnist", "cifar10",
)  # fmt: skip
SOURCES_THAT_NEED_A_ROOT = ("image_folder", "npz", "csv", "parquet", "mnist", "cifar10")
ALL_MEASURES = ("loss", "acc", "f1", "precision", "recall")

Architecture = choice_or_import_path(*ARCHITECTURES)
DataSource = choice_or_import_path(*DATA_SOURCES)
Activation = choice("relu", "gelu", "tanh", "silu", "sigmoid")
OptimizerType = choice("adam", "adamw", "sgd", "rmsprop")
Precision = choice("fp32", "bf16", "fp16")
SchedulerType = choice("none", "reduce_on_plateau", "step", "cosine", "one_cycle")
CacheKind = choice("auto", "memory", "none")
Reaction = choice("act", "suggest", "off")
ExportFormat = choice("onnx", "torchscript", "pt2")
QuantizedType = choice("int8", "fp16")
Balanced = choice("balanced")

Widths = Annotated[tuple[Count, ...], Field(strict=False, min_length=1, max_length=64)]
ImageSize = Annotated[tuple[Count, Count], Field(strict=False)]
Betas = Annotated[tuple[FractionBelowOne, FractionBelowOne], Field(strict=False)]
ClassWeights = Annotated[tuple[Positive, ...], Field(strict=False, min_length=2)]
Measures = Annotated[tuple[Measure, ...], Field(strict=False, min_length=1)]


class Model(Section):
    """The network."""

    architecture: Architecture = Field(
        description="Which network, or your own: an import path to a callable that builds one."
    )
    dropout: FractionBelowOne = Field(description="Fraction of units that are dropped while training.")
    num_classes: Annotated[int, Field(ge=2)] | None = Field(
        None, description="Number of classes; null takes it from the data."
    )
    hidden_dims: Widths | None = Field(
        None,
        description="Widths of the hidden layers, of `simple_cnn`'s blocks, of a ResNet's four stages, or of "
        "`small_transformer`'s MLPs; null takes the architecture's own.",
    )
    activation: Activation = Field("relu", description="Non-linearity, where the architecture leaves a choice.")
    pretrained: Line | None = Field(None, description="File of weights to start from; null starts at random.")
    architecture_args: PlainMapping = Field(
        default_factory=dict, description="Further arguments for an architecture given by import path."
    )


class Optimizer(Section):
    """How weights are updated."""

    type: OptimizerType = Field(description="Update rule.")
    learning_rate: Positive = Field(description="Step size (the highest one, where a scheduler changes it).")
    weight_decay: NotNegative = Field(description="L2 penalty; decoupled from the gradient in `adamw`.")
    momentum: FractionBelowOne = Field(0.9, description="Momentum of `sgd`; the other rules have no use for it.")
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the two moments in `adam` and `adamw`.")
    nesterov: bool = Field(False, description="Nesterov momentum, in `sgd`.")
    gradient_clip_max_norm: Positive | None = Field(
        None, description="Largest norm of the gradient; above it, it is scaled down. null does not clip."
    )

    @model_validator(mode="after")
    def _give_nesterov_its_momentum(self) -> Optimizer:
        if self.type == "sgd" and self.nesterov and self.momentum == 0:
            raise PydanticCustomError(
                "conflict",
                "Nesterov momentum needs a momentum above 0",
                {"at": "nesterov", "hint": "set `momentum`, such as 0.9, or remove `nesterov`"},
            )
        return self


class Training(Section):
    """The loop."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = Field(description="Passes over the training data.")
    batch_size: Count = Field(description="Examples per step and forward pass.")
    device: Device = Field(description="Where to compute; auto takes a GPU if there is one.")
    accumulate: Count = Field(1, description="Batches whose gradients are added up before each update.")
    precision: Precision = Field("fp32", description="Number format of the forward and backward pass.")
    compile: bool = Field(False, description="Compile the model first: seconds of waiting, then faster steps.")
    channels_last: bool = Field(False, description="Memory layout that convolutions prefer.")
    num_threads: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="CPU threads; results repeat exactly at the same number. null leaves it to PyTorch."
    )
    label_smoothing: FractionBelowOne = Field(0.0, description="Share of the target spread over all classes.")
    class_weights: Balanced | ClassWeights | None = Field(
        None, description="Weight of each class in the loss: a list, or `balanced` for inverse frequency."
    )
    ema: FractionInside | None = Field(
        None, description="Decay of an exponential moving average of the weights, such as 0.999; null keeps none."
    )


class EarlyStopping(Section):
    """When to stop before the last epoch."""

    enabled: bool = Field(description="Stop once the metric no longer improves.")
    patience: Count = Field(description="Epochs without improvement before stopping.")
    metric: Metric = Field(description="What must improve.")
    mode: Direction = Field("auto", description="Which way is better; auto knows it from the metric.")
    min_delta: NotNegative = Field(0.0, description="Smallest change that counts as improvement.")

    @property
    def direction(self) -> Literal["min", "max"]:
        """Which way ``metric`` gets better."""
        return direction_of(self.metric, self.mode)


class Reproducibility(Section):
    """What makes two runs equal."""

    seed: Seed = Field(description="Seed of every source of randomness; keep one for all phases.")
    deterministic: bool = Field(description="Use only operations that give the same bits every time.")
    benchmark: bool = Field(False, description="Let cuDNN try out algorithms: faster, and not deterministic.")


class DataSplit(Section):
    """How examples are divided where the source has no split of its own."""

    val: Annotated[float, Field(gt=0, lt=1)] = Field(0.15, description="Fraction held out for validation.")
    test: FractionBelowOne = Field(0.15, description="Fraction held out for the final test.")
    stratify: bool = Field(True, description="Keep the class proportions in each part.")

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> DataSplit:
        if self.val + self.test >= 1:
            raise PydanticCustomError(
                "conflict",
                "val and test together leave nothing to train on",
                {"at": "test", "hint": "make val + test less than 1"},
            )
        return self


class Data(Section):
    """Where examples come from, and how they are read."""

    source: DataSource = Field("digits", description="Which data, or your own: an import path to a callable.")
    root: Line | None = Field(
        None, description="Folder or file of the data; null means `data/` for the sources that need none of yours."
    )
    label_column: Line | None = Field(None, description="Column of the class in csv and parquet; null: the last.")
    split: DataSplit = Field(default_factory=DataSplit, description="How the examples are divided.")
    num_workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="Processes that load data; the result does not depend on it."
    )
    pin_memory: bool = Field(False, description="Page-locked memory, for faster copies to a GPU.")
    persistent_workers: bool = Field(False, description="Keep the loading processes from epoch to epoch.")
    prefetch_factor: Count = Field(2, description="Batches that each loading process prepares ahead.")
    drop_last: bool = Field(False, description="Leave out a last batch that is not full.")
    cache: CacheKind = Field("auto", description="Hold the decoded data in memory; auto does if it fits.")
    image_size: Count | ImageSize | None = Field(
        None, description="Resize images to this side, or [height, width]; null keeps theirs."
    )
    normalize: bool = Field(True, description="Shift and scale by the training data's mean and deviation.")

    @model_validator(mode="after")
    def _name_the_files(self) -> Data:
        if self.source in SOURCES_THAT_NEED_A_ROOT and self.root is None:
            raise PydanticCustomError(
                "conflict",
                "this source needs `data.root`, which is not set",
                {"at": "source", "hint": "add `root:` with the folder or file of the data"},
            )
        return self


class DataAugmentation(Section):
    """Random changes to training examples."""

    enabled: bool = Field(False, description="Apply the transforms while training.")
    transforms: Annotated[tuple[AnyTransform, ...], Field(strict=False, max_length=64)] = Field(
        (), description="Transforms in order, each a name or `name: {argument: value}`."
    )


class LrScheduler(Section):
    """How the learning rate changes over time."""

    type: SchedulerType = Field("none", description="Schedule.")
    warmup_epochs: NotNegative = Field(0.0, description="Epochs of linear rise from near zero at the start.")
    patience: CountFromZero = Field(5, description="`reduce_on_plateau`: epochs without improvement before a cut.")
    factor: FractionInside = Field(0.1, description="`reduce_on_plateau`, `step`: the rate is multiplied by it.")
    min_lr: NotNegative = Field(0.0, description="`reduce_on_plateau`, `cosine`: the rate never falls below it.")
    step_size: Count = Field(10, description="`step`: epochs from one cut to the next.")


class Checkpointing(Section):
    """What is saved while training."""

    save_best: bool = Field(True, description="Save the best epoch.")
    save_last: bool = Field(True, description="Save the last epoch, so that an interrupted run goes on.")
    checkpoint_every_n_epochs: Count | None = Field(5, description="Epochs between periodic checkpoints.")
    checkpoint_every_n_steps: Count | None = Field(None, description="Steps between saves within an epoch.")
    checkpoint_every_n_seconds: Positive | None = Field(None, description="Seconds between saves within an epoch.")
    min_seconds_between_saves: NotNegative = Field(
        1.0,
        description="Epochs that end sooner after a save wait in memory for the next one, and with them metrics.json "
        "and event files; 0 saves after each.",
    )
    keep_last_n: Count | None = Field(None, description="Periodic checkpoints that are kept; null keeps all.")
    save_top_k: Count = Field(1, description="How many of the best epochs are kept.")
    monitor: Metric = Field("val_loss", description="Metric that decides which epoch is best.")
    mode: Direction = Field("auto", description="Which way is better; auto knows it from the metric.")

    @property
    def direction(self) -> Literal["min", "max"]:
        """Which way ``monitor`` gets better."""
        return direction_of(self.monitor, self.mode)


class Validation(Section):
    """Measuring between epochs."""

    validate_every_n_epochs: Count = Field(1, description="Epochs from one validation to the next.")
    metric: Metric = Field("val_acc", description="The primary metric, by which runs are compared.")
    metrics: Measures = Field(ALL_MEASURES, description="What reports show of the validation data.")


class TestSet(Section):
    """The final test, on data that no decision was based on."""

    __test__ = False  # no test class, whatever pytest thinks of the name

    enabled: bool = Field(False, description="Keep a test set; the production mode turns it on.")
    evaluate_at_end: bool = Field(False, description="Evaluate the best epoch on it; the production mode does.")
    metrics: Measures = Field(ALL_MEASURES, description="What reports show of the test data.")


class NanLoss(Section):
    """The loss is no longer a finite number."""

    reaction: Reaction = Field("act", description="Act (lower the rate, clip, restart), only suggest, or off.")
    max_restarts: Annotated[int, Field(ge=0, le=100)] = Field(3, description="Restarts before the run gives up.")


class ConvergenceStall(Section):
    """The loss is still high and no longer falls."""

    reaction: Reaction = Field("act", description="Act (change the rate, start anew), only suggest, or off.")
    patience_epochs: Count = Field(15, description="Epochs without improvement.")
    loss_threshold: Positive | None = Field(
        None, description="Loss that counts as high; null: min(2.0, 0.87 ln C) for C classes."
    )


class ResourceInefficiency(Section):
    """The GPU waits."""

    reaction: Reaction = Field("suggest", description="Suggest larger batches and more workers, or off.")
    gpu_util_pct: Percent = Field(60.0, description="GPU utilisation, in percent, below which it counts as low.")
    patience_epochs: Count = Field(10, description="Epochs in a row with low utilisation.")


class Diagnostics(Section):
    """What is watched, what may act by itself, and where the diagnosis draws its lines."""

    nan_loss: NanLoss = Field(default_factory=NanLoss, description="Reaction to a loss that is not finite.")
    convergence_stall: ConvergenceStall = Field(
        default_factory=ConvergenceStall, description="Reaction to a loss that stays high."
    )
    resource_inefficiency: ResourceInefficiency = Field(
        default_factory=ResourceInefficiency, description="Reaction to an idle GPU."
    )
    overfitting_gap_pct: Percent = Field(15.0, description="Train-val accuracy gap, in points: overfitting above.")
    underfitting_acc_pct: Percent = Field(75.0, description="Both accuracies below it, in percent: underfitting.")
    val_acc_spread_pct: Percent = Field(8.0, description="Spread of validation accuracy, in points: data quality.")


class Logging(Section):
    """What is written down while training."""

    log_every_n_steps: Count = Field(50, description="Steps between progress lines.")
    tensorboard: bool = Field(True, description="Write event files for TensorBoard.")


class Quantization(Section):
    """Smaller numbers for deployment."""

    enabled: bool = Field(False, description="Quantise the exported model.")
    dtype: QuantizedType = Field("int8", description="Number format.")


class Export(Section):
    """The model for deployment."""

    enabled: bool = Field(False, description="Export the best epoch at the end.")
    formats: Annotated[tuple[ExportFormat, ...], Field(strict=False)] = Field(
        ("onnx",), description="File formats to write."
    )
    quantization: Quantization = Field(default_factory=Quantization, description="Quantisation of the export.")


class Experiment(Section):
    """Words for people; nothing here changes a result."""

    name: Line | None = Field(None, description="Short name.")
    description: Text | None = Field(None, description="What is tried, and why.")
    tags: Annotated[tuple[Line, ...], Field(strict=False, max_length=100)] = Field((), description="Labels.")
    notes: Text | None = Field(None, description="Anything else.")


class Target(Section):
    """What the work is to reach."""

    val_acc: Percent | None = Field(None, description="Validation accuracy to reach, in percent; null sets none.")


class Config(Section):
    """A training run of ML Trainer: what is trained, on what, how, and what is kept of it."""

    model: Model = Field(description="The network.")
    optimizer: Optimizer = Field(description="How weights are updated.")
    training: Training = Field(description="The loop.")
    early_stopping: EarlyStopping = Field(description="When to stop before the last epoch.")
    reproducibility: Reproducibility = Field(description="What makes two runs equal.")
    data: Data = Field(default_factory=Data, description="Where examples come from, and how they are read.")
    data_augmentation: DataAugmentation = Field(
        default_factory=DataAugmentation, description="Random changes to training examples."
    )
    lr_scheduler: LrScheduler = Field(
        default_factory=LrScheduler, description="How the learning rate changes over time."
    )
    checkpointing: Checkpointing = Field(default_factory=Checkpointing, description="What is saved while training.")
    validation: Validation = Field(default_factory=Validation, description="Measuring between epochs.")
    test_set: TestSet = Field(default_factory=TestSet, description="The final test.")
    diagnostics: Diagnostics = Field(
        default_factory=Diagnostics, description="What is watched, what may act, and where the diagnosis draws lines."
    )
    logging: Logging = Field(default_factory=Logging, description="What is written down while training.")
    export: Export = Field(default_factory=Export, description="The model for deployment.")
    experiment: Experiment = Field(default_factory=Experiment, description="Words for people.")
    target: Target = Field(default_factory=Target, description="What the work is to reach.")

    @model_validator(mode="after")
    def _weigh_every_class(self) -> Config:
        weights, classes = self.training.class_weights, self.model.num_classes
        if isinstance(weights, tuple) and classes is not None and len(weights) != classes:
            raise PydanticCustomError(
                "conflict",
                "{weights} class weights for {classes} classes",
                {"at": "training.class_weights", "weights": len(weights), "classes": classes,
                 "hint": "give one weight for each class"},
            )  # fmt: skip
        return self
