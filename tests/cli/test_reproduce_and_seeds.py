"""Training a past run again and comparing every bit; training over several seeds."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from common.step_trace import StepTrace, read_trace
from tests.training_runs import Run, orchestrate, train, tree, write_config


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def reproduce(*arguments: object, expect: int = 0, capsys=None) -> dict:
    assert orchestrate("--reproduce", "run", "--json", "--quiet", *arguments) == expect
    return json.loads(capsys.readouterr().out)


def test_a_run_is_reproduced_beside_itself(capsys):
    run = train("run", training__epochs=4)
    before = tree("run")
    result = reproduce(capsys=capsys)
    assert (result["reproduced"], result["epochs_identical"], result["epochs_compared"]) == (True, 4, 4)
    assert tree("run") == before
    assert Run(Path("run.reproduced")).weight_hashes() == run.weight_hashes()
    assert Path("logs/metrics.json").resolve() == Path("run/metrics.json").resolve()
    assert orchestrate("--reproduce", "run", "--quiet") == 0
    assert capsys.readouterr().out == "reproduced: 4/4 epochs bit-identical\n"


def test_only_the_first_epochs(capsys):
    train("run", training__epochs=6, lr_scheduler__type="cosine")
    result = reproduce("--epochs", 2, capsys=capsys)
    assert (result["reproduced"], result["epochs_compared"]) == (True, 2)
    assert len(Run(Path("run.reproduced")).epochs) == 2


def test_the_first_difference_is_found_to_the_step_and_the_tensor(capsys):
    train("run", training__epochs=4, training__batch_size=32, checkpointing__checkpoint_every_n_epochs=1)
    # As if the original had been trained on slightly other data from the third epoch's second step on.
    steps = Run(Path("run")).epochs[1]["step"]
    trace = StepTrace(Path("run/step_trace.bin"))
    loss, norm = read_trace(Path("run/step_trace.bin"), steps + 2)[steps + 1]
    trace.add(steps + 1, loss + 1e-9, norm)
    trace.flush()
    document = json.loads(Path("run/metrics.json").read_text())
    document["epochs"][2]["train_loss"] += 1e-9
    document["epochs"][2]["weights_sha256"] = "0" * 64
    Path("run/metrics.json").write_text(json.dumps(document))
    result = reproduce(expect=1, capsys=capsys)
    assert (result["reproduced"], result["epochs_identical"]) == (False, 2)
    assert (result["difference"]["epoch"], result["difference"]["step"]) == (3, 2)
    assert set(result["difference"]["fields"]) == {"train_loss", "weights_sha256"}


def test_other_weights_name_the_tensor_and_the_reason(capsys):
    train("run", training__epochs=2, reproducibility__seed=1)
    train("other", training__epochs=2, reproducibility__seed=2)
    # The first run's config under the second run's results: the replay must find them different from the start.
    Path("other/config.yaml").write_bytes(Path("run/config.yaml").read_bytes())
    assert orchestrate("--reproduce", "other", "--quiet") == 1
    out = capsys.readouterr().out
    assert "not reproduced: 0/2 epochs" in out and "First difference: epoch 1, step 1" in out
    assert "tensors differ, most" in out and "Likely reason:" in out


@pytest.mark.parametrize("extra", [["--set", "training.epochs=3"], ["--seed", 1], ["--seeds", 1, 2], ["--dry-run"]])
def test_a_replay_takes_the_runs_own_config(extra):
    train("run")
    assert orchestrate("--reproduce", "run", *extra) == 2


def test_a_folder_that_is_no_run(capsys):
    Path("empty").mkdir()
    assert orchestrate("--reproduce", "empty") == 3
    assert "empty" in capsys.readouterr().err
    assert not Path("empty.reproduced").exists()


def test_seeds_are_trained_once_each_and_summarised(capsys):
    config = write_config(training__epochs=2)
    assert orchestrate("--config", config, "--seeds", 1, 2, "--output-dir", "seeds", "--quiet") == 0
    capsys.readouterr()
    before = {seed: tree(f"seeds/seed_{seed}") for seed in (1, 2)}
    assert orchestrate("--config", config, "--seeds", 1, 2, 3, "--output-dir", "seeds", "--json", "--quiet") == 0
    result = json.loads(capsys.readouterr().out)
    assert {seed: tree(f"seeds/seed_{seed}") for seed in (1, 2)} == before  # what was finished was left alone
    runs = [Run(Path(f"seeds/seed_{seed}")).metrics for seed in (1, 2, 3)]
    assert [run["run"]["seed"] for run in runs] == [1, 2, 3]
    accuracies = [run["best"]["val_acc"] for run in runs]
    assert result["summary"]["val_acc"]["mean"] == pytest.approx(statistics.mean(accuracies))
    assert result["summary"]["val_acc"]["std"] == pytest.approx(statistics.stdev(accuracies))
    assert json.loads(Path("seeds/seeds.json").read_text()) == result
    assert "3 seeds" in Path("seeds/baseline_seeds.md").read_text()


def test_several_seeds_do_not_go_into_a_single_run(capsys):
    train("run")
    assert orchestrate("--config", write_config(), "--seeds", 1, 2, "--output-dir", "run") == 2
    assert "is a single run" in capsys.readouterr().err
