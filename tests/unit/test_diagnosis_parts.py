"""What a diagnosis is made of: confidence, the documented logic, suspects, files of a run, and the next config."""

from __future__ import annotations

import contextlib
import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.comparison.predictions import Predictions
from common.config import config_differences, load_config
from common.diagnosis.diagnosing import diagnose
from common.diagnosis.documented import documented_issue, documented_thresholds
from common.diagnosis.findings import log_strength, strength
from common.diagnosis.inputs import read_evidence, read_results_report
from common.diagnosis.next_config import next_config, next_config_text
from common.diagnosis.report import ReportParts, expected_improvement, next_step, report_text
from common.diagnosis.suspects import confident_disagreements, suspects
from common.exits import InputFileError
from common.guides import load_all_guides
from tests.diagnosed_runs import RunBuilder

GUIDES = load_all_guides()


def test_strength_is_half_where_doubtful_and_grows_towards_certain():
    assert strength(8.0, 8.0, 16.0) == 0.5
    assert strength(16.0, 8.0, 16.0) == pytest.approx(0.95)
    assert strength(20.0, 24.5, 20.0) == pytest.approx(0.95)  # small values are the suspicious ones
    assert strength(27.0, 24.5, 20.0) < 0.5
    assert log_strength(10.0, 10.0, 1000.0) == 0.5
    assert log_strength(100.0, 10.0, 1000.0) == pytest.approx(0.725)


@given(st.floats(-1e100, 1e100), st.floats(1e-3, 1e3), st.floats(1.5, 100.0))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_strength_stays_a_confidence(value, doubtful, factor):
    assert 0.0 <= strength(value, doubtful, doubtful * factor) <= 0.99
    assert 0.0 <= log_strength(value, doubtful, doubtful * factor) <= 0.99


# The documentation's decision logic, by its letter


@pytest.mark.parametrize(
    ("changes", "guide"),
    [
        ({"train_acc": 99.0, "val_acc": 80.0}, "overfitting"),
        ({"train_acc": 99.0, "val_acc": 50.0}, "overfitting"),  # the first branch that is taken
        ({"train_acc": 70.0, "val_acc": 68.0}, "underfitting"),
        ({"train_acc": 90.0, "val_acc": 88.0}, None),
        ({"train_acc": 90.0, "val_acc": 88.0, "gpu_util": 59.0}, "resource_inefficiency"),
        ({"train_acc": 90.0, "val_acc": 88.0, "gpu_util": 60.0}, None),
        ({"train_acc": 95.0, "val_acc": 80.0}, None),  # exactly 15 points are not more than 15
    ],
)
def test_the_documented_branches(changes, guide, tmp_path):
    run = RunBuilder()
    run.each_epoch(**changes)
    assert documented_issue(run.evidence(tmp_path)) == guide


def test_the_documented_spread_is_that_of_all_epochs(tmp_path):
    run = RunBuilder()
    for record in run.document["epochs"]:
        record |= {"train_acc": 99.0, "val_acc": 95.0 if record["num"] > 5 else 70.0}
    evidence = run.evidence(tmp_path)
    assert documented_issue(evidence) == "data_quality"
    assert [threshold.is_crossed for threshold in documented_thresholds(evidence)] == [False, False, True, False]


# Suspicious samples


