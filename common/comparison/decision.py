"""What to do after an optimization, by written rules: on to phase 5, iterate, diagnose again, or gather evidence."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from common.comparison.evidence import NOT_COMPARABLE, Comparison
from common.comparison.measures import BY_KEY
from common.comparison.runs import Run, Side
from common.comparison.training_command import config_file, train_again
from common.statistics import Verdict

VAL_ACC = BY_KEY["val_acc"]
FEWEST_SEEDS, MOST_SEEDS = 3, 10
PRODUCTION_EPOCHS = 100


@dataclass(frozen=True)
class Decision:
    """``rule`` is the position in ``RULES``; ``commands`` are what to type."""

    rule: int
    action: str
    commands: str


@dataclass(frozen=True)
class Facts:
    """What the rules look at."""

    comparison: Comparison
    target_val_acc: float | None

    @property
    def verdict(self) -> str:
        return self.comparison.verdict

    @property
    def gains(self) -> bool:
        """Whether the primary measure moved the right way at all."""
        found = self.comparison.assessment
        return (
            found is not None and (found.effect > 0) == self.comparison.measure.higher_is_better and found.effect != 0
        )

    def meets_target(self, side: int) -> bool:
        """Whether the mean validation accuracy of a side (0: baseline, 1: optimized) reaches the target."""
        value = self.comparison.means(VAL_ACC)[side]
        return self.target_val_acc is not None and value is not None and value >= self.target_val_acc


@dataclass(frozen=True)
class Rule:
    """The first rule whose condition holds decides."""

    when: str
    action: str
    holds: Callable[[Facts], bool]
    commands: Callable[[Comparison], str]


def decide(comparison: Comparison, target_val_acc: float | None) -> Decision:
    """Apply the rules in order. ``target_val_acc`` is percent, None where no target was set."""
    facts = Facts(comparison, target_val_acc)
    position = next(number for number, rule in enumerate(RULES) if rule.holds(facts))
    rule = RULES[position]
    return Decision(position, rule.action, rule.commands(comparison))


def target_of(comparison: Comparison) -> float | None:
    """``target.val_acc`` of the optimized config, or else of the baseline's."""
    configs = [side.first.config for side in (comparison.optimized, comparison.baseline)]
    return next((config.target.val_acc for config in configs if config and config.target.val_acc is not None), None)


def _is_unfinished(facts: Facts) -> bool:
    comparison = facts.comparison
    runs = [run for side in (comparison.baseline, comparison.optimized) for run in side.runs]
    return not all(run.finished for run in runs) or bool(comparison.without_score)


def _finish(comparison: Comparison) -> str:
    runs = [run for side in (comparison.optimized, comparison.baseline) for run in side.runs]
    unfinished = [run for run in runs if not run.finished] or runs[:1]
    return "\n".join(_same_again(run) for run in unfinished)


def _same_again(run: Run) -> str:
    seed = [] if run.seed is None else ["--seed", str(run.seed)]
    return train_again(run, *seed, "--output-dir", str(run.shown_folder))


def _make_comparable(comparison: Comparison) -> str:
    """Both sides anew, under the same conditions."""
    return _seeds(comparison, [run.seed for run in comparison.optimized.runs if run.seed is not None] or [42])


def _produce(comparison: Comparison, side: Side) -> str:
    run = side.first
    more = ["--epochs", str(PRODUCTION_EPOCHS), "--output-dir", "results/production/"]
    if config_file(run) is None:  # the resolved config says everything, the mode's defaults would not be asked
        more = ["--set", "test_set.enabled=true", "--set", "test_set.evaluate_at_end=true", *more]
    return train_again(run, *more, mode="production", drop=("--epochs",))


def _diagnose(side: Side) -> str:
    folder = side.first.shown_folder
    words = ["python", "diagnostic_tool.py", "--baseline", str(folder / f"{side.first.mode}_results.md"), "--metrics",
             str(folder / "metrics.json"), "--output", "diagnostic_report.md"]  # fmt: skip
    return shlex.join(words)


def _more_seeds(comparison: Comparison) -> str:
    have = sorted(
        {seed for side in (comparison.baseline, comparison.optimized) for seed in side.seeds if seed is not None}
    )
    found, models = comparison.assessment, comparison.models
    needed = found.needed_for_effect if found and found.difference else models.needed_for_effect if models else None
    wanted = min(max(needed or FEWEST_SEEDS, FEWEST_SEEDS, len(have) + 1), MOST_SEEDS)
    start = have[0] if have else 42
    new = [seed for seed in range(start, start + wanted + len(have)) if seed not in have]
    return _seeds(comparison, sorted([*have, *new[: max(wanted - len(have), 1)]]))


def _seeds(comparison: Comparison, seeds: list[int]) -> str:
    commands, folders = [], []
    for side in (comparison.baseline, comparison.optimized):
        folder = f"results/{side.name}_seeds/"
        words = ["--seeds", *map(str, seeds), "--output-dir", folder]
        commands.append(train_again(side.first, *words))
        folders += [f"--{side.name}", folder]
    return "\n".join([*commands, shlex.join(["python", "compare_results.py", *folders, "--output", "comparison.md"])])


def _enough(*verdicts: Verdict) -> Callable[[Facts], bool]:
    names = [verdict.value for verdict in verdicts]
    return lambda facts: facts.verdict in names


RULES = (
    Rule("a run is not finished, or has no score", "Finish the training first",
         _is_unfinished, _finish),
    Rule("the runs are not comparable", "Train both sides under the same conditions",
         lambda facts: facts.verdict == NOT_COMPARABLE, _make_comparable),
    Rule("the target is met, and the verdict is not 'worse'", "Phase 5 with the optimized configuration",
         lambda facts: facts.meets_target(1) and facts.verdict != Verdict.WORSE.value,
         lambda comparison: _produce(comparison, comparison.optimized)),
    Rule("the verdict is 'worse', and the baseline meets the target", "Phase 5 with the baseline's configuration",
         lambda facts: facts.meets_target(0) and facts.verdict == Verdict.WORSE.value,
         lambda comparison: _produce(comparison, comparison.baseline)),
    Rule("the verdict is 'better', and no target is set", "Phase 5 with the optimized configuration",
         lambda facts: facts.verdict == Verdict.BETTER.value and facts.target_val_acc is None,
         lambda comparison: _produce(comparison, comparison.optimized)),
    Rule("'better', or 'real but small' and a gain", "Iterate: keep the changes, and diagnose what is left",
         lambda facts: facts.gains and _enough(Verdict.BETTER, Verdict.SMALL)(facts),
         lambda comparison: _diagnose(comparison.optimized)),
    Rule("'not enough evidence', and a gain was seen", "Train more seeds of both sides, and compare again",
         lambda facts: facts.gains and _enough(Verdict.UNKNOWN)(facts), _more_seeds),
    Rule("none of these: no gain was seen", "Re-diagnose: drop the changes, and look at the baseline again",
         lambda facts: True, lambda comparison: _diagnose(comparison.baseline)),
)  # fmt: skip
