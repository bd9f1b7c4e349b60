"""Getting a training going again after a step that failed: too little memory, or a number that is not finite."""

from __future__ import annotations

import copy
import gc

import torch

from common.console import Console
from common.engine import memory_note
from common.engine.parts import Parts
from common.engine.progress import Progress, Reactions
from common.engine.reaction_log import tell
from common.engine.resume import restore_restart_point
from common.engine.session import Session
from common.engine.training_step import MicroBatchTooLargeError, NonFiniteError
from common.exits import RunFailedError

GUIDE = "nan_loss"
RATE_CUT = 0.1
CLIP_MAX_NORM = 1.0
# Inputs are normalised: a value this many standard deviations out is no measurement.
ABSURD_INPUT = 1e6
_NUM_NAMED = 10


def recover(session: Session, trouble: MicroBatchTooLargeError | NonFiniteError) -> None:
    """Go back to the newest valid checkpoint, changed so that the trouble need not come back.

    Raises:
        RunFailedError: every remedy was tried, or none is allowed.
    """
    if isinstance(trouble, MicroBatchTooLargeError):
        _halve_micro_batch(session)
    else:
        _recover_from_non_finite(session, trouble)
    progress = session.parts.state.progress
    session.console.info(f"[RESTART] from epoch {progress.epoch}, step {progress.step}")


def _halve_micro_batch(session: Session) -> None:
    """Half the samples at once from now on, in as many steps as before.

    Of several processes only this one knows, and the others wait for it in the middle of the step: it leaves a note and
    ends, and they end with it. Started again, by torchrun or by the user, they do as the note says.
    """
    parts, progress = session.parts, session.parts.state.progress
    tried = _samples_at_once(parts)
    if tried <= parts.world.size:
        raise RunFailedError(
            f"out of memory with {tried} samples at once",
            path=session.folder.path,
            field="training.batch_size",
            hint="take a smaller model or images, or halve batch_size and double accumulate",
        )
    if not parts.world.is_alone:
        memory_note.write(session.folder, memory_note.MemoryNote(tried, progress.epoch, progress.step))
        raise RunFailedError(
            f"out of memory with {tried} samples at once in {parts.world.size} processes",
            path=session.folder.path,
            hint=f"run the same command again: it goes on with {tried // 2} at once (torchrun --max-restarts does so "
            "by itself)",
        )
    parts.step.release_memory()
    gc.collect()
    if parts.device.type == "cuda":
        torch.cuda.empty_cache()
    _go_on_with_half(session, memory_note.MemoryNote(tried, progress.epoch, progress.step))


def halve_as_noted(session: Session) -> None:
    """Do what a process that ran out of memory left a note about, where that is not done yet. A collective call."""
    parts = session.parts
    note = parts.world.from_main(memory_note.read(session.folder) if parts.world.is_main else None)
    if note is not None and _samples_at_once(parts) >= note.samples:
        _go_on_with_half(session, note)


def _samples_at_once(parts: Parts) -> int:
    return parts.state.progress.micro_batch_size or parts.settings.batch_size


