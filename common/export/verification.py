"""Whether an exported file answers as its checkpoint does: every sample, in pairs, prepared as the file itself says."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.exits import CheckFailedError, InputFileError, RunFailedError, UsageError
from common.export.evaluation_data import LabelledInputs
from common.inference.engines import Engine, open_model
from common.model_metadata import ModelMetadata
from common.statistics import mcnemar

BATCH_SIZES = (1, 2, 7, 64)
MIN_AGREEMENT_PCT = 99.99
DEFAULT_LOGIT_TOLERANCE = 1e-4
DEFAULT_POINTS_LOST = 1.0
# Float32 rounds relative to the size of the numbers. Where logits are above 100, the tolerance grows with them: 1e-4
# is then 8 roundings (2 ** -23 each) of the largest. Sound exports stay below 5: 4.6 for a ResNet-50 at logits of 13,
# and 1.2, which is 1e-3, for a network on raw table columns with logits of 6,800.
_LOGITS_OF_FULL_TOLERANCE = 100.0


@dataclass(frozen=True, eq=False)
class Outputs:
    """A model's logits, float32 (N, C), over all samples in order."""

    logits_NC: npt.NDArray[np.float32]

    @property
    def predictions_N(self) -> npt.NDArray[np.int64]:
        return self.logits_NC.argmax(axis=1)

    def accuracy_pct(self, labels_N: npt.NDArray[np.int64]) -> float:
        """Percent of the samples whose largest logit is their label's."""
        return 100.0 * float((self.predictions_N == labels_N).mean())


