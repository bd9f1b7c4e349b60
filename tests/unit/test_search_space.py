from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from common.config import ConfigInvalidError, load_config
from common.search.space import check_search_space, configured, is_search_space, read_search_space
from common.search_results.records import SpaceEntry

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "configs" / "search_space.yaml"


@pytest.fixture(scope="module")
def base():
    return load_config(ROOT / "configs" / "training_config.yaml")


def written(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def entries(folder: Path, base, *lines: str) -> tuple[SpaceEntry, ...]:
    return read_search_space(
        written(folder, "\n".join(["search_space:", *(f"  {line}" for line in lines)])), base
    ).entries


def refusals(folder: Path, base, text: str) -> list:
    with pytest.raises(ConfigInvalidError) as caught:
        read_search_space(written(folder, text), base)
    assert caught.value.exit == 1 and "not a valid search space" in str(caught.value)
    return list(caught.value.problems)


def test_the_documented_space_as_typed(tmp_path, base):
    space = read_search_space(written(tmp_path, """
search_space:
  learning_rate: [1e-4, 1e-3, 1e-2]
  dropout: [0.3, 0.4, 0.5]
  weight_decay: [1e-5, 1e-4, 1e-3]
  batch_size: [32, 64, 128]
"""), base)  # fmt: skip
    assert space.entries == (
        SpaceEntry("optimizer.learning_rate", choices=(1e-4, 1e-3, 1e-2)),
        SpaceEntry("model.dropout", choices=(0.3, 0.4, 0.5)),
        SpaceEntry("optimizer.weight_decay", choices=(1e-5, 1e-4, 1e-3)),
        SpaceEntry("training.batch_size", choices=(32, 64, 128)),
    )
    assert space.size == 81 and space.notices == ()


def test_the_shipped_space_is_the_documented_one_and_sound(base):
    space = read_search_space(SHIPPED, base)
    assert space.size == 81 and space.notices == ()
    assert check_search_space(SHIPPED) == [] and is_search_space(SHIPPED)


def test_the_examples_in_its_comments_are_sound(tmp_path, base):
    lines = SHIPPED.read_text(encoding="utf-8").split("\n")
    examples = [match[1] for line in lines if (match := re.fullmatch(r"  # (\S+: [\[{].*[\]}])", line))]
    assert len(examples) == 7
    for chosen in (examples[:3], examples[3:]):
        assert len(entries(tmp_path, base, *chosen)) == len(chosen)
    ranges = entries(tmp_path, base, *examples[:3])
    assert [entry.log for entry in ranges] == [True, False, False]
    assert entries(tmp_path, base, *examples[3:])[1].when == {"optimizer.type": ("sgd",)}


def test_full_paths_ends_of_paths_and_own_arguments(tmp_path, base):
    found = entries(tmp_path, base, "optimizer.type: [Adam, SGD]", "lr_scheduler.patience: [2, 3]",
                    "model.architecture_args.width: {low: 8, high: 32, step: 8}")  # fmt: skip
    assert [entry.path for entry in found] == [
        "optimizer.type",
        "lr_scheduler.patience",
        "model.architecture_args.width",
    ]
    assert found[0].choices == ("adam", "sgd"), "as the config holds them"
    assert isinstance(found[2].low, int)


def test_numbers_are_those_of_the_field(tmp_path, base):
    found = entries(tmp_path, base, "dropout: {low: 0, high: 0.5}", "batch_size: {low: 16, high: 64, log: true}",
                    "weight_decay: [0, 1e-3]", "hidden_dims: [[64], [128, 64]]")  # fmt: skip
    assert isinstance(found[0].low, float) and isinstance(found[1].high, int)
    assert isinstance(found[2].choices[0], float)
    assert found[3].choices == ([64], [128, 64])


BAD = [
    ("learning_rte: [1e-3]", "unknown-key", 3, "unknown hyperparameter `learning_rte`", "`learning_rate`"),
    ("optimizer.learning_rte: [1e-3]", "unknown-key", 3, "unknown hyperparameter", "`optimizer.learning_rate`"),
    ("type: [adam]", "ambiguous-key", 3, "several fields", "`optimizer.type`, `lr_scheduler.type`"),
    ("optimizer: [adam]", "section", 3, "is a section", "`optimizer.type`"),
    ("seed: [1, 2]", "not-searchable", 3, "no hyperparameter", "remove it"),
    ("data.source: [digits, wine]", "not-searchable", 3, "different validation data", "remove it"),
    ("data.split.val: [0.1]", "not-searchable", 3, "different validation data", "remove it"),
    ("num_workers: [0, 2]", "not-searchable", 3, "no influence", "remove it"),
    ("checkpointing.monitor: [val_acc]", "not-searchable", 3, "different measures", "remove it"),
    ("dropout: [0.1, 1.5]", "value", 18, "expected a number of at least 0 and below 1, found 1.5", None),
    ("batch_size: [32, 2.5]", "type", 20, "found 2.5", None),
    ("activation: [relu, gleu]", "value", 22, "found the text `gleu`", "did you mean `gelu`?"),
    ("dropout: [0.1, 0.2, 0.1]", "duplicate-value", 23, "0.1 stands twice", "remove"),
    ("optimizer.type: [adam, Adam]", "duplicate-value", 26, "stands twice", "remove"),
    ("dropout: []", "value", 12, "no values", "at least one"),
    ("dropout: 0.1", "type", 12, "expected a list of values", "write a list: `[0.1]`"),
    ("dropout:", "type", 3, "expected a list of values", None),
    ("dropout: {values: 0.3}", "type", 21, "expected a list", None),
    ("dropout: {low: 0.5, high: 0.1}", "impossible-range", 18, "low 0.5 is not below high 0.1", "swap"),
    ("dropout: {low: 0.1, high: 0.1}", "impossible-range", 18, "not below", "list"),
    ("dropout: {low: 0.1, high: 1.1}", "value", 29, "below 1, found 1.1", None),
    ("dropout: {low: 0.1}", "missing-field", 3, "`high` is missing", "a range"),
    ("dropout: {low: 0, high: 0.5, step: 0.2}", "impossible-range", 27, "not reached", "0.4"),
    ("dropout: {low: 0, high: 0.5, step: -1}", "impossible-range", 38, "above 0", None),
    ("dropout: {low: 0, high: 0.5, log: true}", "impossible-range", 18, "begins above 0", "remove `log`"),
    ("dropout: {low: 0.1, high: 0.5, log: yes}", "type", 39, "`true` or `false`", None),
    ("dropout: {low: 0.1, high: 0.5, step: 0.1, log: true}", "conflict", 40, "do not go together", "remove"),
    ("dropout: {low: 0.1, high: 0.5, stp: 0.1}", "unknown-key", 34, "unknown key `stp`", "did you mean `step`?"),
    ("dropout: {values: [0.1], low: 0.1}", "conflict", 28, "`low` does not go together", "remove"),
    ("batch_size: {low: 8, high: 64.5}", "type", 30, "a whole number", None),
    ("batch_size: {low: yes, high: 64}", "type", 21, "expected a number", None),
    ("activation: {low: 1, high: 2}", "type", 3, "a range is for numbers", "list the values"),
    ("dropout: {values: [0.1], when: {optimizer.type: sgd}}", "value", 35, "no other entry", "remove the condition"),
    ("dropout: {values: [0.1], when: sgd}", "type", 34, "expected a mapping", None),
    ("dropout: {values: [0.1], when: {dropout: 0.1}}", "value", 35, "no other entry", None),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "column", "message", "hint"), BAD, ids=[line for line, *_ in BAD])
