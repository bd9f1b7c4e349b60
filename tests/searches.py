"""Tiny searches for tests: a space and a config of trainings that take a tenth of a second, run, and what they left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import hyperparam_search
from tests.training_runs import ROOT, _torch_settings_kept, write_config

SPACE: dict[str, Any] = {"learning_rate": [0.001, 0.003, 0.01, 0.03], "dropout": [0.0, 0.3], "batch_size": [16, 32]}
# What tells when and how something was done, not what came of it.
HOW = ("attempts", "started_at", "finished_at", "duration_s")


def write_space(path: str | Path = "space.yaml", space: Mapping[str, Any] | None = None) -> Path:
    """A search space as a file."""
    path = Path(path)
    path.write_text(yaml.safe_dump({"search_space": dict(space or SPACE)}, sort_keys=False), encoding="utf-8")
    return path


def search_command(
    *arguments: object, output: str | Path = "out", space: Mapping[str, Any] | None = None, **changes: Any
) -> list[str]:
    """The arguments of a search in the working directory, whose files are written: one epoch on the wines."""
    config = write_config(**{"training__epochs": 1, **changes})
    paths = ["--config", config, "--search-space", write_space(space=space), "--output", output]
    return [str(argument) for argument in (*paths, *arguments)]


def run_search(*arguments: object, expect: int = 0, **options: Any) -> Path:
    """``python hyperparam_search.py`` in this process; the output folder. Any other exit code fails the test."""
    with _torch_settings_kept():
        code = hyperparam_search.main(search_command(*arguments, **options))
    assert code == expect, f"exit code {code}, not {expect}"
    return Path(options.get("output", "out"))


def start_search(folder: Path, arguments: list[str], **environment: str) -> subprocess.Popen:
    """The same in a process of its own, in a session of its own, with what it says in pipes."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "hyperparam_search.py"), *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def document_of(folder: Path) -> dict[str, Any]:
    """trials.json."""
    return json.loads((folder / "trials.json").read_text(encoding="utf-8"))


def trials_of(folder: Path) -> list[dict[str, Any]]:
    """The trials of trials.json without what tells how they were done."""
    return [{key: value for key, value in trial.items() if key not in HOW} for trial in document_of(folder)["trials"]]


def outcome_of(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int | None]:
    """All that a search found: trials, confirmations and the winner."""
    document = document_of(folder)
    return trials_of(folder), document["confirmations"], document["study"]["winner"]
