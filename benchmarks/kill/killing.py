"""Kill a training at random, start it again with the same command, and see that it ends as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.kill.cases import Case
from benchmarks.kill.same_end import differences

PHASES = ("start-up", "training", "evaluation", "checkpoint", "metrics.json", "report")
# What a kill waits for before it strikes, since a moment drawn by lot would hardly ever meet these.
EVENTS = {
    "checkpoint": ("checkpoints/.*.pt.*.tmp", "checkpoints/.manifest.json.*.tmp"),
    "metrics.json": (".metrics.json.*.tmp",),
    "report": (".predictions_*.tmp", ".learning_curves*.tmp", ".*_results.md.*.tmp", ".confusion_matrix*.tmp"),
}
LONGEST_RUN_S = 600.0
ORPHANS_END_WITHIN_S = 60.0


@dataclass
class Tally:
    """What came of a number of kills. ``problems`` has a line for everything that should not have been."""

    case: Case
    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    identical: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        return sum(self.kills.values())


def kill_runs(case: Case, kills: int, seed: int, folder: Path, images: Path, tell: Callable = print) -> Tally:
    """Kill trainings of ``case`` so many times, up to five times each, and bring each of them to its end.

    Args:
        folder: for the runs' working directories; one that ended well is deleted.
        images: for a case that needs them.
    """
    tally = Tally(case)
    whole = folder / "whole"
    case.prepare(whole, images)
    started = time.monotonic()
    code, said = _Process(case, whole).ended()
    assert code == 0, said
    duration_s = time.monotonic() - started
    rng = random.Random(seed)
    while tally.num_kills < kills:
        workplace = folder / f"{tally.runs}"
        case.prepare(workplace, images)
        deaths = min(rng.randint(1, 5), kills - tally.num_kills)
        landed = _one_run(case, workplace, deaths, duration_s, rng, tally)
        found = _what_is_wrong(workplace, whole)
        tally.runs += 1
        tally.identical += not found
        tally.problems += [f"{workplace.name} (killed in {', '.join(landed)}): {problem}" for problem in found]
        tell(f"run {tally.runs}: killed in {', '.join(landed) or 'no phase'}: {'; '.join(found) or 'identical'}")
        if not found:
            shutil.rmtree(workplace)
    return tally


def _one_run(
    case: Case, workplace: Path, deaths: int, duration_s: float, rng: random.Random, tally: Tally
) -> list[str]:
    """Kill one run up to ``deaths`` times and let it end; the phases in which it was hit."""
    landed: list[str] = []
    sessions = []
    while len(landed) < deaths:
        process = _Process(case, workplace)
        sessions.append(process.pid)
        if not process.killed(_moment(duration_s, rng)):
            break
        landed.append(phase_of_death(workplace / "run", process.log_before))
        if _is_finished(workplace / "run"):  # killed when all was done: the next start would be another run
            break
    if not _is_finished(workplace / "run"):
        process = _Process(case, workplace)
        sessions.append(process.pid)
        code, said = process.ended()
        if code != 0 or "Traceback" in said:
            tally.problems.append(f"{workplace.name}: exit code {code}: {said}")
    if (workplace / "run.1").exists():
        tally.problems.append(f"{workplace.name}: the unfinished run was moved aside")
    tally.problems += [f"{workplace.name}: process {pid} outlived its training" for pid in _survivors(sessions)]
    tally.kills.update(landed)
    return landed


@dataclass(frozen=True)
class Moment:
    """When to strike: ``delay_s`` after the start, or after the ``count``-th sight of a file like one of ``globs``."""

    delay_s: float
    globs: tuple[str, ...] = ()
    count: int = 0


def _moment(duration_s: float, rng: random.Random) -> Moment:
    """Half of the kills come at any time of a run's life, half within milliseconds of something being written."""
    if rng.random() < 0.5:
        return Moment(rng.uniform(0.0, 1.05 * duration_s))
    event = rng.choice(sorted(EVENTS))
    count = 1 if event == "report" else rng.randint(1, 4)
    return Moment(rng.uniform(0.0, 0.003), EVENTS[event], count)


class _Process:
    """One start of the training, in a session of its own."""

    def __init__(self, case: Case, workplace: Path) -> None:
        self._run = workplace / "run"
        self._said = workplace.parent / f"{workplace.name}.said"
        log = self._run / "training.log"
        self.log_before = log.stat().st_size if log.exists() else 0
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                case.command, cwd=workplace, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    def ended(self) -> tuple[int, str]:
        """Wait for its end; the exit code and what it said."""
        code = self._process.wait(LONGEST_RUN_S)
        return code, self._said.read_text(encoding="utf-8", errors="replace")

    def killed(self, moment: Moment) -> bool:
        """Kill it at ``moment``; False where it came to its end before."""
        left_before = self._matches(moment)
        seen: set[Path] = set()
        end = time.monotonic() + LONGEST_RUN_S
        while len(seen) < moment.count:
            if self._process.poll() is not None or time.monotonic() > end:
                return self._kill()
            seen |= self._matches(moment) - left_before
        try:
            self._process.wait(moment.delay_s)
        except subprocess.TimeoutExpired:
            return self._kill()
        return False

    def _matches(self, moment: Moment) -> set[Path]:
        return {path for glob in moment.globs for path in self._run.glob(glob)}

    def _kill(self) -> bool:
        self._process.send_signal(signal.SIGKILL)
        return self._process.wait(LONGEST_RUN_S) == -signal.SIGKILL


def phase_of_death(run: Path, log_before: int) -> str:
    """Where a killed training was, as far as the files that it left and its lines in the log tell."""
    for phase, globs in EVENTS.items():
        if any(True for glob in globs for _ in run.glob(glob)):
            return phase
    log = run / "training.log"
    lines = log.read_bytes()[log_before:].decode(errors="replace").splitlines() if log.exists() else []
    texts = [line.partition(" | ")[2] for line in lines]
    if any(text.startswith("Training complete") for text in texts):
        return "report"
    started = [number for number, text in enumerate(texts) if text.startswith("[EPOCH")]
    if not started:
        return "start-up"
    last_epoch = texts[started[-1] :]
    steps = next((text.split(";")[-1].split()[0] for text in texts if text.startswith("[SCHEDULER]")), "")
    return "evaluation" if any(text.startswith(f"Step: {steps} |") for text in last_epoch) else "training"


def _is_finished(run: Path) -> bool:
    try:
        status = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["run"]["status"]
    except FileNotFoundError:
        return False
    return status in ("completed", "early_stopped")


def _what_is_wrong(workplace: Path, whole: Path) -> list[str]:
    """Differences from the undisturbed run, and what should not have been left; a finished run may have died later."""
    leftovers = [path for path in workplace.rglob("*.tmp") if not path.name.startswith(".data.digits-")]
    found = differences(workplace / "run", whole / "run")
    return found + [f"{path.relative_to(workplace)} was left" for path in leftovers]


def _survivors(sessions: list[int]) -> list[int]:
    """Processes of killed trainings that go on; they have a while to notice."""
    end = time.monotonic() + ORPHANS_END_WITHIN_S
    while (alive := running_in_sessions(sessions)) and time.monotonic() < end:
        time.sleep(0.05)
    return alive


def running_in_sessions(sessions: list[int]) -> list[int]:
    """The processes of these sessions that have not ended; a zombie has."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state not in "ZX" and int(session) in sessions:
                found.append(int(entry.name))
    return found
