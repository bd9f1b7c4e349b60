"""What may be said about two sides: comparability first, then the verdict, and never more than the runs carry."""

from __future__ import annotations

import numpy as np
import pytest

from common.comparison.as_json import comparison_document
from common.comparison.evidence import compare, require_scores
from common.comparison.measures import BY_KEY, MEASURES
from common.comparison.report import cost_section, lead, metrics_sections
from common.comparison.runs import load_side
from common.comparison.significance import significance_section
from common.comparison.wording import documented_yardstick, headline
from common.exits import InputFileError
from common.statistics import mcnemar
from tests.comparison_runs import change_metrics, epoch, predictions, write_run, write_seeds


def compared(baseline, optimized, **options):
    return compare(load_side("baseline", [baseline]), load_side("optimized", [optimized]), **options)


@pytest.fixture
def sides(tmp_path):
    """Makes two folders of seeds from their counts of right answers."""

    def make(baseline, optimized, **options):
        return (
            write_seeds(tmp_path / "baseline", baseline),
            write_seeds(tmp_path / "optimized", optimized, mode="optimization", **options),
        )

    return make


@pytest.mark.parametrize(
    ("baseline", "optimized", "verdict", "start"),
    [
        ([180, 182, 181], [190, 191, 192], "better", "**Better**: validation accuracy goes from 90.50% to 95.50%"),
        ([190, 191, 192], [180, 182, 181], "worse", "**Worse**"),
        ([180, 186, 178], [182, 180, 190], "not enough evidence", "**Not enough evidence**: "),
        ([180, 182], [190, 193], "not enough evidence", "**Not enough evidence**"),
    ],
)
def test_verdicts(sides, baseline, optimized, verdict, start):
    comparison = compared(*sides(baseline, optimized))
    assert comparison.verdict == verdict
    assert headline(comparison).startswith(start)
    assert comparison.comparable and comparison.paired


def test_small_and_equivalent_by_the_users_margin(sides):
    folders = sides([180, 182, 181, 183], [182, 184, 182, 185])
    assert compared(*folders).verdict == "better"
    assert compared(*folders, margin=2.0).verdict == "real but small"
    noisy = compared(*folders, metric="val_f1", margin=0.5)
    assert noisy.verdict == "real but small"
    assert "less than the 0.5000 that matter" in headline(noisy)


def test_equivalent(sides):
    comparison = compared(*sides([180, 182, 181, 183], [181, 181, 182, 182]), margin=1.0)
    assert comparison.verdict == "equivalent"
    assert "within 1.00 points either way" in headline(comparison)


def test_lost_evidence_never_reads_as_no_difference(sides):
    folders = sides([180, 186, 178], [182, 180, 190])
    text = lead(compared(*folders)) + significance_section(compared(*folders))
    assert "no difference" not in text.replace("which is not the same as no difference", "")
    assert "could only have shown a difference of" in text


def test_loss_is_better_when_lower(sides):
    comparison = compared(*sides([180, 182, 181], [190, 191, 192]), metric="val_loss")
    assert comparison.assessment.effect < 0
    assert comparison.verdict == "better"
    assert comparison.margin == 0.01


