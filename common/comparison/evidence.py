"""Two sides compared: what is measured, what it is worth as evidence, and the verdict in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.comparison.comparability import Finding, findings, same_training
from common.comparison.measures import BY_KEY, MEASURES, Measure
from common.comparison.predictions import Predictions, PredictionsUnusableError, read_predictions
from common.comparison.runs import Run, Side
from common.exits import InputFileError
from common.statistics import (
    SEED_SPREAD_RATIO,
    Assessment,
    BootstrapDifference,
    McNemar,
    Verdict,
    assess_paired,
    assess_unpaired,
    bootstrap_classification,
    bootstrap_mean,
    holm,
    mcnemar,
    runs_needed,
    seed_spread_guess,
)

# Quantiles of the normal distribution: 97.5% for the test, 80% for its power.
TWO_SIDED_80_PCT_POWER = 1.9600 + 0.8416
NOT_COMPARABLE = "not comparable"
# From so many common seeds on, the seeds that only one side has are left out for the sake of pairing.
FEWEST_COMMON_SEEDS = 3


@dataclass(frozen=True)
class ModelEvidence:
    """One run a side: two trained models on the same validation examples.

    Attributes:
        interval: of the primary measure over resampled examples; None where it is not a validation measure.
        spread_guess: of the accuracy difference between seeds, in points, to plan with.
        smallest_effect: difference in accuracy between two models that McNemar's test finds with 80% power on so many
            discordant examples (normal approximation); None where accuracy is not the question, or none is discordant.
        needed_for_effect, needed_for_margin: seeds a side to plan for (80% power), by a guess of the seeds' spread;
            None: over 10,000, or not a question of accuracy.
    """

    num_examples: int
    test: McNemar
    interval: BootstrapDifference | None
    differ: bool
    spread_guess: float
    smallest_effect: float | None
    needed_for_effect: int | None
    needed_for_margin: int | None


@dataclass(frozen=True)
class SecondaryTest:
    """A measure other than the primary one; ``corrected_p`` is Holm's over all of them."""

    measure: Measure
    effect: float
    p_value: float
    corrected_p: float


@dataclass(frozen=True)
class Comparison:
    """All that is known about two sides.

    Attributes:
        pairs: runs matched by seed, baseline first; empty where the sides are compared unpaired.
        assessment: None where a side has no run with a score.
        models: None unless there is one run a side with usable predictions.
        models_problem: why there is no ``models``; None where there is one, or where there are several runs.
        verdict: a ``Verdict``'s value, or ``not comparable``.
        without_score: runs that have no value of the primary measure.
        identical: every pair is one and the same training, bit by bit.
    """

    baseline: Side
    optimized: Side
    measure: Measure
    margin: float
    findings: Sequence[Finding]
    pairs: Sequence[tuple[Run, Run]]
    assessment: Assessment | None
    models: ModelEvidence | None
    models_problem: str | None
    secondary: Sequence[SecondaryTest]
    verdict: str
    without_score: Sequence[Run]
    identical: bool

    @property
    def comparable(self) -> bool:
        return not any(finding.blocking for finding in self.findings)

    @property
    def paired(self) -> bool:
        return bool(self.pairs)

    @property
    def single(self) -> bool:
        """Whether there is one run a side."""
        return len(self.baseline.runs) == len(self.optimized.runs) == 1

    @property
    def compared(self) -> tuple[Sequence[Run], Sequence[Run]]:
        """The runs that the numbers are about: with pairs, only those that have a partner."""
        if not self.pairs:
            return self.baseline.runs, self.optimized.runs
        return tuple(pair[0] for pair in self.pairs), tuple(pair[1] for pair in self.pairs)

    def means(self, measure: Measure, at: str = "best") -> tuple[float | None, float | None]:
        """Baseline's and optimized mean of a measure over the compared runs."""
        first, second = (mean([run.value(measure, at) for run in runs]) for runs in self.compared)
        return first, second


def compare(baseline: Side, optimized: Side, metric: str = "val_acc", margin: float | None = None) -> Comparison:
    """Compare two sides by the best epoch's value of ``metric``; ``margin`` None means the measure's own."""
    measure = BY_KEY[metric]
    margin = measure.margin if margin is None else margin
    found = findings(baseline, optimized)
    sides = [[run for run in side.runs if run.value(measure) is not None] for side in (baseline, optimized)]
    pairs = _pairs(*sides)
    without_score = [run for side in (baseline, optimized) for run in side.runs if run.value(measure) is None]
    assessment = _assess(measure, sides, pairs, margin) if all(sides) else None
    models, problem = _models(measure, sides, margin)
    identical = bool(pairs) and not without_score and all(same_training(*pair) for pair in pairs)
    return Comparison(
        baseline=baseline,
        optimized=optimized,
        measure=measure,
        margin=margin,
        findings=found,
        pairs=pairs,
        assessment=assessment,
        models=models,
        models_problem=problem,
        secondary=_secondary(measure, sides, pairs),
        verdict=_verdict(found, assessment, identical=identical, complete=not without_score),
        without_score=without_score,
        identical=identical,
    )


