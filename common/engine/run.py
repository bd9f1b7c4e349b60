"""One run on disk, from an empty folder to the report; interrupted anywhere, the same call brings it to its end."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import torch

from common import atomic
from common.checkpoints import CheckpointStore, load_checkpoint
from common.config import config_from_mapping, config_sha256, dump_config
from common.console import Console
from common.device import configure_determinism, select_device, set_num_threads
from common.engine.assembly import Parts, build_parts, load_data, steps_per_epoch
from common.engine.finish import finish_run
from common.engine.recorder import RunRecorder, utc_now
from common.engine.session import RunRequest, Session, run_description
from common.engine.startup import announce
from common.engine.trainer import Trainer
from common.engine.training_step import NonFiniteError
from common.environment import collect_environment, exactness_fingerprint, fingerprint_differences
from common.exits import (
    CheckFailedError,
    EnvironmentLackError,
    InputFileError,
    RunFailedError,
    StoppedError,
    ToolError,
)
from common.gpu_monitor import GpuMonitor
from common.manifest import iterate_sound_checkpoints
from common.metrics_file import FINISHED_STATUSES, read_metrics
from common.run_folder import RunFolder, RunLock, move_aside, open_folder, publish_links
from common.seeding import seed_everything
from common.signals import StopSignals
from common.tensorboard_log import TensorBoardLog


def train(request: RunRequest, console: Console, stop: StopSignals) -> dict:
    """Bring the run to its end and return its metrics document.

    Raises:
        ToolError: with the exit code that fits; what was trained is saved in every case.
    """
    try:
        folder, lock, notices = _claim(request)
        with contextlib.ExitStack() as closing:
            closing.callback(lock.release)
            closing.callback(console.close)
            folder.checkpoints.mkdir(exist_ok=True)
            console.attach_log(folder.log)
            for notice in notices:
                console.info(notice)
            return _train_logged(request, folder, lock, console, stop)
    except OSError as error:
        raise EnvironmentLackError(
            f"could not be written ({error.strerror})",
            path=error.filename or request.output_dir,
            hint="make room or give write permission, then run the same command again to go on",
        ) from error


def prepare(request: RunRequest, console: Console, *, write_files: bool = True) -> tuple[Parts, dict]:
    """Seed, load the data and build every part of the training, and tell what they are.

    Returns:
        The parts, and the environment as environment.json has it.
    """
    config = request.loaded.config
    device = select_device(config.training.device)
    determinism = configure_determinism(config.reproducibility.deterministic, config.reproducibility.benchmark)
    num_threads = set_num_threads(config.training.num_threads)
    dataset = load_data(config, write_files=write_files)
    seeds = seed_everything(config.reproducibility.seed)
    parts = build_parts(config, dataset, device, mode=request.mode)
    environment = collect_environment(
        str(device),
        request.command_line,
        dataset.fingerprint,
        num_threads,
        config.reproducibility.deterministic,
        config.training.precision,
        compiled=config.training.compile,
    )
    announce(console, request, parts, [*seeds, *determinism, f"Threads: {num_threads}"])
    return parts, environment


def _train_logged(request: RunRequest, folder: RunFolder, lock: RunLock, console: Console, stop: StopSignals) -> dict:
    try:
        return _train_in(request, folder, lock, console, stop)
    except ToolError as error:
        console.detail(f"Ended by an error: {error}")  # the screen gets it from whoever ends the process
        raise


def _train_in(request: RunRequest, folder: RunFolder, lock: RunLock, console: Console, stop: StopSignals) -> dict:
    parts, environment = prepare(request, console)
    try:
        notices = [*request.loaded.notices, *parts.dataset.notices]
        session = Session(request, folder, lock, console, stop, parts, environment, notices)
        _describe_run(session)
        resumed_from = _resume(session)
        for notice in publish_links(folder, request.mode):
            session.notices.append(notice)
            console.warning(notice)
        return _run_to_end(session, resumed_from)
    finally:
        parts.close()


def _claim(request: RunRequest) -> tuple[RunFolder, RunLock, list[str]]:
    """The locked folder to train in: that of the unfinished run to go on with, or an empty one."""
    if request.must_resume and not RunFolder(request.output_dir).holds_run():
        raise _not_resumable(request, "there is no unfinished run")
    folder = open_folder(request.output_dir)
    lock = RunLock(folder).acquire()
    try:
        obstacle = _obstacle(request, folder)
        if obstacle is None:
            folder.remove_leftovers()
            return folder, lock, []
        if request.must_resume:
            raise _not_resumable(request, obstacle)
        if not folder.environment.exists():
            return folder, lock, []
        kept = move_aside(folder)
    except BaseException:
        lock.release()
        raise
    lock.release()
    folder = open_folder(request.output_dir)
    return folder, RunLock(folder).acquire(), [f"The run that was here ({obstacle}) was moved to {kept}"]


def _not_resumable(request: RunRequest, reason: str) -> InputFileError:
    return InputFileError(f"cannot be resumed: {reason}", path=request.output_dir, field="--resume",
                          hint="leave --resume out to train anew")  # fmt: skip


def _obstacle(request: RunRequest, folder: RunFolder) -> str | None:
    """Why the run in the folder cannot be gone on with, or None if it can."""
    try:
        identity = json.loads(folder.environment.read_text(encoding="utf-8"))["identity"]
        mode, sha256 = identity["mode"], identity["config_sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "there is no unfinished run"
    if mode != request.mode:
        return f"it is one in {mode} mode"
    if sha256 != config_sha256(request.loaded.config):
        return "it has another configuration"
    try:
        status = read_metrics(folder.metrics)["run"].get("status")
    except InputFileError:
        return None  # never written, or damaged: made again from the checkpoints
    return f"it is finished: {status}" if status in FINISHED_STATUSES else None


def _describe_run(session: Session) -> None:
    """Write config.yaml and environment.json. The latter comes last: it makes the folder's content a run."""
    request, folder = session.request, session.folder
    session.environment["identity"] = {"mode": request.mode, "config_sha256": config_sha256(request.loaded.config)}
    header = [f"Configuration of a {request.mode} run, every field as it was in force.",
              f"Source: {request.loaded.source}"]  # fmt: skip
    # Also when going on: what changes no number, such as the target or the notes, may be another than at the start.
    atomic.write_text(folder.config, dump_config(request.loaded.config, header))
    if folder.environment.exists():
        then = json.loads(folder.environment.read_text(encoding="utf-8"))
        for difference in fingerprint_differences(
            exactness_fingerprint(then), exactness_fingerprint(session.environment)
        ):
            session.notices.append(f"not exact: {difference}")
            session.console.warning(f"not exact: this run was begun elsewhere or otherwise: {difference}")
        return
    atomic.write_text(folder.environment, json.dumps(session.environment, indent=1, ensure_ascii=False) + "\n")


