"""The schema: what it takes, what it refuses, and in which words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from common.config import Config, check_config
from common.config.problems import Problem, render
from common.config.schema_errors import SchemaError, validate

PLAIN: dict[str, dict[str, Any]] = {
    "model": {"architecture": "simple_cnn", "dropout": 0.1},
    "optimizer": {"type": "adam", "learning_rate": 1e-3, "weight_decay": 0},
    "training": {"epochs": 20, "batch_size": 32, "device": "auto"},
    "early_stopping": {"enabled": True, "patience": 10, "metric": "val_loss"},
    "reproducibility": {"seed": 42, "deterministic": True},
}


ONE_EACH = "give each transform its own `- ` entry, as in `- random_crop: {padding: 4}`"


def with_values(**values: Any) -> dict[str, Any]:
    """The plain config with ``section__field=value`` set."""
    mapping: dict[str, Any] = copy.deepcopy(PLAIN)
    for key, value in values.items():
        *sections, field = key.split("__")
        target = mapping
        for section in sections:
            target = target.setdefault(section, {})
        target[field] = value
    return mapping


def config_with(**values: Any) -> Config:
    result = validate(with_values(**values))
    assert isinstance(result, Config), result
    return result


def errors_with(**values: Any) -> list[SchemaError]:
    result = validate(with_values(**values))
    assert not isinstance(result, Config), "accepted"
    return result


def only_error(**values: Any) -> SchemaError:
    (error,) = errors_with(**values)
    return error


def problems_in(tmp_path, text: str) -> list[Problem]:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return check_config(path)


def test_the_documented_required_fields_are_required_and_no_others() -> None:
    documented = {
        "model": {"architecture", "dropout"},
        "optimizer": {"type", "learning_rate", "weight_decay"},
        "training": {"epochs", "batch_size", "device"},
        "early_stopping": {"enabled", "patience", "metric"},
        "reproducibility": {"seed", "deterministic"},
    }
    required = {name for name, field in Config.model_fields.items() if field.is_required()}
    assert required == set(documented)
    for section, fields in documented.items():
        kind = Config.model_fields[section].annotation
        assert {name for name, field in kind.model_fields.items() if field.is_required()} == fields
        for field in fields:
            mapping = with_values()
            del mapping[section][field]
            assert [(error.code, error.path) for error in validate(mapping)] == [("missing-field", (section, field))]


@pytest.mark.parametrize("section", list(PLAIN))
def test_a_missing_section_is_one_error(section: str) -> None:
    mapping = with_values()
    del mapping[section]
    assert [(error.code, error.path) for error in validate(mapping)] == [("missing-section", (section,))]


@pytest.mark.parametrize("value", [2.5, 2.0, True, "20", None, [20], {}, 0, -1])
def test_epochs_must_be_a_positive_whole_number(value: object) -> None:
    error = only_error(training__epochs=value)
    assert error.path == ("training", "epochs")
    assert "a whole number" in (error.expected or "")


@pytest.mark.parametrize("value", ["1e-3", True, None, 0, -1e-3, float("nan"), float("inf"), [1e-3]])
def test_learning_rate_must_be_a_positive_number(value: object) -> None:
    assert only_error(optimizer__learning_rate=value).expected == "a number above 0"


def test_a_whole_number_is_a_number() -> None:
    learning_rate = config_with(optimizer__learning_rate=1).optimizer.learning_rate
    assert learning_rate == 1.0
    assert type(learning_rate) is float


@pytest.mark.parametrize("value", ["yes", 1, 0, "true", None])
def test_truth_values_are_strict(value: object) -> None:
    assert only_error(early_stopping__enabled=value).expected == "`true` or `false`"


@pytest.mark.parametrize("value", [None, "random", "Random", "none", "auto"])
def test_the_seed_must_be_fixed(value: object) -> None:
    error = only_error(reproducibility__seed=value)
    assert error.code == "seed"
    assert "seed: 42" in (error.hint or "")


@pytest.mark.parametrize("value", [-1, 2**32, 1.5, True])
def test_the_seed_must_be_one_that_every_library_takes(value: object) -> None:
    assert only_error(reproducibility__seed=value).path == ("reproducibility", "seed")
    assert config_with(reproducibility__seed=2**32 - 1).reproducibility.seed == 2**32 - 1


@pytest.mark.parametrize(
    ("key", "written", "read"),
    [
        ("model__architecture", "ResNet18", "resnet18"),
        ("model__architecture", "my_pkg.Nets:Build", "my_pkg.Nets:Build"),
        ("optimizer__type", "AdamW", "adamw"),
        ("early_stopping__metric", "Val_Acc", "val_acc"),
        ("training__device", "CUDA:1", "cuda:1"),
        ("training__class_weights", "Balanced", "balanced"),
        ("lr_scheduler__type", "Cosine", "cosine"),
    ],
)
def test_names_match_in_any_case(key: str, written: str, read: str) -> None:
    section, field = key.split("__")
    assert getattr(getattr(config_with(**{key: written}), section), field) == read


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("model__architecture", "resnet81", "resnet18"),
        ("optimizer__type", "adamm", "adam"),
        ("early_stopping__metric", "val_accuracy", "val_acc"),
        ("training__device", "gpu", "cuda"),
        ("data__source", "imagefolder", "image_folder"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(key: str, value: str, meant: str) -> None:
    assert only_error(**{key: value}).hint == f"did you mean `{meant}`?"


@pytest.mark.parametrize("path", ["pkg.mod:", ":build", "pkg/mod:build", "a b:c", "pkg..mod:x", "pkg:1x", "C:\\x"])
def test_a_wrong_import_path_is_an_error(path: str) -> None:
    assert "package.module:callable" in (only_error(model__architecture=path).hint or "")


@pytest.mark.parametrize("device", ["cuda:", "cuda:-1", "cuda:x", "cuda:01", "tpu", ""])
def test_a_wrong_device_is_an_error(device: str) -> None:
    assert only_error(training__device=device).path == ("training", "device")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model__dropout", 1.0),
        ("model__dropout", -0.1),
        ("model__num_classes", 1),
        ("model__hidden_dims", []),
        ("model__hidden_dims", [0]),
        ("optimizer__betas", [0.9]),
        ("optimizer__betas", [0.9, 1.0]),
        ("optimizer__gradient_clip_max_norm", 0),
        ("training__batch_size", 0),
        ("training__accumulate", 0),
        ("training__ema", 1.0),
        ("training__class_weights", "equal"),
        ("training__class_weights", [1.0, -1.0]),
        ("early_stopping__patience", 0),
        ("early_stopping__min_delta", -0.1),
        ("data__image_size", [8, 8, 8]),
        ("data__image_size", "8x8"),
        ("data__split__val", 0),
        ("lr_scheduler__factor", 1),
        ("target__val_acc", 101),
        ("diagnostics__nan_loss__reaction", "panic"),
        ("export__formats", ["onnx", "tflite"]),
        ("experiment__tags", "one"),
        ("experiment__name", "two\nlines"),
        ("experiment__name", "a\u202eb"),
        ("experiment__notes", "\x1b[2J"),
        ("model__architecture_args", {"depth": float("nan")}),
        ("model__architecture_args", {"depth": {1, 2}}),
        ("model__architecture_args", {1: 2}),
    ],
)
def test_what_is_out_of_range_is_one_error_at_the_field(key: str, value: object) -> None:
    error = only_error(**{key: value})
    path = tuple(key.split("__"))
    assert error.path[: len(path)] == path
    assert error.message


def test_the_place_inside_a_list_is_named() -> None:
    assert only_error(data__image_size=[8, -1]).path == ("data", "image_size", 1)
    assert only_error(training__class_weights=[1.0, "x"]).path == ("training", "class_weights", 1)


def test_nothing_to_train_on_is_an_error() -> None:
    error = only_error(data__split={"val": 0.5, "test": 0.5})
    assert (error.code, error.path) == ("conflict", ("data", "split", "test"))


@pytest.mark.parametrize("source", ["image_folder", "npz", "csv", "parquet", "mnist", "cifar10"])
def test_sources_of_files_need_a_root(source: str) -> None:
    assert only_error(data__source=source).path == ("data", "source")
    assert config_with(data__source=source, data__root="somewhere").data.root == "somewhere"


def test_class_weights_must_fit_the_classes() -> None:
    error = only_error(model__num_classes=3, training__class_weights=[1.0, 2.0])
    assert error.path == ("training", "class_weights")
    assert "2 class weights for 3 classes" in error.message


def test_nesterov_needs_momentum() -> None:
    assert only_error(optimizer__type="sgd", optimizer__nesterov=True, optimizer__momentum=0).path[-1] == "nesterov"


def test_transforms_have_a_short_and_a_long_form() -> None:
    transforms = ["Cutout", {"random_crop": {"padding": 2}}, {"mixup": None}, {"color_jitter": {"contrast": 0.5}}]
    crop, padded, mixup, jitter = config_with(data_augmentation__transforms=transforms).data_augmentation.transforms
    assert (crop.name, crop.size) == ("cutout", 8)
    assert (padded.name, padded.padding) == ("random_crop", 2)
    assert (mixup.name, mixup.alpha) == ("mixup", 0.2)
    assert (jitter.brightness, jitter.contrast) == (0.2, 0.5)


@pytest.mark.parametrize(
    ("entry", "below", "hint"),
    [
        ("cutuot", (), "did you mean `cutout`?"),
        ({"cutuot": {"size": 4}}, (), "did you mean `cutout`?"),
        ({"cutout": {"sise": 4}}, ("cutout", "sise"), "did you mean `size`?"),
        ({"cutout": {"size": 1.5}}, ("cutout", "size"), None),
        ({"cutout": 4}, ("cutout",), "write `- cutout` or `- cutout: {size: ...}`"),
        ({"cutout": {"name": "mixup"}}, ("cutout",), "remove it"),
        ({"name": "cutout", "size": 4}, (), "write `- cutout: {size: 4}`"),
        (
            {"cutout": {}, "mixup": {}},
            (),
            ONE_EACH,
        ),
        ({}, (), ONE_EACH),
        (7, (), None),
        (None, (), None),
        ([], (), None),
    ],
)
def test_a_wrong_transform_is_one_error_with_its_remedy(
    entry: object, below: tuple[str, ...], hint: str | None
) -> None:
    error = only_error(data_augmentation__transforms=[entry])
    assert error.path == ("data_augmentation", "transforms", 0, *below)
    assert error.hint == hint


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("training__batchsize", "did you mean `batch_size`?"),
        ("training__num_epochs", "did you mean `epochs`?"),
        ("optimizer__lr", "did you mean `learning_rate`?"),
        ("training__learning_rate", "did you mean `optimizer.learning_rate`?"),
        ("optimiser", "did you mean `optimizer`?"),
        ("dropout", "did you mean `model.dropout`?"),
        ("target__q", "known here: `val_acc`"),
    ],
)
def test_unknown_keys_get_a_suggestion(key: str, hint: str) -> None:
    error = only_error(**{key: 1})
    assert error.code == "unknown-key"
    assert error.hint == hint


def test_a_misspelt_required_key_is_not_also_missing() -> None:
    mapping = with_values(training__batchsize=128)
    del mapping["training"]["batch_size"]
    assert [error.code for error in validate(mapping)] == ["unknown-key"]
    mapping = with_values(optimiser=PLAIN["optimizer"])
    del mapping["optimizer"]
    assert [error.code for error in validate(mapping)] == ["unknown-key"]


def test_all_errors_come_at_once_in_file_order(tmp_path) -> None:
    text = """\
