"""One run on disk, from an empty folder to the report; interrupted anywhere, the same call brings it to its end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

import torch

from common import atomic
from common.checkpoints import CheckpointStore
from common.config import config_sha256, dump_config
from common.console import Console, format_bytes
from common.device import configure_determinism, select_device, set_num_threads
from common.engine.assembly import build_parts, load_data, start_afresh
from common.engine.claim import claim
from common.engine.finish import finish_run
from common.engine.parts import Parts
from common.engine.recorder import MutedRecorder, RunRecorder
from common.engine.recovery import halve_as_noted, recover
from common.engine.resume import restore_newest
from common.engine.saver import Saver
from common.engine.session import RunRequest, Session, run_description
from common.engine.startup import announce, reasons_for_doubt
from common.engine.trainer import Trainer
from common.engine.training_step import MicroBatchTooLargeError, NonFiniteError
from common.engine.watch import ResourcePolicy, StallPolicy, TrainingWatch
from common.environment import collect_environment, exactness_fingerprint, fingerprint_differences
from common.exits import EnvironmentLackError, RunFailedError, StoppedError, ToolError
from common.gpu_monitor import GpuMonitor
from common.health import measure_data
from common.loading import loading
from common.parallel import World, joined_world
from common.run_folder import RunFolder, RunLock, publish_links
from common.seeding import derive_seed, seed_everything
from common.signals import StopSignals
from common.step_trace import StepTrace
from common.tensorboard_log import TensorBoardLog

# What a run writes besides checkpoints: logs, metrics, pictures, event files.
_SMALL_FILES_BYTES = 20_000_000


def train(request: RunRequest, console: Console, stop: StopSignals) -> dict:
    """Bring the run to its end and return its metrics document.

    Raises:
        ToolError: with the exit code that fits; what was trained is saved in every case.
    """
    with joined_world() as world:
        if not world.is_main:
            console = Console(quiet=True, as_json=True)
            return _train_in(request, RunFolder(request.output_dir), None, console, stop, world)
        with _disk_errors_explained(request), ExitStack() as at_the_end:
            folder, lock, notices = claim(request)
            at_the_end.callback(lock.release)
            at_the_end.callback(console.close)
            folder.checkpoints.mkdir(exist_ok=True)
            console.attach_log(folder.log)
            for notice in notices:
                console.info(notice)
            with _errors_logged(console):
                return _train_in(request, folder, lock, console, stop, world)


def prepare(request: RunRequest, console: Console, world: World, *, write_files: bool = True) -> tuple[Parts, dict]:
    """Seed, load the data and build every part of the training, and tell what they are.

    Returns:
        The parts, and the environment as environment.json has it.
    """
    config = request.loaded.config
    device = _device(config.training.device, world)
    with loading():  # this is what loads torch's compiler
        determinism = configure_determinism(config.reproducibility.deterministic, config.reproducibility.benchmark)
    num_threads = set_num_threads(config.training.num_threads)
    dataset = request.dataset or load_data(config, write_files=write_files and world.is_main)
    seeds = seed_everything(config.reproducibility.seed)
    parts = build_parts(config, dataset, device, world, mode=request.mode)
    if not world.is_alone:
        # The same weights everywhere, but from here on every process draws its own dropout.
        torch.manual_seed(derive_seed(config.reproducibility.seed, "process", world.rank))
    environment = collect_environment(
        str(device),
        request.command_line,
        dataset.fingerprint,
        num_threads,
        config.reproducibility.deterministic,
        config.training.precision,
        compiled=config.training.compile,
        world_size=world.size,
        machine=request.machine,
    )
    announce(console, request, parts, [*seeds, *determinism, f"Threads: {num_threads}"])
    return parts, environment


def _device(name: str, world: World) -> torch.device:
    """The configured device; of several processes on a machine with GPUs, each takes its own."""
    if world.is_alone or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return select_device(name)
    device = select_device(f"cuda:{world.local_rank}")
    torch.cuda.set_device(device)
    return device


def _train_in(
    request: RunRequest, folder: RunFolder, lock: RunLock | None, console: Console, stop: StopSignals, world: World
) -> dict:
    parts, environment = prepare(request, console, world)
    try:
        notices = [*request.loaded.notices, *parts.dataset.notices]
        session = Session(request, folder, lock, console, stop, parts, environment, notices)
        if world.is_main:
            _describe_run(session)
        restore_newest(session)
        halve_as_noted(session)
        progress = parts.state.progress
        if "data" not in progress.signals:
            measured = request.data_signals or measure_data(parts.dataset).as_dict()
            progress.signals = progress.signals | {"data": measured}
        if world.is_main:
            _require_space(session)
            if request.publish:
                for notice in publish_links(folder, request.mode):
                    session.notices.append(notice)
                    console.warning(notice)
        return _run_to_end(session)
    finally:
        parts.close()


def _describe_run(session: Session) -> None:
    """Write config.yaml and environment.json. The latter comes last: it makes the folder's content a run."""
    request, folder = session.request, session.folder
    session.environment["identity"] = {"mode": request.mode, "config_sha256": config_sha256(request.loaded.config)}
    header = [
        f"Configuration of a {request.mode} run, every field as it was in force.",
        f"Source: {request.loaded.source}",
    ]
    # Also when going on: what changes no number, such as the target or the notes, may be another than at the start.
    atomic.write_text(folder.config, dump_config(request.loaded.config, header))
    doubts = reasons_for_doubt(request.loaded.config)
    if folder.environment.exists():
        then = json.loads(folder.environment.read_text(encoding="utf-8"))
        doubts += fingerprint_differences(exactness_fingerprint(then), exactness_fingerprint(session.environment))
    else:
        text = json.dumps(session.environment, indent=1, ensure_ascii=False)
        atomic.write_text(folder.environment, text + "\n")
    for doubt in doubts:
        session.notices.append(f"not exact: {doubt}")
        session.console.warning(f"[REPRODUCIBILITY] not exact: {doubt}")


