"""Configs written down, hashed and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from common.config import Config, config_differences, config_sha256, config_to_mapping, dump_config, load_config
from common.config.dumping import NOT_IN_HASH
from common.config.editor_schema import all_keys

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def config(*overrides: str) -> Config:
    return load_config(CONFIGS / "training_config.yaml", overrides=overrides).config


def reloaded(text: str, folder: Path) -> Config:
    path = folder / "dumped.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path).config


AWKWARD = (
    "optimizer.learning_rate=1e-5",
    "optimizer.weight_decay=1e+22",
    "optimizer.betas=[0.9, 0.123456789012345678]",
    "experiment.name='yes'",
    "experiment.tags=['010', '1e-3', 'null', 'a: b', '# c', \"it's\", '2024-01-02', 'Größe 漢字 🙂', '*a', 'off']",
    'experiment.notes="first\\n\\tsecond \\"quoted\\" \\\\ back"',
    "experiment.description=",
    "model.architecture=my.pkg:Net",
    "model.architecture_args={'yes': [1, {a: null}], 'a b': 'x', empty: {}, none: [], deep: {er: 1.5}}",
    "data_augmentation.transforms=[mixup, {cutout: {size: 3}}]",
    "data.image_size=[8, 9]",
)


def test_a_dump_has_every_field_and_loads_again(tmp_path) -> None:
    original = config(*AWKWARD)
    text = dump_config(original, ["as resolved", "from: configs/training_config.yaml"])
    assert text.startswith("# as resolved\n# from: configs/training_config.yaml\nmodel:\n")
    assert reloaded(text, tmp_path) == original
    present = yaml.safe_load(text)
    for *sections, field in all_keys():
        section = present
        for name in sections:
            section = section[name]
        assert field in section


def test_readers_of_yaml_1_1_see_the_same_values() -> None:
    original = config(*AWKWARD)
    assert yaml.safe_load(dump_config(original)) == config_to_mapping(original)


def test_a_dump_is_the_same_every_time() -> None:
    assert dump_config(config(*AWKWARD), ["x"]) == dump_config(config(*AWKWARD), ["x"])


@pytest.mark.parametrize("line", ["two\nlines", "two\r\nlines", "a\x0bb", "a\x85b", "a\u2028b"])
def test_a_header_cannot_become_content(tmp_path, line: str) -> None:
    original = config()
    text = dump_config(original, [line])
    head, _, _ = text.partition("model:")
    assert all(row.startswith("#") for row in head.splitlines())
    assert reloaded(text, tmp_path) == original


def test_the_hash_is_of_what_influences_the_result() -> None:
    base = config_sha256(config())
    assert len(base) == 64
    assert base == config_sha256(config())
    for same in ("experiment.name=x", "logging.tensorboard=false", "export.enabled=true", "target.val_acc=90",
                 "data.num_workers=4", "data.cache=none", "checkpointing.checkpoint_every_n_epochs=1"):  # fmt: skip
        assert config_sha256(config(same)) == base, same
    for other in ("reproducibility.seed=43", "optimizer.learning_rate=2e-3", "training.epochs=21",
                  "data.drop_last=true", "checkpointing.monitor=val_acc", "training.accumulate=2"):  # fmt: skip
        assert config_sha256(config(other)) != base, other


def test_the_hash_does_not_depend_on_how_a_value_is_written() -> None:
    for one, other in [
        ("optimizer.learning_rate=0.002", "optimizer.learning_rate=2E-3"),
        ("optimizer.learning_rate=1", "optimizer.learning_rate=1.0"),
        ("model.architecture=Simple_MLP", "model.architecture=simple_mlp"),
    ]:
        assert config_sha256(config(one)) == config_sha256(config(other))


def test_what_the_hash_leaves_out_exists() -> None:
    known = {".".join(key) for key in all_keys()}
    assert set(NOT_IN_HASH) <= known


def test_differences_name_the_fields_in_the_order_of_the_schema() -> None:
    changed = config("optimizer.type=adamw", "model.dropout=0.3", "data_augmentation.transforms=[mixup]")
    assert config_differences(config(), config()) == []
    assert config_differences(config(), changed) == [
        ("model.dropout", 0.1, 0.3),
        ("optimizer.type", "adam", "adamw"),
        ("data_augmentation.transforms", [], [{"mixup": {"alpha": 0.2}}]),
    ]


def test_differences_inside_free_arguments_are_found() -> None:
    one = config("model.architecture=a:b", "model.architecture_args={depth: 3}")
    two = config("model.architecture=a:b", "model.architecture_args={width: 4}")
    assert config_differences(one, two) == [
        ("model.architecture_args.depth", 3, None),
        ("model.architecture_args.width", None, 4),
    ]
