"""What an optimization report adds: changes and where they came from, the analysis, the decision and its commands."""

from __future__ import annotations

import json
import shlex

import pytest

from common.comparison.analysis import analysis, crossover_epoch
from common.comparison.changes import config_changes
from common.comparison.decision import RULES, decide
from common.comparison.evidence import compare
from common.comparison.measures import BY_KEY
from common.comparison.optimization_report import (
    changes_section,
    checkpoints_section,
    decision_section,
    profile_section,
    reproducibility_section,
)
from common.comparison.runs import load_side
from common.manifest import ManifestEntry, sha256_of_file, write_manifest
from tests.checkpoint_samples import checkpoint, flip, save
from tests.comparison_runs import ROOT, epoch, write_run, write_seeds

CHANGED = ("model.dropout=0.3", "optimizer.learning_rate=0.002", "logging.tensorboard=false")


def side(name, path):
    return load_side(name, [path])


def compared(baseline, optimized, **options):
    return compare(side("baseline", baseline), side("optimized", optimized), **options)


def changes_of(baseline, optimized, diagnosis=None):
    return config_changes(side("baseline", baseline).first, side("optimized", optimized).first, diagnosis)


@pytest.fixture
def runs(tmp_path):
    return (
        write_run(tmp_path / "baseline"),
        write_run(tmp_path / "optimized", mode="optimization", overrides=CHANGED, num_right=194),
    )


def test_every_differing_field_with_old_and_new(runs):
    found = {change.key: (change.old, change.new, change.influences_training) for change in changes_of(*runs)}
    assert found == {
        "model.dropout": (0.1, 0.3, True),
        "optimizer.learning_rate": (0.001, 0.002, True),
        "logging.tensorboard": (True, False, False),
    }


def test_guides_that_would_make_the_same_change_are_named(runs):
    dropout = next(change for change in changes_of(*runs) if change.key == "model.dropout")
    assert "as in overfitting.md, dropout" in dropout.sources


def test_guides_that_would_change_it_the_same_way_are_named(tmp_path):
    run = write_run(tmp_path / "b", overrides=["model.dropout=0.2"])
    (dropout,) = changes_of(write_run(tmp_path / "a"), run)
    assert "like overfitting.md, dropout (which says 0.3)" in dropout.sources


def test_a_comment_in_the_config_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "configs/training_config.yaml").read_text()
    changed = text.replace("  dropout: 0.1", "  # was 0.1: the gap is 18 points\n  dropout: 0.3")
    changed = changed.replace("learning_rate: 1e-3", "learning_rate: 2e-3  # was 1e-3: creeps # slowly")
    (tmp_path / "mine.yaml").write_text(changed)
    run = write_run(tmp_path / "b", overrides=["model.dropout=0.3", "optimizer.learning_rate=2e-3"])
    (run / "environment.json").write_text(
        json.dumps({"command_line": ["training_orchestrator.py", "--config=mine.yaml"]})
    )
    sources = {change.key: change.sources for change in changes_of(write_run(tmp_path / "a"), run)}
    assert sources["model.dropout"][0] == "config: was 0.1: the gap is 18 points"
    assert sources["optimizer.learning_rate"][0] == "config: was 1e-3: creeps # slowly"
    (tmp_path / "mine.yaml").write_text(changed.replace("dropout: 0.3", "dropout: 0.4"))
    assert not any(source.startswith("config:") for source in changes_of(tmp_path / "a", run)[0].sources)


def test_notes_and_the_diagnostic_report_may_say_why(tmp_path):
    report = tmp_path / "diagnostic_report.md"
    report.write_text("# Report\n\nintroduction\n\n## Drop more units\n\n`model.dropout`: 0.1 → 0.3\n")
    notes = "experiment.notes='model.dropout_rate is another; model.dropout up for the gap'"
    run = write_run(tmp_path / "b", overrides=["model.dropout=0.3", notes])
    dropout = changes_of(write_run(tmp_path / "a"), run, report)[0]
    assert dropout.sources[0] == "notes: model.dropout_rate is another; model.dropout up for the gap"
    assert dropout.sources[1] == "diagnostic_report.md: Drop more units"


def test_without_a_config_the_changes_are_unknown_and_said_to_be(runs):
    (runs[0] / "config.yaml").unlink()
    comparison = compared(*runs)
    assert changes_of(*runs) is None
    assert changes_section(comparison, None).startswith("Unknown: config.yaml is missing beside")


