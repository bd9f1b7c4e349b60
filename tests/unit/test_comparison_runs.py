"""Reading runs to be compared: every way to name them, and files that are not what they should be."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from common.comparison.measures import BY_KEY, GAP
from common.comparison.predictions import PredictionsUnusableError, read_predictions
from common.comparison.runs import load_side, number, total
from common.exits import InputFileError
from tests.comparison_runs import NUM_VAL, change_metrics, epoch, predictions, write_run, write_seeds


@pytest.fixture
def seeds(tmp_path):
    return write_seeds(tmp_path / "runs", [190, 191, 192], first_seed=9)


def test_a_folder_of_seeds_a_pattern_and_a_list_are_the_same(seeds):
    folders = [seeds / name for name in ("seed_11", "seed_9", "seed_10")]
    for paths in ([seeds], [f"{seeds}/seed_*"], folders, [f"{seeds}/seed_*/metrics.json"]):
        side = load_side("baseline", paths)
        assert side.seeds == [9, 10, 11]
        assert side.values(BY_KEY["val_acc"]) == [95.0, 95.5, 96.0]


def test_the_same_run_named_twice_is_one(seeds):
    assert len(load_side("baseline", [seeds, seeds / "seed_9", f"{seeds}/seed_9/metrics.json"]).runs) == 3


def test_a_link_leads_to_the_run(seeds, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/metrics.json").symlink_to("../runs/seed_9/metrics.json")
    run = load_side("baseline", [tmp_path / "logs/metrics.json"]).first
    assert run.config is not None
    assert read_predictions(run).right.sum() == 190


def test_a_seed_that_has_not_begun_is_said_to_be_left_out(seeds):
    (seeds / "seed_12").mkdir()
    side = load_side("baseline", [seeds])
    assert len(side.runs) == 3
    assert [str(seeds / "seed_12") in notice for notice in side.notices] == [True]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("empty", "is not a run folder"),
        ("nothing", "there is no such file"),
        ("no*thing", "no file or folder matches"),
        ("", "an empty path"),
        ("text.json", "is not valid JSON"),
        ("other.json", "is not a metrics file"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.json").write_text("once upon a time")
    (tmp_path / "other.json").write_text('{"schema_version": 1, "run": {}}')
    with pytest.raises(InputFileError, match=message):
        load_side("baseline", [path])


def test_one_seed_twice_is_refused(tmp_path):
    write_run(tmp_path / "a", seed=3)
    write_run(tmp_path / "b", seed=3, num_right=180)
    with pytest.raises(InputFileError, match="has seed 3, and so has"):
        load_side("optimized", [tmp_path / "a", tmp_path / "b"])


def test_values_of_a_run(tmp_path):
    entries = [epoch(1, 90.0, train_acc=94.0), epoch(2, 96.0, train_acc=97.5, gpu_energy_j=5.0),
               epoch(3, 95.0, train_acc=99.0)]  # fmt: skip
    run = load_side("baseline", [write_run(tmp_path / "run", num_right=192, epochs=entries)]).first
    assert (run.best_epoch, run.value(BY_KEY["val_acc"])) == (2, 96.0)
    assert run.value(BY_KEY["val_acc"], "final") == 95.0
    assert run.value(GAP) == pytest.approx(1.5)
    assert run.time_to_best_s() == 4.0
    assert run.energy_j() is None  # two epochs do not say
    assert run.mean("gpu_energy_j") == 5.0


@pytest.mark.parametrize("value", [None, True, "95", float("nan"), float("inf"), 10**400, [1.0], {}])
def test_what_is_no_finite_number_is_unknown(value):
    assert number(value) is None
    assert total([1.0, value]) is None


def test_damaged_fields_count_as_unknown(tmp_path):
    folder = write_run(tmp_path / "run")

    def spoil(document):
        document["best"] = ["not", "a", "mapping"]
        document["run"] = {"seed": "42", "dataset": None, "status": 3}
        document["epochs"][0] = {"num": 1, "time_s": "long"}
        document["events"] = ["x", {"kind": "nan_loss"}]

    change_metrics(folder, spoil)
    (folder / "environment.json").write_text("[1, 2")
    (folder / "config.yaml").write_text("model: [")
    run = load_side("baseline", [folder]).first
    assert (run.seed, run.best_epoch, run.value(BY_KEY["val_acc"]), run.time_to_best_s()) == (None, None, None, None)
    assert (run.config, run.environment, len(run.events)) == (None, {}, 1)
    assert "is not a valid config" in run.config_problem


def test_a_foreign_config_is_named(tmp_path):
    folder = write_run(tmp_path / "run")
    change_metrics(folder, lambda document: document["run"].update(config_sha256="0" * 64))
    run = load_side("baseline", [folder]).first
    assert run.config is not None
    assert "is not the config that" in run.config_problem


def test_losses_are_cross_entropies(tmp_path):
    found = read_predictions(load_side("baseline", [write_run(tmp_path / "run", num_right=150)]).first)
    logits = found.logits.astype(float)
    expected = -np.log(np.exp(logits)[np.arange(NUM_VAL), found.label] / np.exp(logits).sum(axis=1))
    assert found.losses() == pytest.approx(expected)


def test_predictions_of_another_epoch_are_not_used(tmp_path):
    folder = write_run(tmp_path / "run", num_right=190)
    np.savez(folder / "predictions_val.npz", **predictions(189, 42))
    with pytest.raises(PredictionsUnusableError, match="not of the best epoch"):
        read_predictions(load_side("baseline", [folder]).first)


@pytest.mark.parametrize(
    "change",
    [
        {"label": np.arange(NUM_VAL)},
        {"predicted": np.full(NUM_VAL, -1)},
        {"predicted": np.zeros(3, dtype=np.int64)},
        {"predicted": np.zeros(NUM_VAL)},
        {"logits": np.zeros(NUM_VAL)},
        {"logits": np.full((NUM_VAL, 4), np.nan, dtype=np.float32)},
        {"label": np.array([], dtype=np.int64), "predicted": np.array([], dtype=np.int64)},
        {"label": np.array(["a"] * NUM_VAL, dtype=object)},
    ],
)
def test_malformed_predictions_are_not_used(tmp_path, change):
    folder = write_run(tmp_path / "run")
    np.savez(folder / "predictions_val.npz", **{**predictions(190, 42), **change})
    with pytest.raises(PredictionsUnusableError):
        read_predictions(load_side("baseline", [folder]).first)


def test_damaged_missing_and_huge_predictions_are_not_used(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run")
    run = load_side("baseline", [folder]).first
    monkeypatch.setattr("common.comparison.predictions.MAX_BYTES", 1000)
    with pytest.raises(PredictionsUnusableError, match="unpacks to"):
        read_predictions(run)
    (folder / "predictions_val.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(PredictionsUnusableError, match="cannot be read"):
        read_predictions(run)
    (folder / "predictions_val.npz").unlink()
    with pytest.raises(PredictionsUnusableError, match="is missing"):
        read_predictions(run)


def test_an_archive_without_the_arrays_is_not_used(tmp_path):
    folder = write_run(tmp_path / "run")
    with zipfile.ZipFile(folder / "predictions_val.npz", "w") as archive:
        archive.writestr("note.txt", json.dumps({}))
    with pytest.raises(PredictionsUnusableError):
        read_predictions(load_side("baseline", [folder]).first)
