"""Training one run of the benchmark, in this process, into a folder of its own; and mending it as a diagnosis says."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from benchmarks.faults.cases import Changes, Fault, Healthy, Setting, mapping_of
from benchmarks.faults.injected import NETWORK, Injection, LoopFault, in_force
from common.config import load_config
from common.console import Console
from common.diagnosis.diagnosing import Diagnosis, diagnose
from common.diagnosis.evidence import RunEvidence
from common.diagnosis.inputs import read_evidence
from common.diagnosis.next_config import next_config
from common.engine.run import train
from common.engine.session import RunRequest
from common.environment import installed_packages
from common.exits import RunFailedError
from common.guides import Guide
from common.signals import StopSignals


@dataclass(frozen=True)
class Plan:
    """What is to be trained: the config, and what is wrong beside it."""

    mapping: dict[str, Any]
    injection: Injection
    loop: LoopFault | None = None

    @property
    def key(self) -> str:
        """Tells whether a folder holds this very training."""
        wrong = [getattr(fault, "__qualname__", None) for fault in (self.injection.data, self.injection.network)]
        loop = getattr(self.loop, "__name__", None)
        return json.dumps([self.mapping, self.injection.source, self.injection.architecture, wrong, loop])


def plan_of(setting: Setting, case: Fault | Healthy, seed: int) -> Plan:
    """The training of a case. Changes of one architecture take the place of its other changes and its network."""
    changes: Changes = case.changes
    network = None
    if isinstance(case, Fault):
        network = case.network
        if setting.architecture in case.changes_of:
            changes, network = case.changes_of[setting.architecture], None
    if network is not None:
        changes = {**changes, "model.architecture": NETWORK}
    injection = Injection(setting.source, setting.architecture, seed, case.data, network)
    return Plan(mapping_of(setting, changes, seed), injection, case.loop)


def train_run(plan: Plan, folder: Path) -> None:
    """Train into ``folder``; the same training that is there and finished is kept.

    A training that fails, as some must, leaves its folder as it is.
    """
    key = folder.with_name(f"{folder.name}.json")
    if key.exists() and key.read_text(encoding="utf-8") == plan.key:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.with_name(f"{folder.name}.yaml")
    config.write_text(yaml.safe_dump(plan.mapping, sort_keys=False), encoding="utf-8")
    request = RunRequest(load_config(config, mode="baseline"), "baseline", folder, ["benchmark"], publish=False)
    console = Console(quiet=True, as_json=True)
    with (
        in_force(plan.injection, plan.loop),
        _without_what_nobody_reads(),
        StopSignals() as stop,
        contextlib.suppress(RunFailedError),
    ):
        train(request, console, stop)
    for checkpoint in (folder / "checkpoints").glob("*.pt"):  # most of the bytes, and no diagnosis opens them
        checkpoint.unlink()
    key.write_text(plan.key, encoding="utf-8")


def measured_test_acc(folder: Path) -> float:
    """Test accuracy of the best epoch, percent; 0 where the run did not get that far."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return float((metrics.get("test") or {}).get("test_acc") or 0.0)


def mended(plan: Plan, run: RunEvidence, diagnosis: Diagnosis, fault: Fault, guides: dict[str, Guide]) -> Plan:
    """The training as the diagnosis says it should be: its next config, and its instruction carried out by hand.

    An instruction that is not the fault's own finds nothing to put right, as in life.
    """
    assert diagnosis.primary is not None and run.config is not None
    mapping = next_config(run, run.config, diagnosis, guides).config.model_dump(mode="json", exclude_unset=True)
    by_hand = diagnosis.primary.cause.by_hand
    if by_hand is None or by_hand.id != fault.by_hand:
        return replace(plan, mapping=mapping)
    network = fault.network_by_hand
    if network is None and mapping["model"]["architecture"] == NETWORK:
        mapping["model"]["architecture"] = plan.injection.architecture
    return Plan(mapping, replace(plan.injection, data=None, network=network), None)


def repair(plan: Plan, folder: Path, fault: Fault, guides: dict[str, Guide], attempts: int = 3) -> Path:
    """Diagnose, mend, train again, up to ``attempts`` times or until nothing is wrong; the last run's folder."""
    for attempt in range(1, attempts + 1):
        run = read_evidence(folder)
        diagnosis = diagnose(run)
        if diagnosis.primary is None:
            return folder
        plan = mended(plan, run, diagnosis, fault, guides)
        folder = folder.with_name(f"{folder.name.split('_attempt')[0]}_attempt_{attempt}")
        train_run(plan, folder)
    return folder


@contextlib.contextmanager
def _without_what_nobody_reads() -> Iterator[None]:
    """Pictures of a thousand runs, and the list of packages anew for each, take longer than some of the trainings."""
    with (
        mock.patch("common.engine.finish.plot_learning_curves"),
        mock.patch("common.engine.finish.plot_confusion_matrix"),
        mock.patch("common.environment.installed_packages", _packages_listed_once),
    ):
        yield


_packages_listed_once = functools.cache(installed_packages)