def curve(*values, **more):
    return [epoch(num, value, **more) for num, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("baseline", "optimized", "expected"),
    [
        ((50, 60, 70, 75), (40, 60, 72, 76, 90), 3),
        ((50, 60), (51, 61), 1),
        ((50, 60), (51, 60), None),
        ((50, 60, 70), (60, 50, 71), 3),
    ],
)
def test_crossover(tmp_path, baseline, optimized, expected):
    sides = [
        side(name, write_run(tmp_path / name, epochs=curve(*values), with_predictions=False)).runs
        for name, values in (("baseline", baseline), ("optimized", optimized))
    ]
    assert crossover_epoch(*sides, BY_KEY["val_acc"]) == expected
    assert crossover_epoch(*sides, BY_KEY["val_loss"]) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((80.0, 99.0), (88.0, 92.0), "suggests less overfitting"),
        ((80.0, 99.0), (79.0, 82.0), "too much regularisation, or too few epochs"),
        ((80.0, 85.0), (84.0, 99.0), "learns more, and overfits more"),
        ((80.0, 85.0), (79.0, 99.0), "suggests more overfitting"),
        ((80.0, 85.0), (80.5, 86.0), "no clear change (less than"),
    ],
)
def test_what_the_gap_suggests(tmp_path, before, after, expected):
    folders = [
        write_run(tmp_path / name, epochs=[epoch(1, val, train_acc=train)], with_predictions=False)
        for name, (val, train) in (("a", before), ("b", after))
    ]
    assert expected in analysis(compared(*folders), [])[0]


def test_analysis_claims_no_more_than_there_is(runs):
    sentences = " ".join(analysis(compared(*runs), changes_of(*runs)))
    assert "2 settings that influence training were changed together" in sentences
    assert "All of this is about one run a side" in sentences
    assert "The optimized best epoch is the last one" in sentences


def test_a_loss_that_turns_upwards_is_told(tmp_path):
    entries = [epoch(1, 90.0, val_loss=0.5), epoch(2, 95.0, val_loss=0.4), epoch(3, 94.0, val_loss=0.6)]
    folders = [write_run(tmp_path / name, epochs=entries, num_right=190) for name in "ab"]
    sentences = " ".join(analysis(compared(*folders), []))
    assert "The baseline validation loss ends 50% above that of the best epoch" in sentences


@pytest.mark.parametrize(
    ("baseline", "optimized", "target", "action"),
    [
        ([180, 182, 181], [190, 191, 192], None, "Phase 5 with the optimized configuration"),
        ([180, 182, 181], [190, 191, 192], 95.0, "Phase 5 with the optimized configuration"),
        ([180, 182, 181], [190, 191, 192], 99.0, "Iterate"),
        ([190, 191, 192], [180, 182, 181], None, "Re-diagnose"),
        ([190, 191, 192], [180, 182, 181], 80.0, "Phase 5 with the baseline's configuration"),
        ([190, 191, 192], [180, 182, 181], 99.0, "Re-diagnose"),
        ([180, 186, 178], [182, 180, 190], None, "Train more seeds"),
        ([182, 180, 190], [180, 186, 178], None, "Re-diagnose"),
        ([180], [190], None, "Train more seeds"),
        ([180], [190], 90.0, "Phase 5 with the optimized configuration"),
        ([190], [180], None, "Re-diagnose"),
    ],
)
def test_decisions(tmp_path, baseline, optimized, target, action):
    comparison = compared(
        write_seeds(tmp_path / "a", baseline), write_seeds(tmp_path / "b", optimized, mode="optimization")
    )
    decision = decide(comparison, target)
    assert decision.action.startswith(action)
    section = decision_section(comparison, decision, target)
    marked = [line for line in section.splitlines() if line.startswith("| →")]
    assert len(marked) == 1 and RULES[decision.rule].when in marked[0]
    assert all(shlex.split(line)[0] == "python" for line in decision.commands.splitlines())


def test_an_unfinished_run_is_finished_first(tmp_path):
    optimized = write_run(tmp_path / "b", status="interrupted", num_right=199, seed=7, mode="optimization")
    decision = decide(compared(write_run(tmp_path / "a", seed=7), optimized), 50.0)
    assert decision.action == "Finish the training first"
    words = shlex.split(decision.commands)
    assert words[words.index("--output-dir") + 1] == str(optimized)
    assert words[words.index("--seed") + 1] == "7"