def test_confident_disagreement_is_measured_against_the_class_itself():
    """Worked by hand: class 0 is usually given 0.9, class 1 is given 0.6 on average."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.95, 0.05], [0.15, 0.85]])
    labels = np.array([0, 0, 1, 1, 1, 1])
    order = np.arange(len(labels))
    predictions = Predictions(order, labels, probabilities.argmax(axis=1), np.log(probabilities).astype(np.float32))
    assert confident_disagreements(predictions).tolist() == [False, False, False, False, True, False]


def test_suspects_name_what_the_network_contradicts_most_first(tmp_path):
    run = RunBuilder()
    run.contradicted = 0.02
    evidence = run.evidence(tmp_path)
    np.savez(tmp_path / "sample_history.npz", margin_mean=np.array([1.0, -0.5, np.nan, -2.0], dtype=np.float32))
    found = suspects(evidence, most=3)
    assert [(item.split, item.index) for item in found if item.split == "train"] == [("train", 3), ("train", 1)]
    val = [item for item in found if item.split == "val"]
    assert len(val) == 3 and all(item.looks_like == str((int(item.label) + 1) % 10) for item in val)


def test_a_network_that_has_learnt_nothing_contradicts_nobody(tmp_path):
    run = RunBuilder()
    run.accuracies(15.0, 40 / 2.7)
    assert suspects(run.evidence(tmp_path)) == []


def test_a_damaged_history_only_costs_its_suspects(tmp_path):
    evidence = RunBuilder().evidence(tmp_path)
    (tmp_path / "sample_history.npz").write_bytes(b"no archive")
    assert all(item.split == "val" for item in suspects(evidence))


# The next config


def next_of(run, folder):
    evidence = run.evidence(folder)
    diagnosis = diagnose(evidence)
    return evidence, diagnosis, next_config(evidence, evidence.config, diagnosis, GUIDES)


def low_rate():
    run = RunBuilder()
    run.accuracies(14.0, 38 / 2.7)
    run.initial(update_to_weight_median=3e-5)
    run.each_health("weights", update_to_weight_median=2e-5)
    run.config["optimizer"]["learning_rate"] = 2e-6
    return run


def test_the_next_config_says_what_was_and_why_and_reads_back(tmp_path):
    evidence, diagnosis, planned = next_of(low_rate(), tmp_path / "run")
    path = tmp_path / "next.yaml"
    path.write_text(next_config_text(planned, [diagnosis.headline()]), encoding="utf-8")
    text = path.read_text()
    assert text.startswith("# Primary issue: convergence_stall (confidence ")
    assert "  learning_rate: 0.0002  # was 2e-06: increase the learning rate by 10x, 2 times\n" in text
    loaded = load_config(path, mode="optimization").config
    assert loaded == planned.config
    assert [key for key, _, _ in config_differences(evidence.config, loaded)] == ["optimizer.learning_rate"]


def test_lists_that_change_are_noted_too(tmp_path):
    run = RunBuilder()
    run.each_epoch(train_acc=100.0, val_acc=210 / 2.7)
    run.document["signals"]["data"]["linear_acc_pct"] = 70.0
    for split in ("train", "val"):
        run.split(split, nearest_neighbour_agreement_pct=75.0)
    _, diagnosis, planned = next_of(run, tmp_path / "run")
    assert diagnosis.issue == "overfitting"
    path = tmp_path / "next.yaml"
    path.write_text(next_config_text(planned, []), encoding="utf-8")
    assert load_config(path).config == planned.config
    noted = [line for line in path.read_text().split("\n") if "  # was " in line]
    assert len(noted) == len({change.key for change in planned.changes}) >= 4
    assert any(line.startswith("  transforms:  # was []: ") for line in noted)


def test_nothing_is_changed_where_nothing_is_wrong(tmp_path):
    evidence, _, planned = next_of(RunBuilder(), tmp_path)
    assert planned.changes == [] and planned.config == evidence.config


def test_a_missed_target_without_a_fault_leads_to_general_improvements(tmp_path):
    run = RunBuilder()
    run.config["target"] = {"val_acc": 99.9}
    evidence, diagnosis, planned = next_of(run, tmp_path)
    assert diagnosis.primary is None
    assert {change.recommendation_id for change in planned.changes} <= {
        item.id for item in GUIDES["general_improvement"].recommendations
    }
    assert planned.changes
    assert next_step(evidence, diagnosis, None).startswith("Phase 4")


def test_where_to_go_next_depends_on_what_can_mend_it(tmp_path):
    healthy = RunBuilder().evidence(tmp_path / "sound")
    assert next_step(healthy, diagnose(healthy), None).startswith("Phase 5")
    slow = low_rate().evidence(tmp_path / "slow")
    assert next_step(slow, diagnose(slow), None).startswith("Phase 4")
    leaking = RunBuilder()
    leaking.split("val", num_in_train=90)
    shared = leaking.evidence(tmp_path / "leak")
    assert next_step(shared, diagnose(shared), None).startswith("Back to phase 2")


def test_expected_improvement_says_where_its_number_comes_from(tmp_path):
    text = expected_improvement(low_rate().evidence(tmp_path))
    assert text is not None and "81.9 points" in text and "96.0%" in text  # 96 minus 38 of 270


def test_the_report_has_every_part(tmp_path):
    evidence, diagnosis, planned = next_of(low_rate(), tmp_path)
    text = report_text(evidence, diagnosis, GUIDES, ReportParts(planned=planned, curves="a b.png"))
    assert text.split("\n")[0] == diagnosis.headline()
    for heading in ("Verdict", "Evidence", "Learning curves", "Root causes", "Recommendations", "Configuration preview",
                    "Suspicious samples", "Documented thresholds", "Next"):  # fmt: skip
        assert f"\n## {heading}\n" in text
    assert "](a%20b.png)" in text
    assert "| optimizer.learning_rate | 2e-06    | 0.0002 |" in text
    assert "Bengio 2012" in text, "the gain comes with its source"


# The files of a run

REPORT = """\
# Baseline results: sample

