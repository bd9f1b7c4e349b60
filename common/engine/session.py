"""What one process that works on a run has at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from common.config import LoadedConfig, config_sha256
from common.console import Console
from common.data import Dataset
from common.engine.parts import Parts
from common.run_folder import RunFolder, RunLock
from common.signals import StopSignals


@dataclass(frozen=True)
class RunRequest:
    """What to train and where to put it.

    ``publish`` is False for a run that the documented links of the working directory should not lead to.
    ``stop_after_epochs`` ends the training before its last epoch, on a schedule made for all of them, and ``give_up``
    where it says so of the epochs so far: it must depend on them alone.

    A process that trains many runs hands over what it has: the ``dataset`` that the config names, ``data_signals`` as
    an earlier run on it measured them, and ``machine`` as ``describe_machine`` gave it. ``reports`` is False where
    nobody will look at the run: only its numbers and checkpoints are written, and nothing is tested.
    """

    loaded: LoadedConfig
    mode: str
    output_dir: Path
    command_line: list[str]
    must_resume: bool = False
    publish: bool = True
    stop_after_epochs: int | None = None
    give_up: Callable[[Sequence[Mapping]], bool] | None = None
    dataset: Dataset | None = None
    data_signals: Mapping | None = None
    machine: Mapping | None = None
    reports: bool = True


@dataclass
class Session:
    """One process working on a run: its parts and who it talks to."""

    request: RunRequest
    folder: RunFolder
    lock: RunLock | None
    console: Console
    stop: StopSignals
    parts: Parts
    environment: dict
    notices: list[str]
    resumed: bool = False


def run_description(session: Session) -> dict:
    """The ``run`` object of metrics.json but for its status and times."""
    config, dataset = session.request.loaded.config, session.parts.dataset
    sha256 = config_sha256(config)
    sizes = {f"num_{name}": dataset.splits[name].num_samples if name in dataset.splits else 0
             for name in ("train", "val", "test")}  # fmt: skip
    device = session.parts.device
    return {
        "id": f"{session.request.mode}-{sha256[:12]}",
        "mode": session.request.mode,
        "seed": config.reproducibility.seed,
        "config_sha256": sha256,
        "device": f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device),
        "num_parameters": session.parts.num_parameters,
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            **sizes,
            "class_names": list(dataset.class_names),
        },
    }