def test_what_cannot_be_compared_is_trained_anew(tmp_path):
    optimized = write_run(tmp_path / "b", dataset={"fingerprint": "b" * 64}, num_right=199)
    decision = decide(compared(write_run(tmp_path / "a"), optimized), 50.0)
    assert decision.action == "Train both sides under the same conditions"


def test_commands_keep_what_was_typed_and_drop_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my config.yaml").write_text("x")
    optimized = write_run(tmp_path / "b", num_right=194, mode="optimization")
    typed = shlex.split(
        "training_orchestrator.py --config 'my config.yaml' --mode optimization --epochs 7 --seed 42 "
        "--set model.dropout=0.3 --output-dir b --quiet --set=optimizer.type=sgd"
    )
    (optimized / "environment.json").write_text(json.dumps({"command_line": typed}))
    comparison = compared(write_run(tmp_path / "a"), optimized)
    produced = decide(comparison, 90.0).commands
    assert produced == (
        "python training_orchestrator.py --config 'my config.yaml' --set model.dropout=0.3 --set optimizer.type=sgd "
        "--mode production --epochs 100 --output-dir results/production/"
    )
    seeds = decide(comparison, None).commands.splitlines()
    assert "--epochs 7" in seeds[1] and "--output-dir results/optimized_seeds/" in seeds[1]
    assert seeds[2].startswith("python compare_results.py --baseline results/baseline_seeds/")
    numbers = seeds[0].split("--seeds ")[1].split(" --")[0].split()
    assert numbers[0] == "42" and 3 <= len(numbers) <= 10


def test_a_run_without_a_known_config_file_uses_its_own(tmp_path):
    optimized = write_run(tmp_path / "b", num_right=194, mode="optimization")
    words = shlex.split(decide(compared(write_run(tmp_path / "a"), optimized), 90.0).commands)
    assert words[words.index("--config") + 1] == str(optimized / "config.yaml")
    assert "test_set.evaluate_at_end=true" in words


def test_profile_says_cpu_run_and_how_runs_ended(tmp_path):
    events = [{"epoch": 2, "step": 9, "kind": "nan_loss", "outcome": "learning rate lowered"}]
    optimized = write_run(tmp_path / "b", status="early_stopped", events=events, epochs=curve(80, 90, gpu_util=71.0),
                          num_right=180, run={"device": "cuda:0"})  # fmt: skip
    section = profile_section(compared(write_run(tmp_path / "a"), optimized))
    rows = {line.split("|")[1].strip(): line for line in section.splitlines() if line.startswith("|")}
    assert "early stopped" in rows["Ended"] and "completed" in rows["Ended"]
    assert "n/a (CPU run)" in rows["GPU utilisation"] and "71%" in rows["GPU utilisation"]
    assert "5.0%" in rows["Waiting for data"]
    assert "- optimized, epoch 2: nan_loss: learning rate lowered" in section


def test_reproducibility(tmp_path):
    section = reproducibility_section(
        compared(write_seeds(tmp_path / "a", [190, 192, 194]), write_run(tmp_path / "b", seed=42))
    )
    rows = {line.split("|")[1].strip(): line for line in section.splitlines() if line.startswith("|")}
    assert "42, 43, 44" in rows["Seeds"]
    assert "96.00% ± 1.00, 95.00 to 97.00" in rows["Spread over the seeds (validation accuracy)"]
    assert "unknown: one seed" in rows["Spread over the seeds (validation accuracy)"]
    assert rows["Deterministic operations"].count("yes") == 2
    assert "ran under the same conditions" in section
    assert f"--reproduce {tmp_path}/b" in section


def test_checkpoints_are_listed_and_checked(runs):
    folder = runs[1] / "checkpoints"
    folder.mkdir()
    paths = [folder / "best_model.pt", folder / "last_model.pt"]
    entries = {}
    for path in paths:
        save(checkpoint(), path)
        entries[path.name] = ManifestEntry(sha256_of_file(path), path.stat().st_size, epoch=3, step=30)
    write_manifest(folder, entries)
    flip(paths[1], paths[1].stat().st_size // 2)
    rows = checkpoints_section(compared(*runs)).splitlines()
    assert next(row for row in rows if "best_model" in row).rstrip(" |").endswith("✓")
    assert "✗ damaged" in next(row for row in rows if "last_model" in row)
