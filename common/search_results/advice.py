"""What to do after a search, with the commands to type."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from common import markdown
from common.search_results.records import SpaceEntry, StudyRecord
from common.search_results.wording import shown_value, trial_of


def next_steps(study: StudyRecord, folder: Path) -> str:
    """Go on where the search is not at its end; train and compare the winner; widen what ended at an edge."""
    parts = []
    command = repeat_command(study)
    if study.end in ("interrupted", "timeout", "running") and command:
        parts.append(
            f"The search is not at its end. The same command goes on:\n\n{markdown.code_block(command, 'bash')}"
        )
    if study.winner is None:
        return "\n\n".join([*parts, _without_winner()])
    parts.append(f"Train the winner, train the base beside it, and compare the two:\n\n"
                 f"{markdown.code_block(_commands(study, folder), 'bash')}")  # fmt: skip
    if study.epochs is not None:
        parts.append(f"best_config.yaml has the {study.epochs} epochs of the trials; `--epochs` trains it for longer.")
    if found := edges(study):
        parts.append(f"The winner has {'; '.join(found)}. Better ones may lie beyond: widen the search space there.")
    return "\n\n".join(parts)


def repeat_command(study: StudyRecord) -> str | None:
    """The command that the search was started with; None where it was not started from a command line."""
    return shlex.join(["python", *study.command_line]) if study.command_line else None


def edges(study: StudyRecord) -> list[str]:
    """For each number of the winner that is the lowest or highest of its entry, a clause that says so."""
    assert study.winner is not None
    params = trial_of(study, study.winner).params
    return [clause for entry in study.space if entry.path in params
            if (clause := _edge(entry, params[entry.path])) is not None]  # fmt: skip


def _edge(entry: SpaceEntry, value: object) -> str | None:
    ends = _ends(entry)
    # An end at zero is mostly that of the field itself.
    if ends is None or ends[0] == ends[1] or value not in ends or value == 0:
        return None
    which = "lowest" if value == ends[0] else "highest"
    return f"`{entry.path}` at {shown_value(value)}, the {which} value of its entry"


def _ends(entry: SpaceEntry) -> tuple[float, float] | None:
    values: Sequence[object] = (entry.low, entry.high) if entry.choices is None else entry.choices
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return (min(numbers), max(numbers)) if numbers and len(numbers) == len(values) else None


def _commands(study: StudyRecord, folder: Path) -> str:
    train = ["python", "training_orchestrator.py", "--config"]
    lines = [
        [*train, str(folder / "best_config.yaml"), "--mode", "optimization", "--output-dir", "results/optimization/"],
        [*train, study.base_config, "--mode", "baseline", "--output-dir", "results/baseline/"],
        ["python", "compare_results.py", "--baseline", "results/baseline/metrics.json",
         "--optimized", "results/optimization/metrics.json", "--output", "comparison.md"],
    ]  # fmt: skip
    return "\n".join(shlex.join(line) for line in lines)


def _without_winner() -> str:
    return (
        "There is no best config. Where trials diverged, lower learning rates usually help; where they failed, the "
        "reasons above say what to mend."
    )
