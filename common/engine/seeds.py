"""The same training once per seed, and how far the results spread."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import atomic, markdown
from common.console import Console
from common.engine.claim import finished_metrics
from common.engine.run import train
from common.engine.session import RunRequest
from common.exits import UsageError
from common.metrics_file import write_metrics
from common.run_folder import RunFolder
from common.signals import StopSignals

_MEASURES = (
    ("best", "val_acc", "Validation accuracy (%)"),
    ("best", "val_loss", "Validation loss"),
    ("best", "val_f1", "Validation F1 (macro)"),
    ("test", "test_acc", "Test accuracy (%)"),
    ("test", "test_loss", "Test loss"),
    ("test", "test_f1", "Test F1 (macro)"),
)


def train_seeds(output_dir: Path, requests: Mapping[int, RunRequest], console: Console, stop: StopSignals) -> dict:
    """Train once per seed, leaving alone what is finished, and write the summary.

    Args:
        requests: what to train, by seed, each into ``output_dir/seed_SEED``.
    Returns:
        ``{"seeds", "runs": {seed: folder}, "summary": {measure: {mean, std, min, max, values}}}``; ``std`` is that of a
        sample (n - 1), None for one seed.
    Raises:
        UsageError: ``output_dir`` is itself a run.
    """
    if RunFolder(output_dir).holds_run():
        raise UsageError(
            "is a single run", path=output_dir, field="--output-dir", hint="with --seeds choose a folder for several"
        )
    documents = {}
    for number, (seed, request) in enumerate(requests.items(), 1):
        finished = finished_metrics(request)
        state = ", already finished" if finished else ""
        console.info(f"Seed {seed} ({number} of {len(requests)}{state})")
        documents[seed] = finished or train(request, console, stop)
    result = {
        "schema_version": 1,
        "seeds": list(documents),
        "runs": {str(seed): str(request.output_dir) for seed, request in requests.items()},
        "summary": _summary(list(documents.values())),
    }
    write_metrics(output_dir / "seeds.json", result)
    mode = next(iter(requests.values())).mode
    report = output_dir / f"{mode}_seeds.md"
    atomic.write_text(report, _as_markdown(mode, documents, result["summary"]))
    console.info(f"Summary: {report}")
    return result


def summary_lines(result: Mapping) -> list[str]:
    """The spread for people, one line per measure."""
    lines = []
    for key, values in result["summary"].items():
        spread = "" if values["std"] is None else f" ± {values['std']:.4g}"
        count = len(values["values"])
        lines.append(f"{key}: {values['mean']:.4g}{spread} ({values['min']:.4g} to {values['max']:.4g}, {count} seeds)")
    return lines


def _summary(documents: Sequence[Mapping]) -> dict:
    summary = {}
    for part, key, _ in _MEASURES:
        values = [document[part][key] for document in documents if document.get(part)]
        if len(values) == len(documents):
            summary[key] = {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "min": min(values),
                "max": max(values),
                "values": values,
            }
    return summary


def _as_markdown(mode: str, documents: Mapping[int, Mapping], summary: Mapping) -> str:
    measures = [(part, key, title) for part, key, title in _MEASURES if key in summary]
    runs = [
        (
            seed,
            doc["run"]["status"],
            (doc["best"] or {}).get("epoch", "-"),
            *(f"{doc[p][k]:.4f}" for p, k, _ in measures),
        )
        for seed, doc in documents.items()
    ]
    spread = [
        (
            title,
            f"{summary[key]['mean']:.4f}",
            "-" if summary[key]["std"] is None else f"{summary[key]['std']:.4f}",
            f"{summary[key]['min']:.4f} to {summary[key]['max']:.4f}",
        )
        for _, key, title in measures
    ]
    return markdown.document(
        f"{len(documents)} seeds, {mode} mode",
        [
            ("Spread", markdown.table(["Measure", "Mean", "Standard deviation", "Range"], spread)),
            ("Runs", markdown.table(["Seed", "Status", "Best epoch", *(title for _, _, title in measures)], runs)),
        ],
    )
