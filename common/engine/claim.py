"""Whether a run goes on in the folder it is given, begins there, or has to move an older one aside first."""

from __future__ import annotations

import json

from common.config import config_sha256
from common.engine.session import RunRequest
from common.exits import InputFileError
from common.metrics_file import FINISHED_STATUSES, read_metrics
from common.run_folder import RunFolder, RunLock, move_aside, open_folder


def claim(request: RunRequest) -> tuple[RunFolder, RunLock, list[str]]:
    """The locked folder to train in, holding the unfinished run to go on with or nothing; and notices for people.

    Raises:
        UsageError: another process is writing there, or the folder holds something that is no run.
        InputFileError: ``must_resume``, and there is nothing to go on with.
    """
    if request.must_resume and not RunFolder(request.output_dir).holds_run():
        raise _not_resumable(request, "there is no unfinished run")
    folder = open_folder(request.output_dir)
    lock = RunLock(folder).acquire()
    try:
        obstacle = obstacle_to_resuming(request, folder)
        if request.must_resume and obstacle is not None:
            raise _not_resumable(request, obstacle)
        if obstacle is None or not folder.environment.exists():
            folder.remove_leftovers()
            return folder, lock, []
        kept = move_aside(folder)
    except BaseException:
        lock.release()
        raise
    lock.release()
    folder = open_folder(request.output_dir)
    return folder, RunLock(folder).acquire(), [f"The run that was here ({obstacle}) was moved to {kept}"]


def _not_resumable(request: RunRequest, reason: str) -> InputFileError:
    return InputFileError(
        f"cannot be resumed: {reason}",
        path=request.output_dir,
        field="--resume",
        hint="leave --resume out to train anew",
    )


def finished_metrics(request: RunRequest) -> dict | None:
    """The metrics of this very run where it is already finished, else None."""
    folder = RunFolder(request.output_dir)
    if _identity_obstacle(request, folder) is not None:
        return None
    try:
        metrics = read_metrics(folder.metrics)
    except InputFileError:
        return None
    return metrics if metrics["run"].get("status") in FINISHED_STATUSES else None


def obstacle_to_resuming(request: RunRequest, folder: RunFolder) -> str | None:
    """Why the run in the folder cannot be gone on with, or None if it can."""
    obstacle = _identity_obstacle(request, folder)
    if obstacle is not None:
        return obstacle
    finished = finished_metrics(request)  # None too where metrics.json is damaged: the checkpoints have it all
    return f"it is finished: {finished['run']['status']}" if finished else None


def _identity_obstacle(request: RunRequest, folder: RunFolder) -> str | None:
    """Why what is in the folder is another run than the one asked for, or None if it is that run."""
    try:
        run = json.loads(folder.environment.read_text(encoding="utf-8"))["identity"]
        mode, sha256 = run["mode"], run["config_sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "there is no unfinished run"
    if mode != request.mode:
        return f"it is one in {mode} mode"
    return None if sha256 == config_sha256(request.loaded.config) else "it has another configuration"