def _go_on_with_half(session: Session, note: memory_note.MemoryNote) -> None:
    progress = session.parts.state.progress
    finding = f"{note.samples} samples at once do not fit into memory"
    outcome = f"{note.samples // 2} at once from now on, with the same samples per optimizer step"
    happened = tell(session.console, progress, "crashes", finding, ["halve_micro_batch"], outcome)
    happened |= {"epoch": note.epoch, "step": note.step}
    _go_back(session, happened, progress.reactions, micro_batch_size=note.samples // 2)


def _recover_from_non_finite(session: Session, error: NonFiniteError) -> None:
    """The documented order: the data, a replay, then a lower learning rate with clipping; at most so many times."""
    parts, progress = session.parts, session.parts.state.progress
    finding = f"{error} in epoch {progress.epoch}, step {progress.step + 1}"
    policy = session.request.loaded.config.diagnostics.nan_loss
    bad = bad_samples(parts)
    reactions, action, outcome = next_remedy(progress, bad, policy.max_restarts)
    if policy.reaction != "act" or action is None:
        advice = f"suggestion: {outcome}" if policy.reaction == "suggest" and action else "no automatic remedy left"
        progress.events.append(tell(session.console, progress, GUIDE, finding, [], advice))
        raise _failure(session, error, bad)
    named = _names(parts, bad)
    happened = tell(session.console, progress, GUIDE, finding, [action], outcome + (f": {named}" if named else ""))
    _go_back(session, happened | {"samples": bad}, reactions, micro_batch_size=progress.micro_batch_size)


def next_remedy(progress: Progress, bad: list[int], max_restarts: int) -> tuple[Reactions, str | None, str]:
    """What to try next: the reactions that then hold, the action's name (None: nothing is left), and a sentence."""
    reactions = copy.deepcopy(progress.reactions)
    new = sorted(set(bad) - set(reactions.excluded))
    if new:
        reactions.excluded = sorted({*reactions.excluded, *new})
        return reactions, "set_aside_samples", f"{len(new)} bad samples are set aside"
    if reactions.replayed_step != progress.step:
        reactions.replayed_step = progress.step
        return reactions, "replay_batch", "the batch is replayed from the last valid state, to see whether it recurs"
    if reactions.restarts >= max_restarts:
        return reactions, None, "nothing is left to try"
    reactions.restarts += 1
    reactions.rate_scale *= RATE_CUT
    reactions.clip_max_norm = CLIP_MAX_NORM
    outcome = f"learning rate x {reactions.rate_scale:g}, gradients clipped at {CLIP_MAX_NORM:g}"
    return reactions, "reduce_learning_rate_and_clip", f"{outcome} (restart {reactions.restarts} of {max_restarts})"


def bad_samples(parts: Parts) -> list[int]:
    """The training samples whose prepared input holds a NaN, an infinity or an absurd value."""
    bad = []
    for batch in parts.train_source.batches(list(torch.arange(parts.num_train).split(parts.settings.batch_size))):
        flat = batch.inputs.flatten(1)
        sound = (flat.isfinite() & (flat.abs() < ABSURD_INPUT)).all(dim=1).cpu()
        bad += batch.indices[~sound].tolist()
    return sorted(bad)


def _go_back(session: Session, happened: dict, reactions: Reactions, *, micro_batch_size: int | None) -> None:
    """Restore the newest valid restart point; what the run has learnt about itself since then still holds."""
    events = session.parts.state.progress.events
    restore_restart_point(session)
    state = session.parts.state
    state.progress.events = [*events, happened]
    state.progress.reactions = reactions
    state.progress.micro_batch_size = micro_batch_size
    state.scheduler.set_scale(reactions.rate_scale)


def note_replays(console: Console, progress: Progress) -> None:
    """Say of a failed step that it went well this time, once its epoch is over."""
    for event in progress.events:
        if event["actions"] == ["replay_batch"] and event["step"] < progress.step and "recurred" not in event:
            recurred = any(
                other is not event and other["kind"] == GUIDE and other["step"] == event["step"]
                for other in progress.events
            )
            event["recurred"] = recurred
            if not recurred:
                event["outcome"] = "the batch was replayed from the last valid state and went well: a one-off"
                console.info(f"[DIAGNOSTIC] step {event['step'] + 1} went well when replayed: a one-off")


def _names(parts: Parts, samples: list[int]) -> str:
    split = parts.dataset.splits["train"]
    more = f" and {len(samples) - _NUM_NAMED} more" if len(samples) > _NUM_NAMED else ""
    return ", ".join(split.sample_name(index) for index in samples[:_NUM_NAMED]) + more


def _failure(session: Session, error: NonFiniteError, bad: list[int]) -> RunFailedError:
    progress = session.parts.state.progress
    samples = bad or error.indices.tolist()
    kind = "bad samples" if bad else "a batch with"
    return RunFailedError(
        f"{error} in epoch {progress.epoch}, step {progress.step + 1}, on {kind} {_names(session.parts, samples)}",
        path=session.folder.path,
        hint="see diagnostics/nan_loss.md: lower optimizer.learning_rate, set optimizer.gradient_clip_max_norm, and "
        "look at these samples",
    )
