"""Finding where a run can go on so that it ends as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from common.checkpoints import CheckpointStore, load_checkpoint
from common.config import config_from_mapping, config_sha256
from common.engine.progress import Progress
from common.engine.recorder import utc_now
from common.engine.saver import is_restart_point
from common.engine.session import Session
from common.exits import CheckFailedError, InputFileError, RunFailedError
from common.manifest import checkpoint_files, iterate_sound_checkpoints


def restore_newest(session: Session) -> None:
    """Restore the newest sound checkpoint from which the run can end well; with none, the run is at its start.

    Damaged files are set aside and named. Rank 0 reads; the other processes get what it read.
    """
    _restore(session, _find(session) if session.parts.world.is_main else None)


def restore_restart_point(session: Session) -> None:
    """After a step that failed: as ``restore_newest``, but where there is one, a checkpoint that every run saves."""
    checkpoint = None
    if session.parts.world.is_main:
        checkpoint = _find(session, restart_points_only=True) or _find(session)
    _restore(session, checkpoint)


def _restore(session: Session, found: dict | None) -> None:
    world, state = session.parts.world, session.parts.state
    checkpoint = world.from_main(found)
    if checkpoint is None:
        if state.progress.step:
            raise RunFailedError(
                "there is no checkpoint to go back to", path=session.folder.path, field="checkpointing.save_last",
                hint="set it to true",
            )  # fmt: skip
        state.progress.started_at = utc_now()
        return
    state.restore(checkpoint, world)
    session.resumed = True
    session.console.info(f"Resuming at epoch {state.progress.epoch}, step {state.progress.step}")


def _find(session: Session, *, restart_points_only: bool = False) -> dict | None:
    every_n_steps = session.parts.settings.save_every_n_steps
    store = CheckpointStore(session.folder.checkpoints)
    for path, reason in store.set_aside_damaged():
        session.notices.append(f"A damaged checkpoint was set aside as {path.name} ({reason})")
        session.console.warning(session.notices[-1])
    _list_again(session, store)
    for path in iterate_sound_checkpoints(session.folder.checkpoints):
        checkpoint = _own_checkpoint(session, path)
        if checkpoint is None or not _leads_to_the_same_end(session, store, checkpoint):
            continue
        if not restart_points_only or is_restart_point(Progress.from_dict(checkpoint["progress"]), every_n_steps):
            return checkpoint
    return None


def _list_again(session: Session, store: CheckpointStore) -> None:
    """Enter the run's checkpoints into a manifest that was lost, so that they are used, kept and pruned as before."""
    for path in checkpoint_files(store.folder):
        if session.parts.plan.writes(path.name) and not store.lists(path.name):
            checkpoint = _own_checkpoint(session, path)
            if checkpoint is not None:
                store.adopt(path.name, epoch=checkpoint["epoch"], step=checkpoint["step"])


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


def _leads_to_the_same_end(session: Session, store: CheckpointStore, checkpoint: Mapping) -> bool:
    """Whether the best epoch that the checkpoint refers to is still there, or is the checkpoint itself.

    Where its file was lost, going on would end without it; an older checkpoint makes it again.
    """
    plan, progress = session.parts.plan, Progress.from_dict(checkpoint["progress"])
    best = progress.best
    if best is None or not plan.save_best or store.epoch_of(plan.best_name) == best["epoch"]:
        return True
    return best["epoch"] == progress.completed_epochs and progress.batch == 0
