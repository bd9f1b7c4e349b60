"""What a run leaves behind when the training is over: predictions, the test, pictures, the report."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common import atomic, markdown
from common.checkpoints import CheckpointStore, inference_state, load_checkpoint
from common.console import format_duration
from common.engine.assembly import evaluation_set
from common.engine.evaluation import Evaluation, evaluate
from common.engine.recorder import RunRecorder, metrics_document
from common.engine.session import Session, run_description
from common.manifest import damaged_checkpoints
from common.plots import plot_confusion_matrix, plot_learning_curves
from common.results_report import decide, results_markdown, run_checks


def finish_run(session: Session, recorder: RunRecorder | None) -> dict:
    """Write everything that stands at the end of a run. metrics.json says it is finished last, when all is there.

    Args:
        recorder: None in a process that takes part in the evaluations and writes nothing.
    Returns:
        The metrics document; empty in a process that writes nothing.
    """
    if not session.request.reports:
        progress = session.parts.state.progress
        assert progress.finished is not None
        return {} if recorder is None else recorder.write_metrics(progress, progress.finished)
    _load_best_weights(session)
    validation = _evaluate(session, "val")
    test = _evaluate(session, "test") if _is_to_be_tested(session) else None
    if recorder is None:
        return {}
    _write_predictions(session.folder.predictions("val"), validation)
    session.parts.state.sample_history.write(session.folder.sample_history)
    test_part = None if test is None else _write_test(session, test)
    return _write_results(session, recorder, test_part)


def _write_results(session: Session, recorder: RunRecorder, test: dict | None) -> dict:
    progress, mode = session.parts.state.progress, session.request.mode
    assert progress.finished is not None
    document = metrics_document(run_description(session), progress, progress.finished, test)
    best_epoch = progress.best["epoch"] if progress.best else None
    title = f"{document['run']['dataset']['name']}, {session.request.loaded.config.model.architecture}, {mode}"
    plot_learning_curves(progress.history, best_epoch, session.folder.learning_curves, title)
    session.console.info(f"Training complete: {_summary(document)}")
    _write_report(session, document)
    session.console.info(f"Report: {session.folder.results(mode)}")
    session.console.info(f"Next: {next_command(session)}")
    # Last, since from here on the same command begins another run.
    return recorder.write_metrics(progress, progress.finished, test)


def next_command(session: Session) -> str:
    """What to type after this run."""
    plan, folder = session.parts.plan, session.folder.checkpoints
    saved = (plan.best_name, plan.last_name, *CheckpointStore(folder).sizes())
    name = next((name for name in saved if (folder / name).is_file()), "")
    link = Path("checkpoints") / session.request.mode / name
    path = link if link.exists() and link.resolve() == (folder / name).resolve() else folder / name
    return f"python checkpoint_inspector.py --checkpoint {path}"


def _next_phase(session: Session) -> str:
    """The first command of the phase that follows."""
    folder = session.folder.path
    best = session.folder.checkpoints / session.parts.plan.best_name
    return {
        "baseline": f"python diagnostic_tool.py --run {folder}",
        "optimization": "python compare_results.py --baseline results/baseline/metrics.json "
        f"--optimized {session.folder.metrics} --output comparison.md",
        "production": f"python export_model.py --checkpoint {best} --format onnx --output models/production_model.onnx",
    }[session.request.mode]


def _load_best_weights(session: Session) -> None:
    """Put the best epoch's weights into the model, where the run keeps them; else the last epoch's stay."""
    parts, plan, state = session.parts, session.parts.plan, session.parts.state
    if plan.save_best and state.progress.best is not None:
        weights = None
        if parts.world.is_main:
            weights = inference_state(load_checkpoint(session.folder.checkpoints / plan.best_name))
        state.model.load_state_dict(parts.world.from_main(weights))
    elif state.ema is not None:
        state.model.load_state_dict(state.ema.state_dict()["model_state_dict"])


def _evaluate(session: Session, split: str) -> Evaluation:
    parts = session.parts
    samples = parts.validation if split == "val" else evaluation_set(parts, split)
    return evaluate(parts, samples, session.stop.raise_if_requested if parts.world.is_alone else None)


def _is_to_be_tested(session: Session) -> bool:
    test_set, splits = session.request.loaded.config.test_set, session.parts.dataset.splits
    if not (test_set.enabled and test_set.evaluate_at_end):
        return False
    if "test" in splits and splits["test"].num_samples:
        return True
    session.notices.append("The data has no test split, so nothing was tested.")
    session.console.warning(session.notices[-1])
    return False


def _write_predictions(path: Path, evaluation: Evaluation) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        index=np.arange(len(evaluation.labels_B)),
        label=evaluation.labels_B,
        predicted=evaluation.predictions_B,
        logits=evaluation.logits_BC,
    )
    atomic.write_bytes(path, buffer.getvalue())


def _write_test(session: Session, evaluation: Evaluation) -> dict:
    dataset = session.parts.dataset
    _write_predictions(session.folder.predictions("test"), evaluation)
    document = test_document(evaluation, dataset.class_names)
    matrix = evaluation.metrics.confusion_matrix
    title = f"{dataset.name}, test set: {document['test_acc']:.2f}% of {len(evaluation.labels_B)} right"
    plot_confusion_matrix(matrix, dataset.class_names, session.folder.confusion_matrix, title)
    atomic.write_text(session.folder.test_results, _test_markdown(document, dataset.name))
    session.console.info(f"Test accuracy: {document['test_acc']:.2f}%")
    return document


def test_document(evaluation: Evaluation, class_names: list[str]) -> dict:
    """The ``test`` object of metrics.json."""
    metrics = evaluation.metrics
    per_class = [
        {"name": name, "support": row.support, "precision": row.precision, "recall": row.recall, "f1": row.f1}
        for name, row in zip(class_names, metrics.per_class, strict=True)
    ]
    return {
        "test_loss": evaluation.loss,
        "test_acc": metrics.accuracy_pct,
        "test_f1": metrics.f1,
        "test_precision": metrics.precision,
        "test_recall": metrics.recall,
        "per_class": per_class,
        "confusion_matrix": np.asarray(metrics.confusion_matrix).tolist(),
    }


test_document.__test__ = False  # no test, whatever pytest thinks of the name


def _test_markdown(test: Mapping, dataset_name: str) -> str:
    rows = [
        (row["name"], row["support"], f"{row['precision']:.4f}", f"{row['recall']:.4f}", f"{row['f1']:.4f}")
        for row in test["per_class"]
    ]
    totals = markdown.table(
        ["Metric", "Value"],
        [
            ("Accuracy", f"{test['test_acc']:.2f}%"),
            ("Loss", f"{test['test_loss']:.4f}"),
            ("F1 (macro)", f"{test['test_f1']:.4f}"),
            ("Precision (macro)", f"{test['test_precision']:.4f}"),
            ("Recall (macro)", f"{test['test_recall']:.4f}"),
        ],
    )
    return markdown.document(
        f"Test results: {dataset_name}",
        [
            ("", "The best checkpoint on data that no decision was based on."),
            ("Totals", totals),
            ("Per class", markdown.table(["Class", "Samples", "Precision", "Recall", "F1"], rows)),
            ("Confusion matrix", "![Counts of true against predicted class](confusion_matrix.png)"),
        ],
    )


def _write_report(session: Session, document: Mapping) -> None:
    folder, config = session.folder, session.request.loaded.config
    store = CheckpointStore(folder.checkpoints)
    checks = run_checks(
        document,
        unsound_checkpoints=[path.name for path, _ in damaged_checkpoints(folder.checkpoints)],
        num_checkpoints=len(store.sizes()),
        log_lines=folder.log.read_text(encoding="utf-8").count("\n"),
    )
    text = results_markdown(
        document,
        session.environment,
        config_text=folder.config.read_text(encoding="utf-8"),
        checkpoint_sizes=store.sizes(),
        checks=checks,
        decision=decide(
            document,
            checks,
            target_val_acc=config.target.val_acc,
            next_command=f"{next_command(session)}\n{_next_phase(session)}",
        ),
        notices=session.notices,
    )
    atomic.write_text(folder.results(session.request.mode), text)


def _summary(document: Mapping) -> str:
    best, epochs = document["best"], len(document["epochs"])
    took = f"{epochs} epochs in {format_duration(document['run']['duration_s'])}"
    early = " (stopped early)" if document["run"]["status"] == "early_stopped" else ""
    if best is None:
        return took + early
    return (
        f"{took}{early}; best epoch {best['epoch']}: Val Loss: {best['val_loss']:.4f} | Val Acc: {best['val_acc']:.1f}%"
    )
