"""The command that a run was started with, and the ones to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from common.comparison.runs import Run

TRAIN = "training_orchestrator.py"
# Flags whose value belongs to what is trained; all others are about where, how loud, and which seed.
KEPT_FLAGS = ("--config", "--mode", "--set", "--epochs", "--device")


def config_file(run: Run) -> Path | None:
    """The file that the run was started with, where it still exists here."""
    given = _flag(run, "--config")
    if given is None:
        return None
    started_in = run.environment.get("working_directory")
    candidates = [Path(given), *([Path(started_in) / given] if isinstance(started_in, str) else [])]
    return next((path for path in candidates if path.is_file()), None)


def train_again(run: Run, *more: str, mode: str | None = None, drop: Sequence[str] = ()) -> str:
    """A command that trains what ``run`` trained, with other flags.

    Args:
        more: flags and values that are put at the end.
        mode: instead of the run's own.
        drop: flags of the old command that are left out.
    """
    words = ["python", TRAIN]
    mode = mode or run.mode
    if config_file(run) is None:
        return shlex.join([*words, "--config", str(run.shown_folder / "config.yaml"), "--mode", mode, *more])
    for flag, value in _kept(run):
        if flag not in ("--mode", *drop):
            words += [flag, value]
    return shlex.join([*words, "--mode", mode, *more])


def _flag(run: Run, name: str) -> str | None:
    return next((value for flag, value in _kept(run) if flag == name), None)


def _kept(run: Run) -> list[tuple[str, str]]:
    """``KEPT_FLAGS`` of the command line, with their values, in order."""
    words = run.environment.get("command_line")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return []
    found = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        if flag in KEPT_FLAGS:
            found.append((flag, value if equals else following))
    return found