def _resume(session: Session) -> Path | None:
    """Restore the newest sound checkpoint from which the run can end as if never stopped."""
    store = CheckpointStore(session.folder.checkpoints)
    for path, reason in store.set_aside_damaged():
        session.notices.append(f"A damaged checkpoint was set aside as {path.name} ({reason})")
        session.console.warning(session.notices[-1])
    state, plan = session.parts.state, session.parts.plan
    for path in iterate_sound_checkpoints(session.folder.checkpoints):
        checkpoint = _own_checkpoint(session, path)
        if checkpoint is None:
            continue
        best = checkpoint["progress"]["best"]
        at_best = best is not None and best["epoch"] == checkpoint["epoch"] and checkpoint["progress"]["batch"] == 0
        # Where the best epoch's own file was lost, going on would end without it; an older checkpoint makes it again.
        if best is None or not plan.save_best or at_best or store.epoch_of(plan.best_name) == best["epoch"]:
            state.restore(checkpoint)
            where = f"epoch {state.progress.epoch}, step {state.progress.step}"
            session.console.info(f"Resuming at {where} from {path.name}")
            return path
    state.progress.started_at = utc_now()
    return None


def _own_checkpoint(session: Session, path: Path) -> dict | None:
    """The checkpoint in ``path`` if this run wrote it; a file that came from elsewhere is told of and left alone."""
    try:
        checkpoint = load_checkpoint(path)
        config = config_from_mapping(checkpoint.get("config"), path)
        reason = "it is one of another configuration"
    except (InputFileError, CheckFailedError) as error:
        config, reason = None, error.message
    if config is not None and config_sha256(config) == config_sha256(session.request.loaded.config):
        return checkpoint
    session.notices.append(f"{path.name} was left alone: {reason}")
    session.console.warning(session.notices[-1])
    return None


def _run_to_end(session: Session, resumed_from: Path | None) -> dict:
    config, parts, progress = session.request.loaded.config, session.parts, session.parts.state.progress
    steps = steps_per_epoch(config, parts.dataset)
    tensorboard = None
    if config.logging.tensorboard:
        after = progress.completed_epochs if resumed_from else None
        tensorboard = TensorBoardLog(session.folder.tensorboard, resume_after_epoch=after)
    left = steps * (config.training.epochs - progress.completed_epochs) - progress.batch
    monitor = GpuMonitor(parts.device.index if parts.device.type == "cuda" else None)
    with monitor, session.console.progress(max(left, 0), "Training") as bar:
        recorder = RunRecorder(
            session.folder,
            session.lock,
            session.console,
            bar,
            monitor,
            tensorboard,
            run_description(session),
            epochs=config.training.epochs,
            log_every_n_steps=config.logging.log_every_n_steps,
        )
        try:
            _train_loop(session, recorder)
        finally:
            if tensorboard is not None:
                tensorboard.close()
    return finish_run(session, recorder)


def _train_loop(session: Session, recorder: RunRecorder) -> None:
    parts, progress = session.parts, session.parts.state.progress
    trainer = Trainer(
        parts.state,
        parts.step,
        parts.train_source,
        parts.dataset.splits["train"].num_samples,
        parts.train_sample,
        parts.validation,
        parts.settings,
        CheckpointStore(session.folder.checkpoints),
        parts.plan,
        recorder,
        session.stop,
        parts.autocast,
    )
    try:
        recorder.write_metrics(progress, "running")
        trainer.run()
    except StoppedError:
        recorder.write_metrics(progress, "interrupted")
        session.console.info(f"Stopped in epoch {progress.epoch} after step {progress.step}; everything is saved")
        raise
    except NonFiniteError as error:
        recorder.write_metrics(progress, "failed")
        names = [parts.dataset.splits["train"].sample_name(index) for index in error.indices.tolist()[:5]]
        raise RunFailedError(
            f"{error} in epoch {progress.epoch}, step {progress.step + 1}, on a batch with {', '.join(names)}, ...",
            path=session.folder.path,
            hint="lower optimizer.learning_rate or set optimizer.gradient_clip_max_norm, and look at these samples",
        ) from error
    except torch.OutOfMemoryError as error:
        recorder.write_metrics(progress, "failed")
        raise RunFailedError("out of memory on the GPU", path=session.folder.path, field="training.batch_size",
                             hint="halve it and double training.accumulate") from error  # fmt: skip