def test_a_mistake_is_shown_at_its_place_as_the_validator_does(tmp_path, base, line, code, column, message, hint):
    (problem,) = refusals(tmp_path, base, f"search_space:\n  {line}\n")
    assert (problem.code, problem.line, problem.column) == (code, 2, column)
    assert message in problem.message and problem.excerpt == f"  {line}"
    assert hint is None or hint in problem.hint


def test_conditions_name_values_that_there_are(tmp_path, base):
    text = "search_space:\n  optimizer.type: [adam, sgd]\n  momentum: {values: [0.9], when: {optimizer.type: sgdd}}\n"
    (problem,) = refusals(tmp_path, base, text)
    assert problem.line == 3 and "did you mean `sgd`?" in problem.hint
    (problem,) = refusals(tmp_path, base, text.replace("sgdd", "[sgd, rmsprop]"))
    assert "none of the values of `optimizer.type`" in problem.message and "`adam`, `sgd`" in problem.hint


def test_conditions_must_not_go_round_in_circles(tmp_path, base):
    (problem,) = refusals(tmp_path, base, "search_space:\n  dropout: {values: [0.1], when: {batch_size: 8}}\n"
                          "  batch_size: {values: [8], when: {dropout: 0.1}}\n")  # fmt: skip
    assert "circle" in problem.message and problem.line == 2


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", "root", "found an empty file"),
        ("learning_rate: [1e-3]\n", "root", "expected `search_space:`"),
        ("search_space:\n", "empty-space", "the search space is empty"),
        ("search_space: {}\n", "empty-space", "the search space is empty"),
        ("search_space: [1]\n", "type", "expected a mapping"),
        ("search_space:\n  dropout: [0.1]\nmethod: grid\n", "unknown-key", "unknown key `method`"),
        ("search_space:\n  dropout: [0.1\n", "syntax", ""),
        ("search_space:\n  dropout: [0.1]\n  dropout: [0.2]\n", "duplicate-key", "already there on line 2"),
        ("search_space:\n  dropout: [0.1]\n  model.dropout: [0.2]\n", "duplicate-key", "the same hyperparameter"),
    ],
)
def test_a_file_that_is_no_search_space(tmp_path, base, text, code, message):
    (problem,) = refusals(tmp_path, base, text)
    assert problem.code == code and message in problem.message


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path, base):
    problems = refusals(tmp_path, base, "search_space:\n  lr: [2]\n  dropout: [7]\n  batch_size: {low: 9, high: 2}\n")
    assert [problem.line for problem in problems] == [2, 3, 4]