@dataclass(frozen=True)
class Verification:
    """How the exported model compares with the checkpoint.

    Attributes:
        data: what was compared on.
        num_samples: how many.
        labelled: False where the inputs are noise; accuracies and what follows from them are then None.
        reference_acc, exported_acc: percent.
        agreement_pct: samples on which both predict the same class.
        max_logit_difference: the largest over all samples and classes; None where it is not a finite number.
        largest_logit: of the checkpoint, absolute.
        reference_only, exported_only: samples that one of the two alone has right.
        p_value: exact McNemar of these two counts, two-sided.
        tolerance: what was allowed, in words.
        batch_sizes: those that were tried.
        problems: why the file must not be used; empty where it passed.
    """

    data: str
    num_samples: int
    labelled: bool
    reference_acc: float | None
    exported_acc: float | None
    agreement_pct: float
    max_logit_difference: float | None
    largest_logit: float
    reference_only: int | None
    exported_only: int | None
    p_value: float | None
    tolerance: str
    batch_sizes: tuple[int, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """Plain values for the report."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "batch_sizes": list(self.batch_sizes), "problems": list(self.problems), "passed": self.passed}


def run_over(engine: Engine, inputs: LabelledInputs) -> Outputs:
    """The engine's answers to all samples, prepared as its own metadata asks for."""
    batches = inputs.batches(engine.metadata.preprocessing)
    return Outputs(np.concatenate([np.asarray(engine(batch), dtype=np.float32) for batch in batches]))


def verify(
    path: Path,
    expected: ModelMetadata,
    inputs: LabelledInputs,
    reference: Outputs,
    *,
    tolerance: float | None = None,
    num_threads: int = 1,
) -> Verification:
    """Open the exported file as its users will, and compare it with the checkpoint.

    Args:
        expected: the metadata that the file must carry.
        reference: the checkpoint's answers to ``inputs``.
        tolerance: of an fp32 model the largest difference of logits, of a quantised one the points of accuracy that
            may be lost; None for 1e-4 and 1.
    Raises:
        CheckFailedError: the file cannot be opened, or does not run at every one of ``BATCH_SIZES``.
    """
    try:
        engine = open_model(path, "cpu", num_threads)
    except InputFileError as error:
        raise CheckFailedError(f"what was written {error.message}") from error
    problems = [] if engine.metadata == expected else [f"its metadata differs in {_differences(engine, expected)}"]
    for size in BATCH_SIZES:
        batch = inputs.first(size, engine.metadata.preprocessing)
        problems += _problems_with_batch(engine, batch, reference, tolerance, expected.precision)
    exported = run_over(engine, inputs)
    return _compared(inputs, reference, exported, expected.precision, tolerance, problems)


def allowed_logit_difference(tolerance: float | None, reference: Outputs) -> float:
    """The largest difference of logits that rounding explains."""
    scale = max(1.0, _largest(reference) / _LOGITS_OF_FULL_TOLERANCE)
    return (DEFAULT_LOGIT_TOLERANCE if tolerance is None else tolerance) * scale


def _compared(
    inputs: LabelledInputs,
    reference: Outputs,
    exported: Outputs,
    precision: str,
    tolerance: float | None,
    problems: list[str],
) -> Verification:
    agreement_pct = 100.0 * float((reference.predictions_N == exported.predictions_N).mean())
    difference = float(np.abs(reference.logits_NC - exported.logits_NC).max())
    reference_acc = exported_acc = reference_only = exported_only = p_value = None
    if inputs.labelled:
        reference_acc, exported_acc = (outputs.accuracy_pct(inputs.labels) for outputs in (reference, exported))
        right = [outputs.predictions_N == inputs.labels for outputs in (reference, exported)]
        reference_only, exported_only = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
        p_value = mcnemar(reference_only, exported_only).p_value
    if precision == "fp32":
        words, found = _judge_exact(agreement_pct, difference, allowed_logit_difference(tolerance, reference))
    else:
        lost = 100.0 - agreement_pct if reference_acc is None else reference_acc - exported_acc
        words, found = _judge_quantised(lost, DEFAULT_POINTS_LOST if tolerance is None else tolerance, inputs.labelled)
        if not np.isfinite(exported.logits_NC).all():
            found.append("some of its logits are not finite numbers")
    return Verification(
        data=inputs.description,
        num_samples=inputs.num_samples,
        labelled=inputs.labelled,
        reference_acc=reference_acc,
        exported_acc=exported_acc,
        agreement_pct=agreement_pct,
        max_logit_difference=difference if np.isfinite(difference) else None,
        largest_logit=_largest(reference),
        reference_only=reference_only,
        exported_only=exported_only,
        p_value=p_value,
        tolerance=words,
        batch_sizes=BATCH_SIZES,
        problems=(*problems, *found),
    )


def _judge_exact(agreement_pct: float, difference: float, allowed: float) -> tuple[str, list[str]]:
    words = f"logits within {allowed:.1e}, agreement of at least {MIN_AGREEMENT_PCT}%"
    problems = []
    if not difference <= allowed:  # NaN fails too
        problems.append(f"its logits differ by up to {difference:.1e}, and {allowed:.1e} is allowed")
    if agreement_pct < MIN_AGREEMENT_PCT:
        problems.append(f"it agrees on {agreement_pct:.2f}% of the samples, and {MIN_AGREEMENT_PCT}% are required")
    return words, problems


def _judge_quantised(lost: float, allowed: float, labelled: bool) -> tuple[str, list[str]]:
    what = "points of accuracy" if labelled else "percent of the predictions"
    words = f"at most {allowed:g} {what} lost"
    # Percentages of counts: a loss of exactly what is allowed must not fail by the last bit.
    if lost <= allowed + 1e-9:
        return words, []
    return words, [f"{lost:.2f} {what} are lost, and {allowed:g} are allowed"]


def _problems_with_batch(
    engine: Engine, batch: npt.NDArray[np.float32], reference: Outputs, tolerance: float | None, precision: str
) -> list[str]:
    """What is wrong with the answers to the first samples as one batch; of a quantised model only whether it runs."""
    size = len(batch)
    try:
        engine.try_out(batch)
    except (InputFileError, UsageError, RunFailedError) as error:
        raise CheckFailedError(
            f"what was written does not run at batch size {size}: it {error.message}",
            hint="take the batch size from the input's shape in the model's forward, without int()",
        ) from error
    if precision != "fp32":
        return []
    expected = reference.logits_NC[np.arange(size) % len(reference.logits_NC)]
    difference = float(np.abs(engine(batch) - expected).max())
    if difference <= allowed_logit_difference(tolerance, reference):
        return []
    return [f"at batch size {size} its logits differ by up to {difference:.1e}"]


def _largest(outputs: Outputs) -> float:
    return float(np.abs(outputs.logits_NC).max())


def _differences(engine: Engine, expected: ModelMetadata) -> str:
    found, wanted = vars(engine.metadata), vars(expected)
    names = [name for name in wanted if name != "model_spec" and found[name] != wanted[name]]
    spec, wanted_spec = found["model_spec"], wanted["model_spec"]
    names += [name for name in {**spec, **wanted_spec} if spec.get(name) != wanted_spec.get(name)]
    return ", ".join(names)
