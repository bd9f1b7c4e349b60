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
    folder = open_folder(request.output_dir)
    lock = RunLock(folder).acquire()
    try:
        obstacle = obstacle_to_resuming(request, folder)
        if request.must_resume and obstacle is not None:
            raise InputFileError(
                f"cannot be resumed: {obstacle}",
                path=folder.path,
                field="--resume",
                hint="leave --resume out to train anew",
            )
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


def obstacle_to_resuming(request: RunRequest, folder: RunFolder) -> str | None:
    """Why the run in the folder cannot be gone on with, or None if it can."""
    try:
        run = json.loads(folder.environment.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError):
        return "there is no unfinished run"
    if run["mode"] != request.mode:
        return f"it is one in {run['mode']} mode"
    if run["config_sha256"] != config_sha256(request.loaded.config):
        return "it has another configuration"
    try:
        status = read_metrics(folder.metrics)["run"]["status"]
    except InputFileError:
        return None  # never written, or damaged: made again from the checkpoints
    return f"it is finished: {status}" if status in FINISHED_STATUSES else None