def _require_space(session: Session) -> None:
    """Raises EnvironmentLackError where the disk has no room for what the run will write."""
    parts, folder = session.parts, session.folder
    state_bytes = sum(tensor.nbytes for tensor in parts.state.model.state_dict().values())
    # Weights, and at most two moments of them in the optimizer, and an average.
    checkpoint_bytes = state_bytes * (4 if parts.state.ema is not None else 3)
    there = sum(CheckpointStore(folder.checkpoints).sizes().values())
    most = checkpoint_bytes * parts.plan.most_files(parts.settings.epochs)
    needed = max(most - there, checkpoint_bytes) + _SMALL_FILES_BYTES
    free = shutil.disk_usage(folder.path).free
    if free < needed:
        raise EnvironmentLackError(
            f"the run needs up to {format_bytes(needed)}, and {format_bytes(free)} are free",
            path=folder.path,
            hint="make room, keep fewer checkpoints (checkpointing.keep_last_n), or choose another --output-dir",
        )


def _run_to_end(session: Session) -> dict:
    parts = session.parts
    if not parts.world.is_main:
        _train_loop(session, MutedRecorder())
        return finish_run(session, None)
    config, progress = session.request.loaded.config, parts.state.progress
    left = parts.steps_per_epoch * (config.training.epochs - progress.completed_epochs) - progress.batch
    monitor = GpuMonitor(parts.device.index if parts.device.type == "cuda" else None)
    with (
        _event_files(session) as tensorboard,
        monitor,
        session.console.progress(max(left, 0), "Training") as bar,
    ):
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
        _train_loop(session, recorder)
    if parts.state.progress.finished is None:
        return recorder.write_metrics(parts.state.progress, "interrupted")
    session.folder.memory_note.unlink(missing_ok=True)
    return finish_run(session, recorder)


def _event_files(session: Session):
    if not session.request.loaded.config.logging.tensorboard:
        return nullcontext()
    progress = session.parts.state.progress
    after = progress.completed_epochs if session.resumed else None
    return TensorBoardLog(session.folder.tensorboard, resume_after_epoch=after)


def _train_loop(session: Session, recorder: RunRecorder | MutedRecorder) -> None:
    """Train to the end, recovering from what can be recovered from."""
    recorder.write_metrics(session.parts.state.progress, "running")
    try:
        while (trouble := _train_until_trouble(session, recorder)) is not None:
            recover(session, trouble)
    except StoppedError:
        progress = session.parts.state.progress
        recorder.write_metrics(progress, "interrupted")
        session.console.info(f"Stopped in epoch {progress.epoch} after step {progress.step}; everything is saved")
        raise
    except RunFailedError:
        recorder.write_metrics(session.parts.state.progress, "failed")
        raise


def _train_until_trouble(
    session: Session, recorder: RunRecorder | MutedRecorder
) -> NonFiniteError | MicroBatchTooLargeError | None:
    """Train to the end (None), or until a step fails."""
    parts, is_main = session.parts, session.parts.world.is_main
    store = CheckpointStore(session.folder.checkpoints) if is_main else None
    trace = StepTrace(session.folder.trace) if is_main else None
    trainer = Trainer(
        parts,
        Saver(parts, store, trace, recorder.save_failed, recorder.publish),
        recorder,
        _watch(session),
        session.stop,
        stop_after_epochs=session.request.stop_after_epochs,
        give_up=session.request.give_up,
    )
    try:
        trainer.run()
    except (NonFiniteError, MicroBatchTooLargeError) as trouble:
        # Without its traceback, whose frames hold on to the tensors of the step.
        return trouble.with_traceback(None)
    return None


def _watch(session: Session) -> TrainingWatch:
    config, parts = session.request.loaded.config, session.parts
    stall, resources = config.diagnostics.convergence_stall, config.diagnostics.resource_inefficiency
    return TrainingWatch(
        parts,
        session.console,
        StallPolicy(stall.reaction, stall.patience_epochs, stall.loss_threshold),
        ResourcePolicy(resources.reaction, resources.gpu_util_pct, resources.patience_epochs),
        partial(start_afresh, config, parts),
        num_workers=config.data.num_workers,
    )


@contextmanager
def _errors_logged(console: Console) -> Iterator[None]:
    """Why a run ended goes to the log here; the screen gets it from whoever ends the process."""
    try:
        yield
    except ToolError as error:
        console.detail(f"Ended by an error: {error}")
        raise


@contextmanager
def _disk_errors_explained(request: RunRequest) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentLackError(
            f"cannot be written ({error.strerror or error})",
            path=error.filename or request.output_dir,
            hint="make room or give write permission, then run the same command again to go on",
        ) from error
