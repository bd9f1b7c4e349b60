"""A trial as a run of the training engine, in a process that keeps what the next one needs too."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.config import Config, LoadedConfig, config_from_mapping, config_to_mapping
from common.config.overrides import merged
from common.console import Console
from common.data import Dataset
from common.device import available_cpus, configure_determinism, select_device, set_num_threads
from common.engine.assembly import load_data
from common.engine.claim import finished_metrics
from common.engine.run import train
from common.engine.session import RunRequest
from common.environment import collect_environment, describe_machine, exactness_fingerprint
from common.exits import RunFailedError
from common.loading import loading
from common.search.assignment import Assignment
from common.search.definition import Definition
from common.search.outcome import Curve, Job, Outcome, Surroundings
from common.search.space import configured
from common.signals import StopSignals

# Why a trial differs from a training: a reaction that changes the learning rate or the weights would credit its score
# to a configuration that was not trained; test data must not take part in a choice; and nobody reads its event files.
TRIAL_SETTINGS: dict[str, Any] = {
    "diagnostics": {
        "nan_loss": {"reaction": "suggest"},
        "convergence_stall": {"reaction": "suggest"},
        "resource_inefficiency": {"reaction": "off"},
    },
    "test_set": {"enabled": False, "evaluate_at_end": False},
    "checkpointing": {"save_best": True, "save_last": True, "save_top_k": 1, "checkpoint_every_n_epochs": None},
    "logging": {"tensorboard": False},
}
MODE = "optimization"
MEASURES = ("val_loss", "val_acc", "val_f1", "val_precision", "val_recall", "train_loss", "train_acc")
# Pruning: never before this share of the epochs, and not until so many trials have shown how the score rises.
_EPOCHS_BEFORE_PRUNING = 0.2
_CURVES_BEFORE_PRUNING = 4
# What proposals are computed with, besides what trainings are.
PROPOSING_PACKAGES = ("optuna", "scipy")


@dataclass(frozen=True)
class Survey:
    """What is found out before a study begins. ``description`` is that of ``describe_machine``."""

    surroundings: Surroundings
    dataset: Dataset
    description: Mapping[str, Any]


def survey(base: LoadedConfig) -> Survey:
    """Look at what a study with this base config depends on besides it.

    Raises:
        ToolError: the data cannot be read, or is unfit for training.
    """
    config = base.config
    dataset = load_data(config)
    num_threads = config.training.num_threads or set_num_threads(None)
    device = str(select_device(config.training.device))
    description = describe_machine(device)
    environment = collect_environment(
        device, [], dataset.fingerprint, num_threads, config.reproducibility.deterministic, config.training.precision,
        compiled=config.training.compile, machine=description,
    )  # fmt: skip
    versions = {name: description["packages"].get(name) for name in PROPOSING_PACKAGES}
    machine = exactness_fingerprint(environment) | versions
    return Survey(Surroundings(dataset.fingerprint, num_threads, available_cpus(), machine), dataset, description)


class TrialTrainer:
    """Trains configurations one after another in one process, on data that is loaded once.

    Args:
        base: what the trials' values are put on.
        definition: of the study.
        command_line: for environment.json.
        known: the survey of ``base``, where one was made in this process.
    """

    def __init__(
        self, base: LoadedConfig, definition: Definition, command_line: list[str], known: Survey | None = None
    ) -> None:
        self._base = base
        self._definition = definition
        self._command_line = command_line
        self._datasets = {} if known is None else {_key(base.config): known.dataset}
        self._data_signals: dict[str, Mapping | None] = {}
        self._machine = None if known is None else known.description
        load_optimizers(base)

    def run(self, job: Job, stop: StopSignals, *, meanwhile: Callable[[], None] | None = None) -> Outcome:
        """See ``outcome.Trainer``."""
        if meanwhile is not None:
            meanwhile()
        config = configured(self._base.config, job.params)
        if isinstance(config, str):
            return Outcome("failed", None, message=f"not a valid configuration: {config}")
        request = self._request(config, job)
        try:
            document = finished_metrics(request) or train(request, Console(quiet=True), stop)
        except RunFailedError as error:
            # Out of memory with one sample at a time: as certain to happen again, and as bad a configuration.
            state = "failed" if error.field == "training.batch_size" else "diverged"
            return Outcome(state, None, message=error.message)
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        # The data is the same in every trial, and looked at in the first.
        self._data_signals = {_key(config): document["signals"].get("data")}
        return outcome_of(document, self._definition)

    def _request(self, config: Config, job: Job) -> RunRequest:
        device = str(select_device(config.training.device))
        if self._machine is None:
            self._machine = describe_machine(device)
        return RunRequest(
            loaded=LoadedConfig(trial_config(config, job.seed, self._definition), [], self._base.source),
            mode=MODE,
            output_dir=job.run_dir,
            command_line=self._command_line,
            publish=False,
            reports=False,
            dataset=self._dataset(config),
            data_signals=self._data_signals.get(_key(config)),
            machine=self._machine,
            give_up=None if job.rivals is None else Pruning(self._definition, job.rivals).gives_up,
        )

    def _dataset(self, config: Config) -> Dataset:
        key = _key(config)
        if key not in self._datasets:
            self._datasets = {key: load_data(config)}  # one at a time: two may not fit
        return self._datasets[key]


class TrainingDesk:
    """What a process that trains for another one is asked for; see ``trainer_process``."""

    def __init__(self, stop: StopSignals) -> None:
        self._stop = stop
        self._base: LoadedConfig | None = None
        self._survey: Survey | None = None
        self._trainer: TrialTrainer | None = None

    def survey(self, base: LoadedConfig) -> Surroundings:
        self._survey = known = survey(base)
        self._base = base
        return known.surroundings

    def begin(self, assignment: Assignment) -> None:
        known, self._survey = self._survey, None  # its data is the trainer's alone, to be let go for other data
        self._trainer = TrialTrainer(assignment.base, assignment.definition, assignment.command_line, known)

    def run(self, job: Job) -> Outcome:
        assert self._trainer is not None
        return self._trainer.run(job, self._stop)

    def prepare(self) -> None:
        """Use the time until the next request."""
        if self._base is not None and self._trainer is None:
            load_optimizers(self._base)


def load_optimizers(base: LoadedConfig) -> None:
    """Load what the first training would load otherwise; it takes as long as torch itself."""
    reproducibility = base.config.reproducibility
    with loading():
        configure_determinism(reproducibility.deterministic, reproducibility.benchmark)


def _key(config: Config) -> str:
    return config.data.model_dump_json()


def trial_config(config: Config, seed: int, definition: Definition) -> Config:
    """The configuration as a trial trains it."""
    own = {"reproducibility": {"seed": seed}, "training": {"num_threads": definition.num_threads}}
    mapping = merged(merged(config_to_mapping(config), TRIAL_SETTINGS), own)
    return config_from_mapping(mapping, "the trial")


def outcome_of(document: Mapping[str, Any], definition: Definition) -> Outcome:
    """What metrics.json says of a training that has ended, or was given up."""
    run, best = document["run"], document["best"]
    value = best[definition.metric] if best else None
    measures = {key: best[key] for key in MEASURES if best[key] is not None} if best else {}
    if best:
        measures |= {"best_epoch": best["epoch"], "epochs": len(document["epochs"])}
    state = "diverged" if value is None else "pruned" if run["status"] == "interrupted" else "complete"
    return Outcome(
        state=state,
        value=value,
        measures=measures,
        curve=best_so_far(document["epochs"], definition),
        started_at=run["started_at"],
        finished_at=run["finished_at"],
        duration_s=run["duration_s"],
        message="the validation loss was never a finite number" if value is None else None,
    )


def best_so_far(epochs: Sequence[Mapping[str, Any]], definition: Definition) -> list[float]:
    """The best score up to each epoch, the higher the better; epochs before the first score are left out."""
    curve: list[float] = []
    for epoch in epochs:
        value = epoch[definition.metric]
        if value is not None or curve:
            score = -float("inf") if value is None else definition.sign * value
            curve.append(max(score, curve[-1]) if curve else score)
    return curve


class Pruning:
    """The median rule: a trial is given up where its best score is worse than the median of its rivals' at that epoch.

    It looks at trials that the ledger shows to every worker alike, so that it decides the same everywhere. Source:
    Golovin et al. 2017, "Google Vizier", doi:10.1145/3097983.3098043, section 3.2.2.
    """

    def __init__(self, definition: Definition, rivals: Sequence[Curve]) -> None:
        self._definition = definition
        self._rivals = [curve for curve in rivals if curve]

    def gives_up(self, epochs: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a training with these epochs is given up."""
        if len(self._rivals) < _CURVES_BEFORE_PRUNING or len(epochs) < self._earliest:
            return False
        curve = best_so_far(epochs, self._definition)
        rivals = [rival[min(len(epochs), len(rival)) - 1] for rival in self._rivals]
        return bool(curve) and curve[-1] < statistics.median(rivals)

    @property
    def _earliest(self) -> int:
        return max(1, round(_EPOCHS_BEFORE_PRUNING * self._definition.epochs))
