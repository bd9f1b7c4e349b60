"""The report's judgement: what it checks, what it advises, and that it says what the metrics say."""

from __future__ import annotations

import copy

import pytest

from common.results_report import Check, decide, results_markdown, run_checks


def epoch(num: int, train_loss: float | None, val_acc: float, gpu_util: float | None = None) -> dict:
    return {
        "num": num, "train_loss": train_loss, "train_acc": val_acc + 1, "val_loss": 2.0 - num / 10, "val_acc": val_acc,
        "val_f1": val_acc / 100, "val_precision": 0.5, "val_recall": 0.25, "lr": 0.01, "time_s": 2.0,
        "data_time_s": 0.5, "samples_per_s": 1500.0, "gpu_util": gpu_util,
        "gpu_mem_gb": None if gpu_util is None else 3.0, "cpu_util": 80.0,
    }  # fmt: skip


def metrics(*epochs: dict, status: str = "completed", **more) -> dict:
    best = max(epochs, key=lambda record: record["val_acc"], default=None)
    return {
        "schema_version": 1,
        "run": {
            "mode": "baseline", "status": status, "seed": 42, "config_sha256": "c" * 64, "device": "cpu",
            "num_parameters": 12345, "started_at": "2026-01-01T00:00:00+00:00", "duration_s": 130.0,
            "dataset": {"name": "digits", "fingerprint": "d" * 64, "num_train": 70, "num_val": 15, "num_test": 15,
                        "class_names": ["0", "1"]},
        },
        "epochs": list(epochs),
        "best": best and {"epoch": best["num"], "metric": "val_loss", **best},
        "events": [],
        "test": None,
        **more,
    }  # fmt: skip


GOOD = metrics(epoch(1, 2.0, 50.0), epoch(2, 1.0, 75.0))
SOUND = {"unsound_checkpoints": [], "num_checkpoints": 2, "log_lines": 30}


def outcome(document: dict, **changes) -> dict[str, bool | None]:
    return {check.what: check.passed for check in run_checks(document, **{**SOUND, **changes})}


def test_a_good_run_passes_all_checks():
    assert set(outcome(GOOD).values()) == {True, None}


@pytest.mark.parametrize(
    ("document", "changes", "failed"),
    [
        (metrics(epoch(1, 2.0, 50.0), epoch(2, 1.0, 60.0), status="failed"), {}, "Training completed"),
        (metrics(epoch(1, 2.0, 50.0), epoch(2, 2.5, 60.0)), {}, "Training loss fell"),
        (metrics(epoch(1, 2.0, 50.0), epoch(2, None, 5.0), epoch(3, 1.0, 60.0)), {}, "All losses finite"),
        (metrics(epoch(1, 2.0, 50.0, 40.0), epoch(2, 1.0, 60.0, 55.0)), {}, "GPU utilisation above 60%"),
        (GOOD, {"unsound_checkpoints": ["best_model.pt"]}, "Checkpoints sound"),
        (GOOD, {"num_checkpoints": 0}, "Checkpoints sound"),
        (GOOD, {"log_lines": 0}, "Logs written"),
    ],
)
def test_each_fault_fails_its_own_check_only(document, changes, failed):
    assert [what for what, passed in outcome(document, **changes).items() if passed is False] == [failed]


def test_a_busy_gpu_passes():
    document = metrics(epoch(1, 2.0, 50.0, 70.0), epoch(2, 1.0, 60.0, 55.0))
    assert outcome(document)["GPU utilisation above 60%"] is True


def test_a_cpu_run_has_no_gpu_to_judge():
    check = next(check for check in run_checks(GOOD, **SOUND) if "GPU" in check.what)
    assert check.passed is None and check.evidence == "n/a (CPU run)"


def test_one_epoch_cannot_show_whether_the_loss_falls():
    assert outcome(metrics(epoch(1, 2.0, 50.0)))["Training loss fell"] is None