def test_one_run_a_side_speaks_about_two_models(tmp_path):
    first = write_run(tmp_path / "a", num_right=160)
    second = write_run(tmp_path / "b", num_right=192, mode="optimization")
    comparison = compared(first, second)
    assert comparison.verdict == "not enough evidence"
    right = [predictions(160, 42)["predicted"] == predictions(160, 42)["label"],
             predictions(192, 1042)["predicted"] == predictions(192, 1042)["label"]]  # fmt: skip
    expected = mcnemar(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
    assert comparison.models.test == expected
    assert comparison.models.interval.effect == pytest.approx(16.0)
    assert comparison.models.differ
    text = headline(comparison)
    assert "about the configurations" in text
    assert "these two trained models differ" in text and "about one of five cases" in text
    assert f"about {comparison.models.needed_for_effect} seeds a side would show a difference of 16.00 points" in text


def test_alike_models_are_no_equal_configurations(tmp_path):
    text = headline(compared(write_run(tmp_path / "a", num_right=190), write_run(tmp_path / "b", num_right=191)))
    assert "these two trained models cannot be told apart on 200 examples (p = 1.0000); about" in text
    assert text.startswith("**Not enough evidence** about the configurations")


def test_without_predictions_one_run_a_side_is_only_described(tmp_path):
    first = write_run(tmp_path / "a", num_right=160, with_predictions=False)
    second = write_run(tmp_path / "b", num_right=192)
    comparison = compared(first, second)
    assert comparison.models is None
    assert "predictions_val.npz is missing" in significance_section(comparison)
    assert headline(comparison).endswith("with one run a side; train three seeds a side or more.")


@pytest.mark.parametrize("metric", ["val_loss", "val_f1", "val_precision", "val_recall", "train_acc"])
def test_other_measures_of_one_run_a_side(tmp_path, metric):
    comparison = compared(
        write_run(tmp_path / "a", num_right=160), write_run(tmp_path / "b", num_right=192, seed=42), metric=metric
    )
    assert (comparison.models.interval is None) == metric.startswith("train")
    assert comparison.verdict == "not enough evidence"
    assert significance_section(comparison)


def test_the_same_training_twice_is_equal(sides):
    comparison = compared(*sides([190, 191, 192], [190, 191, 192]))
    assert (comparison.identical, comparison.verdict) == (True, "equivalent")
    assert "bit by bit" in headline(comparison)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document["run"]["dataset"].update(fingerprint="b" * 64), "the data differ"),
        (lambda document: document["run"]["dataset"].update(num_val=199), "the validation sets differ"),
        (lambda document: document["run"]["dataset"].update(class_names=list("dcba")), "the validation sets differ"),
        (lambda document: document["best"].update(metric="val_acc"), "the best epoch is chosen by"),
    ],
)
def test_what_cannot_be_compared_is_said_first(sides, change, message):
    baseline, optimized = sides([180, 182, 181], [190, 191, 192])
    for folder in optimized.iterdir():
        change_metrics(folder, change)
    comparison = compared(baseline, optimized)
    assert comparison.verdict == "not comparable"
    text = lead(comparison)
    assert text.startswith("These runs are not comparable:\n\n- " + message)
    assert "**Not comparable**" in text and "**Better**" not in text
    assert comparison_document(comparison)["comparable"] is False


def test_other_validation_examples_are_found_in_the_predictions(tmp_path):
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    arrays = predictions(190, 42)
    np.savez(second / "predictions_val.npz", **{**arrays, "index": arrays["index"] + 1})
    assert "their examples or labels are not the same" in lead(compared(first, second))


def test_seeds_of_several_configurations_are_no_seeds_of_one(tmp_path):
    baseline = write_seeds(tmp_path / "a", [190, 191])
    write_run(baseline / "seed_50", seed=50, overrides=["model.dropout=0.4"])
    comparison = compared(baseline, write_seeds(tmp_path / "b", [190, 191]))
    assert not comparison.comparable
    assert "the baseline runs differ in more than their seed: model.dropout" in lead(comparison)


def test_other_seeds_are_compared_unpaired_and_said_to_be(tmp_path):
    comparison = compared(
        write_seeds(tmp_path / "a", [180, 182, 181]), write_seeds(tmp_path / "b", [190, 191, 192], first_seed=60)
    )
    assert not comparison.paired
    assert comparison.verdict == "better"
    assert "the seeds differ: 42, 43, 44 for the baseline, 60, 61, 62" in lead(comparison)
    assert "Welch's t test" in significance_section(comparison)
    assert comparison.assessment.trials == 9


def test_common_seeds_are_paired_and_the_rest_left_out(tmp_path):
    comparison = compared(
        write_seeds(tmp_path / "a", [180, 182, 181, 120]), write_seeds(tmp_path / "b", [190, 191, 192])
    )
    assert [pair[0].seed for pair in comparison.pairs] == [42, 43, 44]
    assert comparison.means(BY_KEY["val_acc"]) == (pytest.approx(90.5), pytest.approx(95.5))
    assert "1 runs without a partner are left out" in significance_section(comparison)


