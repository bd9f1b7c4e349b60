from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import hyperparam_search
from common.config import load_config
from tests.searches import document_of, outcome_of, run_search, search_command, start_search, trials_of
from tests.training_runs import STOPPABLE

SMALL = {"learning_rate": [0.001, 0.01], "dropout": [0.0, 0.3]}
RATES = {"learning_rate": [1e-5, 3e-5, 1e-4, 1e-3, 3e-3, 0.01], "dropout": [0.0, 0.3]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished search of two trials, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_search("--n-trials", 2, "--confirm", 1, space=SMALL)
    return folder


@pytest.fixture
def study(finished, tmp_path):
    """That search, in the working directory."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return Path("out")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, *arguments: object, code: int, **options) -> str:
    """What a search says that ends with an error."""
    run_search(*arguments, expect=code, **options)
    return capsys.readouterr().err


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_search_leaves_what_is_documented(capsys):
    folder = run_search("--n-trials", 4, "--method", "random_search")
    for name in ("best_config.yaml", "trials.csv", "trials.json", "search_results.md", "study.db"):
        assert (folder / name).is_file(), name
    document = document_of(folder)
    assert [trial["number"] for trial in document["trials"]] == [0, 1, 2, 3]
    assert {trial["state"] for trial in document["trials"]} == {"complete"}
    assert all(set(trial["params"]) == {"optimizer.learning_rate", "model.dropout", "training.batch_size"}
               for trial in document["trials"])  # fmt: skip
    assert {trial["seed"] for trial in document["trials"]} == {42}
    assert len(document["confirmations"]) == 3 and all(len(c["seeds"]) == 3 for c in document["confirmations"])
    with open(folder / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [trial["value"] for trial in document["trials"]]
    winner = document["trials"][document["study"]["winner"]]
    best = load_config(folder / "best_config.yaml").config
    assert best.optimizer.learning_rate == winner["params"]["optimizer.learning_rate"]
    assert best.diagnostics.nan_loss.reaction == "act" and best.reproducibility.seed == 42
    said = capsys.readouterr()
    assert f"trial {document['study']['winner']}" in said.out
    assert "[4/4] trial 3" in said.err and "Confirmation of trial" in said.err


def test_a_trial_is_the_run_that_its_config_gives_anywhere():
    folder = run_search("--n-trials", 2, "--confirm", 0)
    from tests.training_runs import orchestrate

    assert orchestrate("--config", folder / "trials/0001/config.yaml", "--output-dir", "again", "--mode",
                       "optimization", "--quiet") == 0  # fmt: skip
    again = json.loads(Path("again/metrics.json").read_text())
    there = json.loads((folder / "trials/0001/metrics.json").read_text())
    assert [e["weights_sha256"] for e in again["epochs"]] == [e["weights_sha256"] for e in there["epochs"]]
    assert trials_of(folder)[1]["value"] == again["best"]["val_acc"]


def test_several_jobs_find_the_same_as_one():
    options = ("--method", "bayesian", "--n-trials", 10, "--lag", 1, "--prune", "--confirm", 1)
    one = run_search(*options, output="one", space=RATES, training__epochs=3)
    states = [trial["state"] for trial in trials_of(one)]
    assert states[:5] == ["complete"] * 5 and "pruned" in states
    assert all(trial["measures"]["epochs"] < 3 for trial in trials_of(one) if trial["state"] == "pruned")
    assert states[document_of(one)["study"]["winner"]] == "complete"
    two = run_search(*options, "--jobs", 2, output="two", space=RATES, training__epochs=3)
    assert outcome_of(one) == outcome_of(two)


def test_a_finished_search_is_told_again_and_nothing_is_trained(study, capsys):
    runs = {path: path.stat().st_mtime_ns for path in study.glob("*/*/metrics.json")}
    run_search("--n-trials", 2, "--confirm", 1, "--resume", space=SMALL)
    said = capsys.readouterr()
    assert "nothing is left to do" in said.err
    assert f"trial {document_of(study)['study']['winner']}" in said.out
    assert {path: path.stat().st_mtime_ns for path in study.glob("*/*/metrics.json")} == runs


def test_a_study_can_be_extended_and_its_first_trials_stay(study):
    first = trials_of(study)
    run_search("--n-trials", 3, "--confirm", 1, space=SMALL)
    assert trials_of(study)[:2] == first and len(trials_of(study)) == 3
    run_search("--n-trials", 1, "--confirm", 1, space=SMALL)
    assert len(trials_of(study)) == 3, "nothing is thrown away"
    whole = run_search("--n-trials", 3, "--confirm", 1, space=SMALL, output="whole")
    assert outcome_of(whole) == outcome_of(study)


def test_another_machine_is_noticed_and_told(study, tmp_path):
    arguments = search_command("--n-trials", 3, "--confirm", 1, space=SMALL)
    # Without the processor's vector instructions, as on one that has none; where it has none, nothing differs.
    process = start_search(tmp_path, arguments, ATEN_CPU_CAPABILITY="default")
    _, said = process.communicate(timeout=120)
    differs = torch.backends.cpu.get_cpu_capability() != "DEFAULT"
    assert process.returncode == 0
    assert ("CPU kernels of torch: " in said and " then, DEFAULT now" in said) is differs
    report = (study / "search_results.md").read_text()
    assert bool(re.search(r"\| Machines and software +\| CPU kernels of torch \w+ or \w+: ", report)) is differs
    assert len(document_of(study)["study"]["machines"]) == 1 + differs


def test_the_same_machine_is_not_worth_a_word(study, capsys):
    run_search("--n-trials", 3, "--confirm", 1, space=SMALL)
    assert "other conditions" not in capsys.readouterr().err
    assert "Machines and software" not in (study / "search_results.md").read_text()
    assert len(document_of(study)["study"]["machines"]) == 1


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (["--seed", 7], {}, "--seed (42 then, 7 now)"),
        (["--metric", "val_f1"], {}, "--metric (val_acc then, val_f1 now)"),
        (["--method", "grid_search"], {}, "--method (random_search then, grid_search now)"),
        ([], {"space": {"learning_rate": [0.001]}}, "the search space (without model.dropout, other values of"),
        ([], {"optimizer__weight_decay": 0.1}, "the base config"),
        (["--confirm", 2], {}, "--confirm (1 then, 2 now)"),
        (["--prune"], {}, "--prune (False then, True now)"),
    ],
)
def test_another_study_in_the_folder_is_not_touched(study, capsys, arguments, options, said):
    before = outcome_of(study)
    confirm = [] if "--confirm" in arguments else ["--confirm", 1]
    error = refused(capsys, "--n-trials", 2, *confirm, *arguments, code=2, **{"space": SMALL, **options})
    assert said in error and "choose another --output" in error
    assert outcome_of(study) == before


def test_a_search_whose_marker_was_lost_is_recognised(study, capsys):
    (study / "study.json").unlink()
    assert "--seed" in refused(capsys, "--n-trials", 2, "--confirm", 1, "--seed", 7, code=2, space=SMALL)
    run_search("--n-trials", 2, "--confirm", 1, space=SMALL)


def test_a_grid_is_tried_completely_or_in_part(capsys):
    folder = run_search("--method", "grid_search", "--confirm", 0, space=SMALL)
    assert len({json.dumps(trial["params"]) for trial in trials_of(folder)}) == 4
    assert "which is all of the space" in capsys.readouterr().err
    run_search("--method", "grid_search", "--confirm", 0, "--n-trials", 3, space=SMALL, output="part")
    assert "3 of 4" in capsys.readouterr().err
    assert trials_of(Path("part")) == trials_of(folder)[:3]


def test_a_space_that_is_used_up_ends_the_search_early(capsys):
    folder = run_search("--n-trials", 9, "--confirm", 0, space=SMALL)
    assert document_of(folder)["study"]["end"] == "exhausted" and len(trials_of(folder)) == 4
    assert "which is all of the space" in capsys.readouterr().err


def test_a_diverged_trial_is_a_result():
    folder = run_search("--n-trials", 3, "--confirm", 1, space={"learning_rate": [0.01, 1e30, 1e31]})
    states = {trial["params"]["optimizer.learning_rate"]: trial for trial in trials_of(folder)}
    assert [states[rate]["state"] for rate in (0.01, 1e30, 1e31)] == ["complete", "diverged", "diverged"]
    assert states[1e30]["value"] is None and "loss" in states[1e30]["message"]
    assert document_of(folder)["study"]["winner"] == states[0.01]["number"]


def test_a_search_in_which_all_diverged_has_no_winner(capsys):
    error = refused(capsys, "--n-trials", 2, code=5, space={"learning_rate": [1e30, 1e31]})
    assert "no trial could be trained to its end" in error
    assert {trial["state"] for trial in trials_of(Path("out"))} == {"diverged"}


def test_a_loss_is_searched_for_downwards():
    folder = run_search("--metric", "val_loss", "--n-trials", 4, "--confirm", 0)
    study, values = document_of(folder)["study"], [trial["value"] for trial in trials_of(folder)]
    assert study["direction"] == "minimize" and values[study["winner"]] == min(values)


def test_the_checkpoints_of_the_best_are_kept():
    folder = run_search("--n-trials", 6, "--confirm", 0)
    values = {trial["number"]: trial["value"] for trial in trials_of(folder)}
    best = sorted(values, key=lambda number: (-values[number], number))[:3]
    kept = {int(path.parent.parent.name) for path in folder.glob("trials/*/checkpoints/best_model.pt")}
    assert kept == set(best)
    assert len(list(folder.glob("trials/*/metrics.json"))) == 6
    run_search("--n-trials", 5, "--confirm", 0, "--keep-checkpoints", output="all")
    assert len(list(Path("all").glob("trials/*/checkpoints/best_model.pt"))) == 5


def test_values_that_depend_on_others(capsys):
    space = {"optimizer.type": ["adam", "sgd"], "momentum": {"values": [0.5, 0.9], "when": {"optimizer.type": "sgd"}}}
    folder = run_search("--method", "bayesian", "--n-trials", 9, "--confirm", 0, space=space)
    trials = trials_of(folder)
    assert len(trials) == 3 and document_of(folder)["study"]["end"] == "exhausted"
    assert all(("optimizer.momentum" in t["params"]) is (t["params"]["optimizer.type"] == "sgd") for t in trials)


def test_a_dry_run_writes_nothing(capsys):
    arguments = search_command("--dry-run", "--n-trials", 5)
    before = tree(Path())
    assert hyperparam_search.main(arguments) == 0
    said = capsys.readouterr().out
    assert "5 trials (5 of 16)" in said and "Dry run: nothing was written" in said
    assert tree(Path()) == before
    assert hyperparam_search.main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    folder = run_search("--n-trials", 5, "--confirm", 0)
    assert [trial["params"] for trial in trials_of(folder)] == plan["first_trials"]


def test_programs_get_json(capsys):
    folder = run_search("--n-trials", 3, "--confirm", 1, "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["end"] == "finished" and result["trials"] == {"complete": 3}
    assert result["winner"]["number"] == document_of(folder)["study"]["winner"]
    assert len(result["winner"]["values"]) == 3 and str(folder / "best_config.yaml") in result["files"]


def test_when_the_time_is_up_the_results_so_far_are_there_and_the_same_command_goes_on(capsys):
    whole = run_search("--n-trials", 3, "--confirm", 1, output="whole", training__epochs=2)
    folder = run_search("--n-trials", 3, "--confirm", 1, "--timeout", "0.001s", training__epochs=2)
    assert "The time is up: 0 of 3 trials are done" in capsys.readouterr().err
    assert document_of(folder)["study"]["end"] == "timeout" and trials_of(folder) == []
    run_search("--n-trials", 3, "--confirm", 1, "--timeout", "2h", training__epochs=2)
    assert outcome_of(folder) == outcome_of(whole)


def test_a_failure_of_code_that_is_not_ours_is_tried_again_and_told(capsys):
    """A network that fails in its first step, for lack of memory, whatever the configuration."""
    os.environ["TEST_FITTING_SAMPLES"] = "0"
    try:
        error = refused(capsys, "--n-trials", 2, "--confirm", 0, code=5, model__architecture=STOPPABLE,
                        model__hidden_dims=None, space={"learning_rate": [0.1, 0.2]})  # fmt: skip
    finally:
        del os.environ["TEST_FITTING_SAMPLES"]
    assert "no trial could be trained" in error
    assert {trial["state"] for trial in trials_of(Path("out"))} == {"failed"}


def test_a_wrong_space_or_config_is_told_as_the_validator_does(capsys):
    error = refused(capsys, code=1, space={"learning_rte": [1]})
    assert "space.yaml:2:3: error[unknown-key]" in error and "did you mean `learning_rate`?" in error
    assert not Path("out").exists()
    assert "not a valid config" in refused(capsys, code=1, model__dropout=7)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--search-space", "no_such.yaml"], 3, "no such file"),
        (["--output", "taken"], 2, "holds files that are not a search's"),
        (["--output", "space.yaml"], 2, "is a file, not a folder"),
        (["--output", "closed/out"], 4, "cannot be created"),
        (["--resume"], 3, "holds no study to go on with"),
        (["--storage", "mysql://a/b"], 2, "is no storage that can be used"),
        (["--storage", "postgresql://nobody@127.0.0.1:1/x"], 4, "the storage cannot be reached"),
    ],
)
def test_errors_are_one_sentence_with_a_remedy(capsys, arguments, code, said):
    Path("taken").mkdir()
    Path("taken/notes.txt").write_text("mine")
    Path("closed").write_text("")
    if arguments == ["--output", "closed/out"]:
        Path("closed").unlink()
        Path("closed").symlink_to("/proc/self")
    error = refused(capsys, *arguments, "--n-trials", 1, code=code).strip().split("\n")[-1]
    assert said in error and ": error: " in error


def test_too_large_a_grid_and_a_grid_without_steps_are_refused(capsys):
    rates = {"learning_rate": {"low": 0.001, "high": 0.1, "step": 0.001}, "dropout": {"low": 0.0, "high": 0.9,
                                                                                   "step": 0.01}}  # fmt: skip
    error = refused(capsys, "--method", "grid_search", code=2, space=rates)
    assert "9,100 points, more than can be run" in error and "--n-trials" in error
    run_search("--method", "grid_search", "--n-trials", 1, "--confirm", 0, space=rates)
    error = refused(capsys, "--method", "grid_search", code=2, space={"dropout": {"low": 0.0, "high": 0.5}})
    assert "model.dropout is a continuous range" in error and "step" in error


@pytest.mark.parametrize(
    "arguments",
    [["--n-trials", "0"], ["--jobs", "-1"], ["--timeout", "soon"], ["--method", "magic"], ["--metric", "x"]],
)
def test_wrong_flags_are_refused(arguments):
    with pytest.raises(SystemExit) as caught:
        hyperparam_search.main(search_command(*arguments))
    assert caught.value.code == 2


def test_epochs_are_set_once(capsys):
    assert "is in the search space too" in refused(capsys, "--epochs", 2, code=2, space={"epochs": [1, 2]})
    folder = run_search("--epochs", 2, "--n-trials", 1, "--confirm", 0)
    assert trials_of(folder)[0]["measures"]["epochs"] == 2
    assert yaml.safe_load((folder / "trials/0000/config.yaml").read_text())["training"]["epochs"] == 2


def test_the_names_of_the_methods(capsys):
    assert hyperparam_search.main(search_command("--method", "bayesian_optimization", "--dry-run")) == 0
    assert "exhaustive" in capsys.readouterr().out, "16 configurations are no more than the 20 trials"
    assert hyperparam_search.main(search_command("--method", "bayesian", "--n-trials", 9, "--dry-run")) == 0
    assert "Gaussian process" in capsys.readouterr().out