training:
  epochs: 2.5
  batchsize: 128
  device: cpu
model: {architecture: simple_cnn, dropout: 1.5}
optimizer:
  type: adam
  learning_rate: "1e-3"
  weight_decay:
early_stopping: {enabled: yes, patience: 010, metric: val_loss}
reproducibility: {seed: random, deterministic: true}
"""
    found = [(p.line, p.column, p.code, p.key) for p in problems_in(tmp_path, text)]
    assert found == [
        (2, 11, "type", "training.epochs"),
        (3, 3, "unknown-key", "training.batchsize"),
        (5, 44, "value", "model.dropout"),
        (8, 18, "type", "optimizer.learning_rate"),
        (9, 3, "type", "optimizer.weight_decay"),
        (10, 27, "type", "early_stopping.enabled"),
        (10, 42, "type", "early_stopping.patience"),
        (11, 25, "seed", "reproducibility.seed"),
    ]


def test_reader_and_schema_problems_are_reported_together_without_echo(tmp_path) -> None:
    text = """\
model: {architecture: simple_cnn, dropout: .nan}
optimizer: {type: adam, learning_rate: 1e-3, weight_decay: 0, type: sgd}
training: {epochs: 0, batch_size: 32, device: auto}
early_stopping: {enabled: true, patience: 10, metric: val_loss}
reproducibility: {seed: !!int "42", deterministic: true}
"""
    found = [(p.line, p.code) for p in problems_in(tmp_path, text)]
    assert found == [(1, "number"), (2, "duplicate-key"), (3, "value"), (5, "tag")]


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("# only words\n", "nothing"), ("- 1\n", "a list of 1"),
                                             ("hello", "the text `hello`"), ("42", "42")])  # fmt: skip
def test_the_root_must_be_a_mapping(tmp_path, text: str, found: str) -> None:
    (problem,) = problems_in(tmp_path, text)
    assert (problem.code, problem.line, problem.found) == ("root", 1, found)


def test_a_section_that_is_no_mapping_is_one_error(tmp_path) -> None:
    text = "model: 5\noptimizer:\ntraining: [1]\nearly_stopping: x\nreproducibility: {seed: 1, deterministic: true}\n"
    problems = problems_in(tmp_path, text)
    assert [(p.line, p.expected, p.found) for p in problems] == [
        (1, "a mapping", "5"),
        (2, "a mapping", "no value"),
        (3, "a mapping", "a list of 1"),
        (4, "a mapping", "the text `x`"),
    ]


def test_an_error_looks_like_a_good_compilers() -> None:
    problem = Problem(
        path="configs/bad.yaml", code="unknown-key", message="unknown key `batchsize`", key="training.batchsize",
        line=6, column=3, end_column=12, hint="did you mean `batch_size`?", excerpt="  batchsize: 128",
    )  # fmt: skip
    assert render(problem) == (
        "configs/bad.yaml:6:3: error[unknown-key]: training.batchsize: unknown key `batchsize`\n"
        "  |\n"
        "6 |   batchsize: 128\n"
        "  |   ^^^^^^^^^\n"
        "  = help: did you mean `batch_size`?"
    )


@pytest.mark.parametrize(
    ("excerpt", "column", "end_column", "caret_line"),
    [
        ("漢字: x", 5, 6, "  |       ^"),
        ("e\u0301: x", 5, 6, "  |    ^"),
        ("\tb: 1", 1, 2, "  | ^"),
        ("k: 1", 40, 41, "  |     ^"),
    ],
)
def test_the_caret_stands_below_the_value(excerpt: str, column: int, end_column: int, caret_line: str) -> None:
    problem = Problem("x.yaml", "c", "m", line=1, column=column, end_column=end_column, excerpt=excerpt)
    assert render(problem).split("\n")[3] == caret_line


def test_a_long_line_is_cut_around_the_caret() -> None:
    problem = Problem("x.yaml", "c", "m", line=1, column=501, end_column=504, excerpt="a" * 500 + "BAD" + "c" * 500)
    _, _, shown, caret = render(problem).split("\n")
    assert len(shown) < 140
    assert shown[caret.index("^") : caret.rindex("^") + 1] == "BAD"


def test_a_report_cannot_move_the_cursor() -> None:
    problem = Problem("x\x1b[2J.yaml", "c", "m \u202e", line=1, column=1, end_column=2, excerpt="a\x07\x1b]0;x")
    assert render(problem).replace("\n", "").isprintable()
