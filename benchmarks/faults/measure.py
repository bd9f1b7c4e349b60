#!/usr/bin/env python3
"""How often the diagnosis is right: faults injected into real trainings, and sound trainings that it must leave alone.

Each run is trained into a folder of its own, and the diagnosis sees that folder alone. The limits of its rules were
set on the digits; the other data is reported apart. Runs that are there from an earlier call are kept, so that a call
that was stopped goes on, and a changed rule costs no training but those of other repairs.

    python benchmarks/faults/measure.py                      # everything, five seeds
    python benchmarks/faults/measure.py --quick              # a few faults, one seed
    python benchmarks/faults/measure.py --settings digits-mlp --seeds 0 1 --json

A repair counts where, within three rounds of diagnosing, mending and training again, test accuracy reaches 95% of that
of the sound training with the same seed; only runs that the fault has brought below that, and that can be mended
without other data, are counted. What the report asks a person to do in code is done as it says.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.faults.cases import FAULTS, HEALTHY, SETTINGS, TUNED_ON, Fault, Healthy, Setting
from benchmarks.faults.runs import measured_test_acc, plan_of, repair, train_run
from common import markdown
from common.diagnosis.diagnosing import diagnose
from common.diagnosis.documented import documented_issue
from common.diagnosis.inputs import read_evidence
from common.diagnosis.registry import BY_ID
from common.guides import Guide, load_all_guides

GOOD_SHARE = 0.95
QUICK_SETTING = "digits-mlp"
QUICK_FAULTS = (
    "learning rate far too high", "learning rate far too low", "one infinite loss", "NaN rows", "zero initialisation",
    "softmax before cross-entropy", "two hidden units", "shuffled labels", "validation copied from training",
    "20% flipped labels",
)  # fmt: skip
QUICK_HEALTHY = ("plain", "learning rate restarts", "small validation set")


@dataclass(frozen=True)
class FaultOutcome:
    """What was said about one faulty run and what came of it; accuracies on the test set, percent.

    ``literal`` is the guide that the documented thresholds alone lead to; ``repaired_acc`` is None where no repair was
    called for.
    """

    setting: str
    fault: str
    seed: int
    cause: str | None
    confidence: float
    expected: tuple[str, ...]
    literal: str | None
    faulty_acc: float
    sound_acc: float
    repaired_acc: float | None

    @property
    def is_right(self) -> bool:
        return self.cause in self.expected

    @property
    def literal_is_right(self) -> bool:
        return self.literal in {BY_ID[cause].guide for cause in self.expected}

    @property
    def is_repaired(self) -> bool:
        return self.repaired_acc is not None and self.repaired_acc >= GOOD_SHARE * self.sound_acc


@dataclass(frozen=True)
class HealthyOutcome:
    """What was said about one sound run."""

    setting: str
    name: str
    hard: bool
    seed: int
    cause: str | None
    confidence: float
    literal: str | None


Outcome = FaultOutcome | HealthyOutcome


def measure(
    root: Path, settings: Sequence[Setting], faults: Sequence[Fault], healthy: Sequence[Healthy], seeds: Sequence[int]
) -> Iterator[Outcome]:
    """Train and diagnose every case, one seed after the other."""
    guides = load_all_guides()
    for seed in seeds:
        for setting in settings:
            folder = root / setting.name
            for case in healthy:
                yield healthy_outcome(setting, case, seed, folder)
            for fault in faults:
                if setting.name not in fault.harmless_in:
                    yield fault_outcome(setting, fault, seed, folder, guides)


def healthy_outcome(setting: Setting, case: Healthy, seed: int, folder: Path) -> HealthyOutcome:
    run_folder = folder / case.slug / f"seed_{seed}"
    train_run(plan_of(setting, case, seed), run_folder)
    run = read_evidence(run_folder)
    diagnosis = diagnose(run)
    cause = diagnosis.primary.cause.id if diagnosis.primary else None
    return HealthyOutcome(
        setting.name, case.name, case.hard, seed, cause, diagnosis.confidence, documented_issue(run)
    )  # fmt: skip


def fault_outcome(setting: Setting, fault: Fault, seed: int, folder: Path, guides: dict[str, Guide]) -> FaultOutcome:
    plan, run_folder = plan_of(setting, fault, seed), folder / fault.slug / f"seed_{seed}"
    train_run(plan, run_folder)
    sound = folder / HEALTHY[0].slug / f"seed_{seed}"
    train_run(plan_of(setting, HEALTHY[0], seed), sound)
    run = read_evidence(run_folder)
    diagnosis = diagnose(run)
    faulty_acc, sound_acc = measured_test_acc(run_folder), measured_test_acc(sound)
    repaired_acc = None
    if faulty_acc < GOOD_SHARE * sound_acc and not fault.needs_data:
        repaired_acc = measured_test_acc(repair(plan, run_folder, fault, guides))
    cause = diagnosis.primary.cause.id if diagnosis.primary else None
    return FaultOutcome(setting.name, fault.name, seed, cause, diagnosis.confidence, fault.causes,
                        documented_issue(run), faulty_acc, sound_acc, repaired_acc)  # fmt: skip


def summary(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """Shares per group of settings, as text; the groups are each setting, and those tuned on and not."""
    names = list(dict.fromkeys(outcome.setting for outcome in outcomes))
    groups = {name: [name] for name in names}
    groups["all tuned on"] = [name for name in names if name in TUNED_ON]
    groups["all others"] = [name for name in names if name not in TUNED_ON]
    return [group_summary(title, [o for o in outcomes if o.setting in members]) for title, members in groups.items()
            if members]  # fmt: skip


def group_summary(title: str, outcomes: Sequence[Outcome]) -> dict[str, object]:
    faulty = [outcome for outcome in outcomes if isinstance(outcome, FaultOutcome)]
    sound = [outcome for outcome in outcomes if isinstance(outcome, HealthyOutcome)]
    mended = [outcome for outcome in faulty if outcome.repaired_acc is not None]
    return {
        "setting": title,
        "faulty": len(faulty),
        "detected": share(sum(o.cause is not None for o in faulty), len(faulty)),
        "right cause first": share(sum(o.is_right for o in faulty), len(faulty)),
        "repaired": share(sum(o.is_repaired for o in mended), len(mended)),
        "sound (hard)": f"{len(sound)} ({sum(o.hard for o in sound)})",
        "false alarms": str(sum(o.cause is not None for o in sound)),
        "literal: detected": share(sum(o.literal is not None for o in faulty), len(faulty)),
        "literal: right guide": share(sum(o.literal_is_right for o in faulty), len(faulty)),
        "literal: false alarms": str(sum(o.literal is not None for o in sound)),
    }


def share(count: int, total: int) -> str:
    return f"{100 * count / total:.1f}% ({count}/{total})" if total else "n/a"


def mistakes(outcomes: Sequence[Outcome]) -> list[str]:
    """What went wrong, each kind in a line with how often."""
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        if isinstance(outcome, HealthyOutcome):
            if outcome.cause is not None:
                counts[f"{outcome.setting}: sound run '{outcome.name}' called {outcome.cause}"] += 1
            continue
        if not outcome.is_right:
            counts[f"{outcome.setting}: '{outcome.fault}' called {outcome.cause or 'healthy'}"] += 1
        if outcome.repaired_acc is not None and not outcome.is_repaired:
            counts[f"{outcome.setting}: '{outcome.fault}' not repaired"] += 1
    return [f"{text} ({count})" for text, count in counts.items()]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--folder", type=Path, default=Path("results/faults"), help="of runs (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="ten faults, one setting, one seed")
    parser.add_argument("--json", action="store_true", help="print every outcome as JSON")
    args = parser.parse_args(argv)
    outcomes = []
    for outcome in chosen_cases(args):
        outcomes.append(outcome)
        print(outcome, file=sys.stderr)
    if args.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
        return 0
    rows = summary(outcomes)
    print(markdown.table(["", *(str(row["setting"]) for row in rows)],
                         [[key, *(row[key] for row in rows)] for key in rows[0] if key != "setting"]))  # fmt: skip
    print("\n" + markdown.bullet_list(mistakes(outcomes), empty="No mistake."))
    return 0


def chosen_cases(args: argparse.Namespace) -> Iterator[Outcome]:
    if args.quick:
        faults = [fault for fault in FAULTS if fault.name in QUICK_FAULTS]
        healthy = [case for case in HEALTHY if case.name in QUICK_HEALTHY]
        return measure(args.folder, [SETTINGS[QUICK_SETTING]], faults, healthy, [0])
    return measure(args.folder, [SETTINGS[name] for name in args.settings], FAULTS, HEALTHY, args.seeds)


if __name__ == "__main__":
    sys.exit(main())