def require_scores(comparison: Comparison) -> None:
    """Raises InputFileError where a side has no value of the primary measure at all."""
    for side in (comparison.baseline, comparison.optimized):
        if not side.values(comparison.measure):
            raise InputFileError(
                f"there is no {comparison.measure.key} of a best epoch in it (status: {side.first.status})",
                path=side.first.path, field=f"--{side.name}", hint="finish the training, or choose another --metric",
            )  # fmt: skip


def mean(values: Sequence[float | None]) -> float | None:
    """Of the values that are known."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _pairs(baseline: Sequence[Run], optimized: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Runs with the same seed, where the sides are to be compared pair by pair; else nothing."""
    if len(baseline) == len(optimized) == 1:
        return [(baseline[0], optimized[0])]
    partners = {run.seed: run for run in optimized if run.seed is not None}
    pairs = [(run, partners[run.seed]) for run in baseline if run.seed in partners]
    complete = len(pairs) == len(baseline) == len(optimized)
    return pairs if complete or len(pairs) >= FEWEST_COMMON_SEEDS else []


def _assess(
    measure: Measure, sides: Sequence[Sequence[Run]], pairs: Sequence[tuple[Run, Run]], margin: float
) -> Assessment:
    compared = [[pair[side] for pair in pairs] for side in (0, 1)] if pairs else sides
    scores = [[run.value(measure) for run in side] for side in compared]
    assess = assess_paired if pairs else assess_unpaired
    return assess(*scores, margin=margin, higher_is_better=measure.higher_is_better)


def _secondary(
    primary: Measure, sides: Sequence[Sequence[Run]], pairs: Sequence[tuple[Run, Run]]
) -> list[SecondaryTest]:
    """Tests of the other measures, where there are runs enough for any."""
    tests: list[tuple[Measure, float, float]] = []
    for measure in MEASURES:
        values = [run.value(measure) for side in sides for run in side]
        if measure is primary or not all(sides) or None in values:
            continue
        found = _assess(measure, sides, pairs, measure.margin)
        fewest = min(found.num_baseline, found.num_optimized)
        if found.difference is not None and fewest >= FEWEST_COMMON_SEEDS:
            # The t test's p: that of a permutation test of few runs is too coarse to survive any correction.
            tests.append((measure, found.effect, found.difference.p_value))
    corrected = holm([p_value for *_, p_value in tests])
    return [SecondaryTest(*test, p) for test, p in zip(tests, corrected, strict=True)]


def _models(measure: Measure, sides: Sequence[Sequence[Run]], margin: float) -> tuple[ModelEvidence | None, str | None]:
    if not all(len(side) == 1 for side in sides):
        return None, None
    try:
        first, second = (read_predictions(side[0]) for side in sides)
    except PredictionsUnusableError as problem:
        return None, str(problem)
    if not first.same_examples(second):
        return None, "the predictions are about different validation examples"
    return _model_evidence(measure, first, second, margin), None


def _model_evidence(measure: Measure, first: Predictions, second: Predictions, margin: float) -> ModelEvidence:
    test = mcnemar(int((first.right & ~second.right).sum()), int((second.right & ~first.right).sum()))
    interval = _interval(measure, first, second)
    num_examples = len(first.label)
    guess = seed_spread_guess(test.baseline_only, test.optimized_only, num_examples)
    is_accuracy = measure.key == "val_acc"
    gain = 100.0 * (test.optimized_only - test.baseline_only) / num_examples
    plannable = is_accuracy and guess > 0
    return ModelEvidence(
        num_examples=num_examples,
        test=test,
        interval=interval,
        differ=test.p_value < 0.05 if is_accuracy or interval is None else not interval.low <= 0 <= interval.high,
        spread_guess=guess,
        smallest_effect=TWO_SIDED_80_PCT_POWER * guess / SEED_SPREAD_RATIO if plannable else None,
        needed_for_effect=runs_needed(gain, guess) if plannable else None,
        needed_for_margin=runs_needed(margin, guess) if plannable else None,
    )


def _interval(measure: Measure, first: Predictions, second: Predictions) -> BootstrapDifference | None:
    if not measure.is_validation:
        return None
    if measure.kind == "loss":
        return bootstrap_mean(second.losses() - first.losses())
    return bootstrap_classification(first.label, first.predicted, second.predicted, measure.kind)


def _verdict(found: Sequence[Finding], assessment: Assessment | None, *, identical: bool, complete: bool) -> str:
    if any(finding.blocking for finding in found):
        return NOT_COMPARABLE
    if identical:
        return Verdict.EQUIVALENT.value
    if assessment is None or not complete:
        # The runs that got as far as a score are not a fair sample of those that were started.
        return Verdict.UNKNOWN.value
    return assessment.verdict.value
