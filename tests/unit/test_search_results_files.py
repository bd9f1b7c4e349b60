"""The tables, the best config and the lines for the console, written from a study."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from common.config import Mode, config_differences, load_config
from common.exits import InputFileError
from common.search_results.best_config import config_with
from common.search_results.records import SpaceEntry
from common.search_results.trial_files import parse_cell
from common.search_results.writing import winner_lines, write_results, write_trials
from tests.search_studies import DROPOUT, KIND, MOMENTUM, RATE, params_of, study, trial

ROOT = Path(__file__).resolve().parents[2]
ODD_VALUES = [
    0.1, 1e-05, 3, -0.0, True, False, None, "", "adam", "true", "null", "1e-3", "a,b", 'say "x"', "two\nlines", "[1]",
    " padded ", "Größe 漢字", [64, 32], [], [[1, "a"], None], {"size": 3}, "3", "\t", "=1+1", 10**17,
]  # fmt: skip


@pytest.fixture(scope="module")
def base():
    return load_config(ROOT / "configs" / "training_config.yaml")


def read_csv(folder):
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def read_json(folder):
    return json.loads((folder / "trials.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_every_value_comes_back_from_the_csv_with_its_type(tmp_path):
    trials = [trial(number, 90.0, params={RATE: value}) for number, value in enumerate(ODD_VALUES)]
    write_trials(tmp_path, study(trials, space=[SpaceEntry(RATE, choices=tuple(ODD_VALUES))]))
    found = [parse_cell(row[RATE]) for row in read_csv(tmp_path)]
    assert found == ODD_VALUES
    assert list(map(type, found)) == list(map(type, ODD_VALUES))


def test_a_hyperparameter_that_a_trial_does_not_have_is_an_empty_cell(tmp_path):
    write_trials(tmp_path, study([trial(0, 90.0), trial(3, 91.0)]))
    assert [bool(row[MOMENTUM]) for row in read_csv(tmp_path)] == [False, True]


def test_all_states_are_in_both_tables_in_the_order_of_their_numbers(tmp_path):
    states = ["waiting", "running", "failed", "pruned", "diverged"]
    trials = [trial(5 - place, None, state=state) for place, state in enumerate(states)] + [trial(0, 90.0)]
    write_trials(tmp_path, study(trials))
    expected = ["complete", *reversed(states)]
    assert [row["state"] for row in read_csv(tmp_path)] == expected
    assert [entry["state"] for entry in read_json(tmp_path)["trials"]] == expected


def test_the_json_holds_the_whole_study(tmp_path):
    record = study([trial(number, 90.0 + number) for number in range(4)], {3: (91.0, 92.0), 2: (92.5, None)})
    write_trials(tmp_path, record)
    found = read_json(tmp_path)
    assert found["schema_version"] == 1
    assert {"number", "state", "params", "value", "seed"} <= found["trials"][0].keys()
    whole = json.loads(json.dumps(asdict(record)))
    assert found["trials"] == whole.pop("trials") and found["confirmations"] == whole.pop("confirmations")
    assert found["study"] == whole


def test_numbers_that_are_not_finite_are_null_and_half_characters_are_escaped(tmp_path):
    odd = trial(0, math.inf, params={RATE: math.nan}, measures={"val_loss": math.nan}, message="bad \udcff name")
    write_trials(tmp_path, study([odd], winner=None))
    entry = read_json(tmp_path)["trials"][0]
    assert entry["value"] is None and entry["params"][RATE] is None and entry["measures"]["val_loss"] is None
    row = read_csv(tmp_path)[0]
    assert row["value"] == "" and row[RATE] == "null" and row["message"] == "bad \\udcff name"


def test_the_best_config_is_the_base_with_the_winner_s_values_and_says_what_differs(tmp_path, base):
    values = {RATE: 0.003, DROPOUT: 0.1, "model.hidden_dims": [32, 16], "training.batch_size": 64}
    record = study([trial(0, 97.0, params=values), trial(1, 90.0)])
    write_results(tmp_path, record, base)
    text = (tmp_path / "best_config.yaml").read_text(encoding="utf-8")
    assert "hyperparam_search" in text.split("\n")[0] and "trial 0" in text.split("\n")[0]
    assert "  learning_rate: 0.003  # base: 0.001\n" in text
    assert "  hidden_dims: [32, 16]  # base: null\n" in text
    assert "  dropout: 0.1\n" in text  # the base has it too
    assert text.count("  # base: ") == 3
    loaded = load_config(tmp_path / "best_config.yaml").config
    assert loaded == config_with(base.config, values)
    changed = {key for key, _, _ in config_differences(base.config, loaded)}
    assert changed == {RATE, "model.hidden_dims", "training.batch_size"}
    assert load_config(tmp_path / "best_config.yaml", mode=Mode.OPTIMIZATION).config == loaded


def test_values_that_contradict_the_base_are_refused(base):
    with pytest.raises(InputFileError, match="invalid"):
        config_with(base.config, {KIND: "sgd", MOMENTUM: 0.0, "optimizer.nesterov": True})


def test_without_a_winner_no_best_config_is_left_from_before(tmp_path, base):
    write_results(tmp_path, study([trial(0, 97.0)]), base)
    assert (tmp_path / "best_config.yaml").exists()
    files = write_results(tmp_path, study([trial(0, None)]), base)
    assert not (tmp_path / "best_config.yaml").exists()
    assert all(path.is_file() for path in files)


def test_the_same_study_gives_the_same_bytes(tmp_path, base):
    record = study([trial(number, 90.0 + number % 7) for number in range(12)] + [trial(12, None)], {6: (94.0, 95.0)})
    contents = []
    for name in ("a", "b"):
        # The folder's name is in the commands of the report.
        folder = tmp_path / name / "search"
        folder.mkdir(parents=True)
        files = write_results(folder, record, base)
        contents.append([path.read_bytes().replace(bytes(tmp_path / name), b"") for path in files])
        assert {path.name for path in folder.iterdir()} == {path.name for path in files}
    assert contents[0] == contents[1]


def test_the_order_in_which_trials_are_handed_over_changes_nothing(tmp_path, base):
    trials = [trial(number, 90.0 + number) for number in range(8)]
    contents = []
    for order in (trials, trials[::-1]):
        files = write_results(tmp_path, study(order), base)
        contents.append([path.read_bytes() for path in files])
    assert contents[0] == contents[1]


def test_the_console_is_told_the_winner_and_what_it_changes(base):
    record = study([trial(0, 97.0, params={RATE: 0.003, DROPOUT: 0.1})], {0: (95.0, 96.0)})
    first, *rest = winner_lines(record, base)
    assert "trial 0" in first and "95.50%" in first and "± 1.00 points" in first and "3 seeds" in first
    assert rest == ["  optimizer.learning_rate: 0.003 (base: 0.001)"]
    assert winner_lines(record)[1:] == ["  learning_rate: 0.003", "  dropout: 0.1"]


def test_an_unconfirmed_winner_is_called_optimistic_and_no_winner_is_said(base):
    assert "optimistic" in winner_lines(study([trial(0, 97.0)]), base)[0]
    assert winner_lines(study([trial(0, None)]), base) == ["No winner: no trial was completed with a score."]
    assert winner_lines(replace(study([trial(0, 97.0)]), trials=[], winner=None)) == ["No winner: no trial was begun."]


def test_what_equals_the_base_is_said_so(base):
    record = study([trial(0, 97.0, params={DROPOUT: 0.1})])
    assert winner_lines(record, base)[1:] == ["  Nothing differs from the base config."]
    assert params_of(0) != params_of(1)
