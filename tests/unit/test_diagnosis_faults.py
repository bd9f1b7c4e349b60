"""The benchmark's own small selection: ten faults injected into real trainings, and sound ones that are left alone."""

from __future__ import annotations

import pytest
import torch

from benchmarks.faults.cases import FAULTS, HEALTHY, SETTINGS
from benchmarks.faults.injected import Injection, data, in_force
from benchmarks.faults.measure import (
    QUICK_FAULTS,
    QUICK_HEALTHY,
    QUICK_SETTING,
    FaultOutcome,
    HealthyOutcome,
    group_summary,
    measure,
    mistakes,
)  # fmt: skip
from common.config import load_config
from common.diagnosis.registry import BY_ID


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    faults = [fault for fault in FAULTS if fault.name in QUICK_FAULTS]
    healthy = [case for case in HEALTHY if case.name in QUICK_HEALTHY]
    assert (len(faults), len(healthy)) == (len(QUICK_FAULTS), len(QUICK_HEALTHY))
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    root = tmp_path_factory.mktemp("faults")
    try:
        yield root, list(measure(root, [SETTINGS[QUICK_SETTING]], faults, healthy, [0]))
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def test_every_fault_is_named(outcomes):
    faulty = [outcome for outcome in outcomes[1] if isinstance(outcome, FaultOutcome)]
    assert {outcome.fault: outcome.cause for outcome in faulty if not outcome.is_right} == {}


def test_sound_runs_are_left_alone(outcomes):
    sound = [outcome for outcome in outcomes[1] if isinstance(outcome, HealthyOutcome)]
    assert {outcome.name: outcome.cause for outcome in sound} == dict.fromkeys(QUICK_HEALTHY)


def test_advice_that_is_followed_mends_what_can_be_mended(outcomes):
    mended = [
        outcome for outcome in outcomes[1] if isinstance(outcome, FaultOutcome) and outcome.repaired_acc is not None
    ]
    assert len(mended) >= 3
    assert [outcome for outcome in mended if not outcome.is_repaired] == []
    assert all(outcome.faulty_acc < 0.95 * outcome.sound_acc for outcome in mended), "there was something to mend"


def test_the_run_folder_does_not_tell_what_was_injected(outcomes):
    """The same plug-ins whatever the fault, and nothing of its name."""
    folder = outcomes[0] / QUICK_SETTING
    names = {fault.name: fault for fault in FAULTS}
    zero, softmax = (names[name] for name in ("zero initialisation", "softmax before cross-entropy"))
    configs = [load_config(folder / fault.slug / "seed_0" / "config.yaml").config for fault in (zero, softmax)]
    assert configs[0] == configs[1]
    for path in (folder / zero.slug / "seed_0").iterdir():
        if path.suffix in (".json", ".yaml", ".md", ".log"):
            assert "zero" not in path.read_text(encoding="utf-8").lower().replace("zero_", "").replace("nonzero", "")


def test_a_second_call_trains_nothing(outcomes):
    root, first = outcomes
    before = {path: path.stat().st_mtime_ns for path in root.rglob("metrics.json")}
    faults = [fault for fault in FAULTS if fault.name == "zero initialisation"]
    again = list(measure(root, [SETTINGS[QUICK_SETTING]], faults, [], [0]))
    assert again == [
        outcome for outcome in first if isinstance(outcome, FaultOutcome) and outcome.fault == faults[0].name
    ]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("metrics.json")} == before


def test_the_summary_counts_what_happened():
    right = FaultOutcome("s", "a", 0, "leakage", 0.9, ("leakage",), None, 50.0, 90.0, 88.0)
    wrong = FaultOutcome("s", "b", 0, "memorised", 0.9, ("leakage",), "data_quality", 50.0, 90.0, 60.0)
    missed = FaultOutcome("s", "c", 0, None, 0.9, ("leakage",), "overfitting", 89.0, 90.0, None)
    alarm = HealthyOutcome("s", "plain", True, 0, "leakage", 0.6, None)
    quiet = HealthyOutcome("s", "plain", False, 1, None, 0.9, "overfitting")
    row = group_summary("s", [right, wrong, missed, alarm, quiet])
    assert row["detected"] == "66.7% (2/3)" and row["right cause first"] == "33.3% (1/3)"
    assert row["repaired"] == "50.0% (1/2)" and row["sound (hard)"] == "2 (1)" and row["false alarms"] == "1"
    assert row["literal: detected"] == "66.7% (2/3)" and row["literal: right guide"] == "33.3% (1/3)"
    assert row["literal: false alarms"] == "1"
    assert mistakes([right, wrong, missed, alarm, quiet]) == [
        "s: 'b' called memorised (1)", "s: 'b' not repaired (1)", "s: 'c' called healthy (1)",
        "s: sound run 'plain' called leakage (1)",
    ]  # fmt: skip


def test_every_fault_has_a_cause_of_the_registry():
    for fault in FAULTS:
        assert set(fault.causes) <= set(BY_ID), fault.name
        hands = {BY_ID[cause].by_hand.id for cause in fault.causes if BY_ID[cause].by_hand}
        assert fault.by_hand is None or fault.by_hand in hands, f"{fault.name}: nobody is told to do this"


def test_no_fault_touches_the_test_labels():
    for fault in FAULTS:
        if fault.data is not None:
            with in_force(Injection("wine", seed=1)):
                sound = data()
            with in_force(Injection("wine", seed=1, data=fault.data)):
                assert (data()["y_test"] == sound["y_test"]).all(), fault.name