**Date:** 2026-01-01T00:00:00+00:00  
**Duration:** 1s

## Environment and seeds

| What             | Value                    |
| ---------------- | ------------------------ |
| Seed             | 42                       |
| Configuration    | sha256 {config}… |
| Data fingerprint | sha256 0000000000000000… |

## Configuration

```yaml
{yaml}
```
"""


@pytest.fixture
def pair(tmp_path):
    """A metrics.json copied away from its run, and the results report in the run's folder."""
    run = RunBuilder()
    run.document["run"]["config_sha256"] = "a" * 64
    folder = tmp_path / "run"
    run.evidence(folder)
    report = folder / "baseline_results.md"
    report.write_text(REPORT.format(config="a" * 16, yaml=(folder / "config.yaml").read_text()), encoding="utf-8")
    metrics = tmp_path / "copied.json"
    (folder / "metrics.json").rename(metrics)
    return metrics, report


def test_metrics_and_report_of_one_run_are_read_together(pair):
    metrics, report = pair
    evidence = read_evidence(metrics, report)
    assert evidence.config is not None and evidence.config.optimizer.learning_rate == 0.002
    assert evidence.run.folder.predictions("val").exists(), (
        "what does not lie beside the metrics lies beside the report"
    )


def test_the_report_holds_the_config_where_the_folder_is_gone(pair):
    metrics, report = pair
    for path in report.parent.iterdir():
        if path != report:
            path.unlink()
    evidence = read_evidence(metrics, report)
    assert evidence.config is not None and evidence.config.optimizer.learning_rate == 0.002


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("started_at", "2026-02-02T00:00:00+00:00", "started at"),
        ("seed", 43, "seed 42 against 43"),
        ("config_sha256", "b" * 64, "configuration aaaaaaaaaaaaaaaa against bbbbbbbbbbbbbbbb"),
    ],
)
def test_files_of_different_runs_are_refused(pair, field, value, said):
    metrics, report = pair
    document = json.loads(metrics.read_text())
    document["run"][field] = value
    metrics.write_text(json.dumps(document))
    with pytest.raises(InputFileError, match="is of another run") as caught:
        read_evidence(metrics, report)
    assert said in str(caught.value) and str(report) in str(caught.value) and str(metrics) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"# Something else\n", b"\xff\xfe"])
def test_other_files_are_no_results_reports(tmp_path, content):
    path = tmp_path / "other.md"
    path.write_bytes(content)
    with pytest.raises(InputFileError):
        read_results_report(path)
    with pytest.raises(InputFileError, match="no such file"):
        read_results_report(tmp_path / "missing.md")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def paths_of(value, path=()):
    """Every place in a nested value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_of(inner, (*path, key))


SOUND = RunBuilder().document
PLACES = [path for path in paths_of({**SOUND, "epochs": SOUND["epochs"][:1]}) if path and path != ("schema_version",)]


@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON), min_size=1, max_size=4))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_whatever_a_metrics_file_holds_it_is_diagnosed_or_refused(tmp_path_factory, changes):
    document = RunBuilder().document
    for path, value in changes:
        with contextlib.suppress(KeyError, IndexError, TypeError):  # an earlier change took the place away
            functools.reduce(lambda inner, key: inner[key], path[:-1], document)[path[-1]] = value
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
    try:
        evidence = read_evidence(folder)
    except InputFileError:
        return
    diagnosis = diagnose(evidence)
    assert 0.0 <= diagnosis.confidence <= 1.0
    assert report_text(evidence, diagnosis, GUIDES, ReportParts(planned=None)).startswith("Primary issue: ")
