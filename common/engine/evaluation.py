"""Measuring a model on a split, without leaving a trace in the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from common.classification_metrics import ClassificationMetrics, classification_metrics
from common.engine.parts import EvaluationSet, Parts
from common.engine.training_step import is_out_of_memory
from common.exits import RunFailedError
from common.seeding import preserve_rng


@dataclass(frozen=True)
class Evaluation:
    """What a model says about a split.

    ``loss`` is the mean cross-entropy in nats, without smoothing or class weights, so that it can be compared across
    configurations and with ln C. ``logits_BC`` is float32, ``labels_B`` int64, both in the split's order.
    """

    loss: float
    labels_B: np.ndarray
    logits_BC: np.ndarray
    metrics: ClassificationMetrics

    @property
    def predictions_B(self) -> np.ndarray:
        return self.logits_BC.argmax(axis=1)


def evaluate(parts: Parts, samples: EvaluationSet, check_stop: Callable[[], None] | None = None) -> Evaluation:
    """Run the model in eval mode over ``samples``. Its mode and every random stream are as before afterwards.

    Several processes share the work, and all get the result, over exactly the given samples.

    Args:
        check_stop: called after every batch; may raise to end early.
    Raises:
        RunFailedError: not even one sample fits into memory.
    """
    model = parts.state.model
    was_training = model.training
    model.eval()
    try:
        with preserve_rng(), torch.inference_mode():
            outputs = _outputs(parts, samples, check_stop)
    finally:
        model.train(was_training)
    logits_BC, labels_B = _in_order(parts.world.gather(outputs))
    return _summary(logits_BC, labels_B, parts.settings.num_classes)


def _outputs(
    parts: Parts, samples: EvaluationSet, check_stop: Callable[[], None] | None
) -> list[tuple[Tensor, Tensor]]:
    """Logits and labels of this process's part of every batch, on the CPU."""
    shares = [parts.world.slice_of(indices) for indices in samples.index_batches]
    stream = samples.source.batches([share for share in shares if len(share)])
    outputs = []
    for share in shares:
        if len(share) == 0:
            outputs.append((torch.empty(0, parts.settings.num_classes), torch.empty(0, dtype=torch.int64)))
            continue
        batch = next(stream)
        outputs.append((_logits(parts, batch.inputs), batch.labels.cpu()))
        if check_stop is not None:
            check_stop()
    return outputs


def _logits(parts: Parts, inputs: Tensor) -> Tensor:
    """float32 (B, C) on the CPU, in as many pieces as memory calls for; what fits is remembered in ``parts``."""
    while True:
        size = min(parts.evaluation_batch_limit or len(inputs), len(inputs))
        pieces = _logits_of_pieces(parts, inputs.split(size))
        if pieces is not None:
            return torch.cat(pieces)
        if size == 1:
            raise RunFailedError("out of memory with 1 sample in an evaluation", hint="take a smaller model or images")
        # A training that goes on from a checkpoint finds this out again, at the same place and with the same pieces.
        parts.evaluation_batch_limit = size // 2
        if parts.device.type == "cuda":
            torch.cuda.empty_cache()


def _logits_of_pieces(parts: Parts, pieces: Sequence[Tensor]) -> list[Tensor] | None:
    """One after the other; None where memory runs out."""
    try:
        with parts.autocast():
            return [parts.state.model(piece).float().cpu() for piece in pieces]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def _in_order(outputs_of_ranks: list[list[tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
    """All logits and labels in the split's order: batch by batch, and in each process by process."""
    pieces = [piece for batch in zip(*outputs_of_ranks, strict=True) for piece in batch]
    return torch.cat([logits for logits, _ in pieces]), torch.cat([labels for _, labels in pieces])


def _summary(logits_BC: Tensor, labels_B: Tensor, num_classes: int) -> Evaluation:
    # Summed in float64: the mean then depends on neither the batch size nor the order of large and small terms.
    losses_B = functional.cross_entropy(logits_BC, labels_B, reduction="none")
    logits, labels = logits_BC.numpy(), labels_B.numpy()
    return Evaluation(
        loss=float(losses_B.double().mean()),
        labels_B=labels,
        logits_BC=logits,
        metrics=classification_metrics(labels, logits.argmax(axis=1), num_classes),
    )