def test_configurations_that_only_together_are_not_valid_are_found_before_anything_runs(tmp_path, base):
    text = "search_space:\n  optimizer.type: [adam, sgd]\n  nesterov: [true, false]\n  momentum: [0.0, 0.9]\n"
    (problem,) = refusals(tmp_path, base, text)
    assert "Nesterov momentum needs a momentum above 0" in problem.message
    assert "optimizer.momentum: 0.0" in problem.message and problem.line == 3


def test_what_is_allowed_but_doubtful_is_told(tmp_path, base):
    space = read_search_space(
        written(tmp_path, "search_space:\n  optimizer.type: [adam, sgd]\n  momentum: [0.8, 0.9]\n"), base
    )
    assert len(space.notices) == 1 and "has no effect on adam" in space.notices[0]


def test_a_large_space_is_checked_in_places(tmp_path, base):
    lines = ["learning_rate: {low: 1e-5, high: 1.0, log: true}", "dropout: {low: 0.0, high: 0.9}",
             "batch_size: {low: 1, high: 4096}"]  # fmt: skip
    assert len(entries(tmp_path, base, *lines)) == 3


def test_a_configuration_is_the_base_with_the_values_in_place(base):
    config = configured(base.config, {"optimizer.learning_rate": 0.5, "model.architecture_args.width": 3})
    assert config.optimizer.learning_rate == 0.5 and config.model.architecture_args == {"width": 3}
    assert config.training == base.config.training
    assert "expected" in configured(base.config, {"model.dropout": 2.0})


def test_the_validator_checks_search_spaces_too(tmp_path, capsys):
    import config_validator

    path = written(tmp_path, yaml.safe_dump({"search_space": {"dropout": [0.1, 3]}}))
    assert config_validator.main(["--config", str(path)]) == 1
    assert "found 3" in capsys.readouterr().out
    assert config_validator.main(["--config", str(SHIPPED), "--strict"]) == 0
