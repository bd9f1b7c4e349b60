"""Every YAML file that ships is valid, and what is generated from the schema is in step with it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from common.config import check_config, load_config, load_yaml
from common.config.editor_schema import all_keys, fragment_at, json_schema, schema_text, words
from common.config.reference import reference_text

ROOT = Path(__file__).resolve().parents[2]
NOT_SHIPPED = {"results", "data", "logs", "checkpoints", "models", "tests", "node_modules"}
OTHER_SCHEMAS = {"search_space.yaml"}


def shipped() -> Iterator[Path]:
    for folder, subfolders, files in os.walk(ROOT):
        subfolders[:] = sorted(name for name in subfolders if name not in NOT_SHIPPED and not name.startswith("."))
        for name in sorted(files):
            if name.endswith((".yaml", ".yml")) and name not in OTHER_SCHEMAS:
                yield Path(folder, name)


SHIPPED = list(shipped())


def test_the_documented_configs_ship() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in SHIPPED}
    for name in ("training_config", "baseline_template", "optimization_template", "final_template"):
        assert f"configs/{name}.yaml" in names
    assert sum(name.startswith("configs/examples/") for name in names) >= 5


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_config_has_no_error_and_no_warning(path: Path) -> None:
    assert check_config(path) == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_config_names_the_schema_for_editors(path: Path) -> None:
    first = path.read_text(encoding="utf-8").split("\n")[0]
    match = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert match
    assert (path.parent / match.group(1)).resolve() == ROOT / "configs" / "schema.json"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_editors_accept_a_shipped_config(path: Path) -> None:
    jsonschema.validate(load_yaml(path).value, json_schema())


def test_the_schema_file_is_in_step() -> None:
    assert (ROOT / "configs" / "schema.json").read_text(encoding="utf-8") == schema_text()


def test_the_reference_is_in_step() -> None:
    assert (ROOT / "configs" / "README.md").read_text(encoding="utf-8") == reference_text()


def test_the_schema_is_sound_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        ({"model": {"architecture": "ResNet18", "dropout": 0}}, True),
        ({"model": {"architecture": "my_pkg.nets:build", "dropout": 0}}, True),
        ({"model": {"architecture": "resnet81", "dropout": 0}}, False),
        ({"training": {"epochs": 5, "batch_size": 8, "device": "cuda:1", "class_weights": [1, 2]}}, True),
        ({"training": {"epochs": 5, "batch_size": 8, "device": "cuda:x"}}, False),
        ({"data_augmentation": {"transforms": ["mixup", {"cutout": {"size": 3}}]}}, True),
        ({"data_augmentation": {"transforms": ["mixpu"]}}, False),
        ({"data_augmentation": {"transforms": [{"cutout": {"sise": 3}}]}}, False),
        ({"trainin": {}}, False),
        ({"reproducibility": {"seed": None, "deterministic": True}}, False),
    ],
)
def test_editors_see_what_the_validator_sees(change: dict[str, object], fine: bool) -> None:
    mapping = {**load_yaml(ROOT / "configs" / "training_config.yaml").value, **change}
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(mapping) is fine


@pytest.mark.parametrize(
    ("template", "mode", "epochs", "patience"),
    [
        ("baseline_template.yaml", "baseline", 20, range(10, 11)),
        ("optimization_template.yaml", "optimization", 50, range(5, 11)),
        ("final_template.yaml", "production", 100, range(10, 11)),
    ],
)
def test_each_template_is_what_the_documentation_says(template: str, mode: str, epochs: int, patience: range) -> None:
    loaded = load_config(ROOT / "configs" / template, mode=mode)
    assert loaded.notices == []
    assert loaded.config.training.epochs == epochs
    assert loaded.config.early_stopping.patience in patience
    assert (loaded.config.reproducibility.seed, loaded.config.reproducibility.deterministic) == (42, True)


def test_the_baseline_is_conservative() -> None:
    config = load_config(ROOT / "configs" / "baseline_template.yaml").config
    assert config.optimizer.learning_rate == 1e-3
    assert (config.model.dropout, config.optimizer.weight_decay, config.training.label_smoothing) == (0, 0, 0)
    assert not config.data_augmentation.enabled


def test_the_reference_names_every_field() -> None:
    sections = (ROOT / "configs" / "README.md").read_text(encoding="utf-8").split("\n### ")
    keys = list(all_keys())
    for key in keys:
        if any(other[: len(key)] == key and other != key for other in keys):
            continue
        (section,) = [text for text in sections if text.startswith(f"{key[0]}\n")]
        name = ".".join(key[1:])
        assert f"| `{name}` |" in section or f"| `{name}*` |" in section


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (("training", "epochs"), "a whole number from 1 to 1000000"),
        (("training", "batch_size"), "a whole number of at least 1"),
        (("optimizer", "learning_rate"), "a number above 0"),
        (("model", "dropout"), "a number of at least 0 and below 1"),
        (("training", "ema"), "a number between 0 and 1, both excluded, or `null`"),
        (("optimizer", "betas"), "a list of 2 entries, each a number of at least 0 and below 1"),
        (
            ("training", "class_weights"),
            "`balanced`, or a list of at least 2 entries, each a number above 0, or `null`",
        ),
        (("early_stopping", "enabled"), "`true` or `false`"),
        (("training", "device"), "one of `auto`, `cpu`, `cuda`, or `cuda:N`"),
        (("optimizer", "type"), "one of `adam`, `adamw`, `sgd`, `rmsprop`"),
        (("data", "root"), "one line of text, or `null`"),
    ],
)
def test_fields_are_described_in_words(path: tuple[str, ...], said: str) -> None:
    assert words(fragment_at(path)) == said