def test_a_failed_seed_forbids_a_verdict(sides):
    baseline, optimized = sides([180, 182, 181], [190, 191, 192])
    write_run(baseline / "seed_45", seed=45, num_right=181)
    failed = [epoch(1, 10.0, val_loss=None) | {"val_acc": None}]
    write_run(optimized / "seed_45", seed=45, status="failed", epochs=failed, mode="optimization")
    comparison = compared(baseline, optimized)
    assert comparison.verdict == "not enough evidence"
    text = lead(comparison)
    assert "seed_45 failed after 1 epoch" in text
    assert "without it the rest is no fair sample" in text


def test_an_interrupted_run_is_named(tmp_path):
    comparison = compared(write_run(tmp_path / "a"), write_run(tmp_path / "b", status="interrupted", num_right=180))
    assert "was interrupted after 3 epochs" in lead(comparison)
    assert comparison.comparable


def test_a_side_without_any_score_is_refused(tmp_path):
    nothing = write_run(tmp_path / "b", status="failed", epochs=[])
    comparison = compared(write_run(tmp_path / "a"), nothing)
    with pytest.raises(InputFileError, match="there is no val_acc of a best epoch"):
        require_scores(comparison)
    assert comparison.assessment is None
    assert headline(comparison).startswith("**Not enough evidence**")


def test_secondary_measures_are_corrected(sides):
    comparison = compared(*sides([180, 182, 181, 184], [190, 191, 192, 195]))
    assert {test.measure.key for test in comparison.secondary} <= {m.key for m in MEASURES} - {"val_acc"}
    count = len(comparison.secondary)
    smallest = min(comparison.secondary, key=lambda test: test.p_value)
    assert count >= 4
    assert smallest.corrected_p == pytest.approx(count * smallest.p_value)
    assert all(test.corrected_p >= test.p_value for test in comparison.secondary)


def test_tables_hold_absolute_and_relative_improvement(sides):
    sections = dict(metrics_sections(compared(*sides([180, 180, 180], [189, 189, 189]))))
    row = next(line for line in sections["Metrics at the best epoch"].splitlines() if "Validation accuracy" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:6] == ["Validation accuracy", "90.00% ± 0.00", "94.50% ± 0.00", "+4.50", "+5.00%", "better"]
    loss = next(line for line in sections["Metrics at the final epoch"].splitlines() if "Validation loss" in line)
    assert "-0.0750" in loss and "better" in loss


@pytest.mark.parametrize(("optimized", "expected"), [(187, "this is a"), (186, "this is not a")])
def test_the_documented_yardstick_is_about_size(tmp_path, optimized, expected):
    comparison = compared(write_run(tmp_path / "a", num_right=180), write_run(tmp_path / "b", num_right=optimized))
    text = documented_yardstick(comparison)
    assert f"{expected} 'significant improvement'" in text
    assert comparison.verdict == "not enough evidence"


def test_cost_and_unlike_machines(tmp_path):
    first = write_run(tmp_path / "a")
    second = write_run(tmp_path / "b", epochs=[epoch(1, 90.0, gpu_energy_j=30.0), epoch(2, 95.0, gpu_energy_j=40.0)])
    text = (second / "environment.json").read_text().replace('"num_threads": 1', '"num_threads": 8')
    (second / "environment.json").write_text(text)
    section = cost_section(compared(first, second))
    energy = next(line for line in section.splitlines() if "GPU energy" in line)
    assert "n/a" in energy and "70 J" in energy
    assert "- threads: 1 for the baseline, 8 for the optimized side" in section


def test_json_is_strict_and_complete(sides):
    import json

    document = comparison_document(compared(*sides([180, 182, 181], [190, 191, 192])))
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again["verdict"] == "better"
    assert again["improvement"] == {"absolute": pytest.approx(5.0), "relative_pct": pytest.approx(500 / 90.5)}
    assert again["assessment"]["wins"] == 3
    assert [run["seed"] for run in again["runs"]["optimized"]] == [42, 43, 44]
