"""Modes, precedence, overrides, and what a config is told about itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import ConfigInvalidError, Mode, check_config, config_from_mapping, config_to_mapping, load_config
from common.exits import Exit, InputFileError

TEXT = """\
model: {architecture: simple_cnn, dropout: 0.1}
optimizer: {type: adam, learning_rate: 1e-3, weight_decay: 0.0}
training: {epochs: 20, batch_size: 32, device: auto}
early_stopping: {enabled: true, patience: 10, metric: val_loss}
reproducibility: {seed: 42, deterministic: true}
"""


@pytest.fixture
def path(tmp_path) -> Path:
    return write(tmp_path)


def write(folder: Path, more: str = "", text: str = TEXT) -> Path:
    path = folder / "config.yaml"
    path.write_text(text + more, encoding="utf-8")
    return path


def warnings_of(path: Path, **arguments: object) -> list[tuple[str, str]]:
    return [(problem.code, problem.key) for problem in check_config(path, **arguments)]


def test_a_plain_config_loads_without_a_word(path) -> None:
    loaded = load_config(path)
    assert loaded.config.optimizer.learning_rate == 0.001
    assert loaded.config.data.source == "digits"
    assert loaded.notices == []
    assert loaded.source == path


def test_a_config_cannot_be_changed(path) -> None:
    config = load_config(path).config
    with pytest.raises(ValueError, match="frozen"):
        config.training.epochs = 5


def test_mode_presets_fill_what_the_file_leaves_out(tmp_path, path) -> None:
    assert not load_config(path, mode="baseline").config.test_set.enabled
    production = load_config(path, mode=Mode.PRODUCTION).config.test_set
    assert production.enabled and production.evaluate_at_end
    explicit = load_config(write(tmp_path, "test_set: {enabled: false}\n"), mode="production").config.test_set
    assert not explicit.enabled and explicit.evaluate_at_end


@pytest.mark.parametrize(("mode", "epochs"), [("baseline", 20), ("optimization", 50), ("production", 100)])
def test_each_mode_is_content_with_what_the_documentation_says(path, mode: str, epochs: int) -> None:
    loaded = load_config(path, mode=mode, overrides=[f"training.epochs={epochs}", "early_stopping.patience=10"])
    assert loaded.notices == []
    assert loaded.config.training.epochs == epochs


def test_a_notice_says_where_the_config_departs_from_the_mode(path) -> None:
    assert load_config(path, mode="baseline", flags={"training.epochs": 5, "early_stopping.patience": 4}).notices == [
        "early_stopping.patience: 4 (the baseline mode means 10)",
        "training.epochs: 5 (the baseline mode means 20)",
    ]
    assert load_config(path, mode="production").notices == ["training.epochs: 20 (the production mode means 100)"]


def test_the_optimization_mode_takes_a_patience_of_5_to_10(path) -> None:
    for patience in range(4, 12):
        notices = load_config(
            path, mode="optimization", overrides=["training.epochs=50", f"early_stopping.patience={patience}"]
        ).notices
        assert (notices == []) == (5 <= patience <= 10)


def test_later_sources_win(tmp_path) -> None:
    path = write(tmp_path, "lr_scheduler: {type: step}\n")
    assert load_config(path).config.lr_scheduler.type == "step"
    overridden = load_config(path, overrides=["lr_scheduler.type=cosine", "lr_scheduler.type=one_cycle"])
    assert overridden.config.lr_scheduler.type == "one_cycle"
    assert load_config(path, overrides=["training.epochs=3"], flags={"training.epochs": 4}).config.training.epochs == 4


def test_a_flag_that_was_not_given_changes_nothing(path) -> None:
    assert load_config(path, flags={"training.device": None}).config.training.device == "auto"


@pytest.mark.parametrize(
    ("override", "section", "field", "value"),
    [
        ("optimizer.learning_rate=3e-4", "optimizer", "learning_rate", 3e-4),
        ("optimizer.betas=[0.8, 0.99]", "optimizer", "betas", (0.8, 0.99)),
        ("model.num_classes=null", "model", "num_classes", None),
        ("model.pretrained=", "model", "pretrained", None),
        ("experiment.name='a=b'", "experiment", "name", "a=b"),
        ("experiment.name=2024-01-02", "experiment", "name", "2024-01-02"),
        (" training.epochs = 7", "training", "epochs", 7),
        ("model.architecture_args.depth=3", "model", "architecture_args", {"depth": 3}),
        ("experiment={tags: [x]}", "experiment", "tags", ("x",)),
    ],
)
def test_overrides_are_yaml(path, override: str, section: str, field: str, value: object) -> None:
    assert getattr(getattr(load_config(path, overrides=[override]).config, section), field) == value


@pytest.mark.parametrize(
    ("override", "origin", "code", "hint"),
    [
        ("training.epoch=5", "--set training.epoch", "unknown-key", "did you mean `epochs`?"),
        ("learning_rate=5", "--set learning_rate", "unknown-key", "did you mean `optimizer.learning_rate`?"),
        ("trainin.epochs=5", "--set trainin.epochs", "unknown-key", "did you mean `training`?"),
        ("training.epochs.x=5", "--set training.epochs.x", "unknown-key", "remove it"),
        ("training.epochs=1.5", "--set training.epochs", "type", None),
        ("training.epochs=10_0", "--set training.epochs", "type", "YAML 1.2 has no digit separators; write 100"),
        ("training.epochs=[", "--set training.epochs", "syntax", "close it, or put a comma between the entries"),
        ("training.epochs=.inf", "--set training.epochs", "number", None),
        ("training.epochs", "--set training.epochs", "syntax", None),
        ("=5", "--set =5", "syntax", None),
        ("data.split.val=0.9", "--set data.split.val", "conflict", "make val + test less than 1"),
    ],
)
def test_a_wrong_override_is_named(path, override: str, origin: str, code: str, hint: str | None) -> None:
    (problem,) = check_config(path, overrides=[override])
    assert (problem.path, problem.code, problem.severity) == (origin, code, "error")
    if hint:
        assert problem.hint == hint
    with pytest.raises(ConfigInvalidError, match="1 error"):
        load_config(path, overrides=[override])


def test_a_wrong_flag_is_named(path) -> None:
    (problem,) = check_config(path, flags={"training.epochs": 0})
    assert (problem.path, problem.key) == ("command line", "training.epochs")


def test_an_override_does_not_excuse_a_missing_field(tmp_path) -> None:
    path = write(tmp_path, text=TEXT.replace("epochs: 20, ", ""))
    (problem,) = check_config(path, overrides=["training.epochs=5"])
    assert (problem.code, problem.key) == ("missing-field", "training.epochs")


def test_the_error_of_an_invalid_config_is_the_whole_report(tmp_path) -> None:
    path = write(tmp_path, text=TEXT.replace("20", "2.5").replace("0.1", "1.5"))
    with pytest.raises(ConfigInvalidError) as raised:
        load_config(path)
    assert raised.value.exit is Exit.NO
    report = str(raised.value)
    assert report.startswith(f"{path}: not a valid config, 2 errors\n")
    assert f"{path}:1:44: error[value]: model.dropout" in report
    assert [problem["line"] for problem in raised.value.as_json()["problems"]] == [1, 3]


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("lr_scheduler: {type: reduce_on_plateau, patience: 10}", "lr_scheduler.patience"),
        ("lr_scheduler: {type: step, step_size: 20}", "lr_scheduler.step_size"),
        ("lr_scheduler: {warmup_epochs: 20}", "lr_scheduler.warmup_epochs"),
        ("lr_scheduler: {min_lr: 1e-3}", "lr_scheduler.min_lr"),
        ("data_augmentation: {enabled: true}", "data_augmentation.enabled"),
        ("data_augmentation: {transforms: [mixup]}", "data_augmentation.transforms"),
        ("data_augmentation: {enabled: true, transforms: [mixup, mixup]}", "data_augmentation.transforms[1]"),
        ("data_augmentation: {enabled: true, transforms: [cutout]}\ndata: {source: wine}",
         "data_augmentation.transforms[0]"),
        ("data: {persistent_workers: true}", "data.persistent_workers"),
        ("data: {prefetch_factor: 4}", "data.prefetch_factor"),
        ("data: {label_column: x}", "data.label_column"),
        ("data: {source: wine, image_size: 8}", "data.image_size"),
        ("data: {split: {test: 0}}\ntest_set: {enabled: true}", "data.split.test"),
        ("checkpointing: {save_best: false, save_last: false}", "checkpointing.save_best"),
        ("checkpointing: {save_best: false, save_top_k: 3}", "checkpointing.save_top_k"),
        ("checkpointing: {monitor: val_acc, mode: min}", "checkpointing.mode"),
        ("validation: {validate_every_n_epochs: 21}", "validation.validate_every_n_epochs"),
        ("test_set: {evaluate_at_end: true}", "test_set.evaluate_at_end"),
        ("export: {enabled: true, formats: []}", "export.formats"),
        ("export: {quantization: {enabled: true}}", "export.quantization.enabled"),
    ],
)  # fmt: skip
def test_contradictions_are_warnings(tmp_path, more: str, key: str) -> None:
    path = write(tmp_path, more + "\n")
    assert warnings_of(path) == [("conflict", key)]
    assert len(load_config(path).notices) == 1


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("deterministic: true", "deterministic: false", "reproducibility.deterministic"),
        ("deterministic: true", "deterministic: true, benchmark: true", "reproducibility.benchmark"),
        ("patience: 10", "patience: 20", "early_stopping.patience"),
        ("metric: val_loss", "metric: val_loss, mode: max", "early_stopping.mode"),
        ("weight_decay: 0.0", "weight_decay: 0.0, momentum: 0.5", "optimizer.momentum"),
        ("weight_decay: 0.0", "weight_decay: 0.0, nesterov: true", "optimizer.nesterov"),
        ("type: adam", "type: sgd, betas: [0.9, 0.99]", "optimizer.betas"),
        ("1e-3", "10", "optimizer.learning_rate"),
        ("simple_cnn", "resnet18, hidden_dims: [8]", "model.hidden_dims"),
        ("dropout: 0.1", "dropout: 0.1, architecture_args: {a: 1}", "model.architecture_args"),
        ("device: auto", "device: cpu, precision: fp16", "training.precision"),
    ],
)
def test_contradictions_in_required_sections_are_warnings(tmp_path, old: str, new: str, key: str) -> None:
    path = write(tmp_path, text=TEXT.replace(old, new))
    assert warnings_of(path) == [("conflict", key)]


def test_a_warning_stands_where_its_cause_does(tmp_path) -> None:
    path = write(tmp_path, text=TEXT.replace("true}", "false}"))
    (problem,) = check_config(path)
    assert (problem.line, problem.column, problem.severity) == (5, 44, "warning")
    (problem,) = check_config(write(tmp_path), overrides=["reproducibility.deterministic=false"])
    assert (problem.path, problem.line) == ("--set reproducibility.deterministic", None)


def test_optional_sections_may_be_empty_with_a_warning(tmp_path) -> None:
    path = write(tmp_path, "export:\n  # formats: [onnx]\ndata:\n  split:\nmodel: {}\n"[:-10])
    assert warnings_of(path) == [("empty-value", "export"), ("empty-value", "data.split")]
    assert load_config(path).config.data.split.val == 0.15


def test_a_nullable_field_may_be_left_empty_with_a_warning(tmp_path) -> None:
    path = write(tmp_path, "target:\n  val_acc:\n")
    assert warnings_of(path) == [("empty-value", "target.val_acc")]
    assert load_config(path).config.target.val_acc is None
    assert warnings_of(write(tmp_path, "target:\n  val_acc: null\n")) == []


def test_directions_follow_from_the_metric(path) -> None:
    config = load_config(path, overrides=["checkpointing.monitor=val_f1"]).config
    assert (config.early_stopping.direction, config.checkpointing.direction) == ("min", "max")
    assert load_config(path, overrides=["checkpointing.mode=max"]).config.checkpointing.direction == "max"


def test_a_stored_config_is_read_back(path) -> None:
    config = load_config(path, overrides=["data_augmentation.transforms=[{cutout: {size: 3}}]"]).config
    assert config_from_mapping(config_to_mapping(config), "best_model.pt") == config


@pytest.mark.parametrize("stored", [{}, {"model": 5}, None, [], "x", {"model": {"architecture": "simple_cnn"}}])
def test_a_stored_config_that_is_not_valid_names_its_file(stored: object) -> None:
    with pytest.raises(InputFileError, match=r"best_model\.pt") as raised:
        config_from_mapping(stored, "best_model.pt")
    assert raised.value.exit is Exit.BAD_INPUT


def test_an_unknown_mode_is_refused(path) -> None:
    with pytest.raises(ValueError, match="turbo"):
        load_config(path, mode="turbo")