def test_the_evidence_names_what_is_wrong():
    document = metrics(epoch(1, 2.0, 50.0), epoch(2, None, 5.0), epoch(3, 1.0, 60.0))
    checks = run_checks(document, unsound_checkpoints=["best_model.pt"], num_checkpoints=2, log_lines=1)
    evidence = " ".join(check.evidence for check in checks)
    assert "[2]" in evidence and "best_model.pt" in evidence and "2.0000 → 1.0000" in evidence


PASSED = [Check("All well", True, "")]


@pytest.mark.parametrize(
    ("target", "verdict"),
    [(None, "no target was set"), (75.0, "**Target met**"), (75.01, "**Target missed**"), (10.0, "**Target met**")],
)
def test_the_decision_follows_the_target(target, verdict):
    text = decide(GOOD, PASSED, target_val_acc=target, next_command="python next.py")
    assert verdict in text and "75.00%" in text and "```bash\npython next.py\n```" in text


def test_a_failed_check_outweighs_a_target_that_is_met():
    text = decide(GOOD, [*PASSED, Check("All losses finite", False, "")], target_val_acc=1.0, next_command="x")
    assert "Not good enough" in text and "all losses finite" in text and "Target met" not in text


def test_a_run_without_validated_epochs_is_not_good_enough():
    assert "no epoch was validated" in decide(metrics(), PASSED, target_val_acc=None, next_command="x")


def report(document: dict, **changes) -> str:
    arguments = {
        "environment": {"python": {"version": "3.11.7"}, "packages": {"torch": "2.13.0", "numpy": "2.4.6"}},
        "config_text": "model:\n  dropout: 0.5\n",
        "checkpoint_sizes": {"best_model.pt": 44_700_000},
        "checks": run_checks(document, **SOUND),
        "decision": "Go on.",
        "notices": ["something to know"],
    }
    return results_markdown(document, **{**arguments, **changes})


def row(text: str, title: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {title} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_report_shows_the_final_and_the_best_epoch():
    document = metrics(epoch(1, 2.0, 50.0), epoch(2, 1.0, 80.0), epoch(3, 0.5, 70.0))
    text = report(document)
    assert row(text, "Validation accuracy") == ["Validation accuracy", "70.00%", "80.00%"]
    assert row(text, "Train loss") == ["Train loss", "0.5000", "1.0000"]
    assert "Best epoch (2)" in text and "2m 10s" in text and "12,345 parameters" in text
    assert row(text, "checkpoints/best_model.pt")[1] == "44.7 MB"
    assert row(text, "Waiting for data")[1].startswith("25.0%")
    assert "- something to know" in text and "Go on." in text and "```yaml\nmodel:" in text


def test_what_was_not_measured_is_said_so():
    document = copy.deepcopy(GOOD)
    for key in ("val_loss", "val_acc", "val_f1", "val_precision", "val_recall", "train_acc"):
        document["epochs"][-1][key] = None
    assert row(report(document), "Validation accuracy")[1] == "n/a"
    assert row(report(document), "GPU utilisation")[1] == "n/a (CPU run)"


def test_the_versions_are_plain_text():
    text = report(GOOD)
    assert row(text, "Python")[1] == "3.11.7" and row(text, "torch")[1] == "2.13.0"


def test_a_run_without_epochs_has_a_report():
    text = report(metrics(status="failed"))
    assert "No epoch was completed" in text and "failed after 0 epochs" in text


def test_events_and_the_test_are_shown():
    event = {"epoch": 3, "step": 41, "kind": "nan_loss", "outcome": "restarted"}
    test = {"test_acc": 81.25, "test_loss": 0.5, "test_f1": 0.8}
    text = report({**GOOD, "events": [event], "test": test})
    assert "Epoch 3, step 41: nan_loss: restarted" in text and "81.25%" in text and "(test_results.md)" in text


def test_names_from_data_cannot_break_the_tables():
    text = report(GOOD, checkpoint_sizes={"a|b.pt": 1})
    assert len([line for line in text.splitlines() if "a\\|b.pt" in line]) == 1
