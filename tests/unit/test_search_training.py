from __future__ import annotations

import math
from pathlib import Path

import pytest

from common.config import load_config
from common.health import measure_data
from common.metrics_file import read_metrics
from common.search.outcome import Job
from common.search.stopping import LeaseLostError, SearchStop, TimeUpError
from common.search.training import Pruning, TrialTrainer, best_so_far, outcome_of, trial_config
from tests.search_definitions import definition
from tests.training_runs import _torch_settings_kept, write_config

PARAMS = {"optimizer.learning_rate": 0.01}


@pytest.fixture
def base(tmp_path):
    return load_config(write_config(tmp_path / "config.yaml", training__epochs=3))


def trained(base, params=PARAMS, *, made=None, **more):
    made = made or definition()
    with _torch_settings_kept(), SearchStop() as stop:
        return TrialTrainer(base, made, ["test"]).run(Job(params, 42, Path("run"), **more), stop)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_trial_is_scored_at_its_best_epoch(base):
    outcome = trained(base)
    assert outcome.state == "complete" and outcome.value == outcome.measures["val_acc"] > 30
    assert 1 <= outcome.measures["best_epoch"] <= outcome.measures["epochs"] == 3
    assert len(outcome.curve) == 3 and list(outcome.curve) == sorted(outcome.curve)
    assert outcome.duration_s > 0


def test_a_trial_that_is_finished_is_not_trained_again(base):
    first = trained(base)
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    assert trained(base) == first
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before


def test_only_numbers_and_checkpoints_are_written(base):
    trained(base)
    assert {path.name for path in Path("run").iterdir() if not path.name.startswith(".")} == {
        "config.yaml", "environment.json", "metrics.json", "training.log", "checkpoints", "step_trace.bin",
    }  # fmt: skip


def test_the_data_is_looked_at_once_for_all_trials_on_it(base, monkeypatch):
    measured = []

    def counting(dataset):
        measured.append(dataset.name)
        return measure_data(dataset)

    monkeypatch.setattr("common.engine.run.measure_data", counting)
    with _torch_settings_kept(), SearchStop() as stop:
        trainer = TrialTrainer(base, definition(), ["test"])
        for number, data in enumerate([{}, {}, {"data.split.val": 0.3}, {}]):
            assert trainer.run(Job(PARAMS | data, 42, Path(str(number))), stop).state == "complete"
    assert len(measured) == 3, "once for each change of the data"
    signals = [read_metrics(Path(str(number)))["signals"]["data"] for number in range(4)]
    assert signals[0] == signals[1] == signals[3] != signals[2]


def test_no_reaction_and_no_test_takes_part_in_a_trial(base):
    config = trial_config(base.config, 7, definition(num_threads=1))
    diagnostics = config.diagnostics
    assert (diagnostics.nan_loss.reaction, diagnostics.convergence_stall.reaction) == ("suggest", "suggest")
    assert not config.test_set.evaluate_at_end and config.checkpointing.save_last
    assert config.reproducibility.seed == 7


def test_a_training_that_diverges_is_an_outcome(base):
    outcome = trained(base, {"optimizer.learning_rate": 1e30})
    assert (outcome.state, outcome.value) == ("diverged", None)
    assert "step" in outcome.message


def test_a_configuration_that_is_not_valid_is_an_outcome(base):
    outcome = trained(base, {"model.dropout": 3.0})
    assert outcome.state == "failed" and "not a valid configuration" in outcome.message


def test_a_trial_is_given_up_where_it_falls_behind(base):
    outcome = trained(base, rivals=[[200.0, 200.0]] * 4)
    assert outcome.state == "pruned" and outcome.measures["epochs"] == 1
    assert outcome.value is not None
    again = trained(base, rivals=[[200.0, 200.0]] * 4)
    assert (again.state, again.measures) == (outcome.state, outcome.measures), "also where it is taken up again"


def test_the_median_rule():
    made = definition(epochs=10)
    epochs = [{"val_acc": value} for value in (50.0, 60.0, 55.0)]
    assert Pruning(made, [[70.0]] * 4).gives_up(epochs)
    assert not Pruning(made, [[70.0]] * 3).gives_up(epochs), "too few have shown how the score rises"
    assert not Pruning(made, [[70.0]] * 4).gives_up(epochs[:1]), "too early to tell"
    assert not Pruning(made, [[60.0], [60.0], [1.0], [90.0]]).gives_up(epochs), "as good as the median"
    assert not Pruning(made, [[70.0], [], [], []]).gives_up(epochs), "trials without a score are no rivals"
    rising = [[10.0, 20.0, 99.0]] * 4
    assert Pruning(made, rising).gives_up(epochs) and not Pruning(made, rising).gives_up(epochs[:2])


def test_the_best_score_so_far():
    epochs = [{"val_loss": value} for value in (None, 0.5, 0.7, None, 0.2)]
    assert best_so_far(epochs, definition(metric="val_loss")) == [-0.5, -0.5, -0.5, -0.2]


def test_a_run_without_a_finite_score_has_diverged():
    run = {"status": "completed", "started_at": "a", "finished_at": "b", "duration_s": 1.0}
    outcome = outcome_of({"run": run, "best": None, "epochs": [{"val_acc": None}]}, definition())
    assert (outcome.state, outcome.value, outcome.curve) == ("diverged", None, [])


def test_the_time_and_a_lost_lease_stop_a_training_at_its_next_step(base):
    with _torch_settings_kept(), SearchStop(deadline_s=0.0) as stop, pytest.raises(TimeUpError), stop.deferred():
        TrialTrainer(base, definition(), []).run(Job(PARAMS, 42, Path("run")), stop)
    assert list(Path("run/checkpoints").glob("last_model.pt")), "saved, so that it goes on from there"
    stop = SearchStop(deadline_s=math.inf)
    stop.lose("taken over")
    with pytest.raises(LeaseLostError, match="taken over"):
        stop.raise_if_requested()
    stop.begin()
    stop.raise_if_requested()
    assert not stop.requested
