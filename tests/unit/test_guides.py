"""The guides that ship are sound and can be applied to any config; malformed ones are refused with their place."""

from __future__ import annotations

import ast
import importlib
import io
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import Config, config_differences, config_from_mapping, config_to_mapping, load_config
from common.config.conflicts import conflicts
from common.config.editor_schema import keys_at
from common.config.overrides import merged
from common.config.schema_errors import validate
from common.config.yaml_document import read_yaml_text
from common.exits import Exit, InputFileError
from common.guides import (
    Change,
    GuideInvalidError,
    Recommendation,
    apply_changes,
    load_all_guides,
    load_guide,
    rank,
)
from common.guides.changes import changed_value, is_list, nested, number_range

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "diagnostics"
PAGES = [*sorted(FOLDER.glob("*.md")), ROOT / "phases" / "03_diagnostics" / "workflow.md"]
GUIDES = load_all_guides()
RECOMMENDATIONS = [(guide.id, rec) for guide in GUIDES.values() for rec in guide.recommendations]
SHIPPED = [*sorted((ROOT / "configs").glob("*_*.yaml")), *sorted((ROOT / "configs" / "examples").glob("*.yaml"))]
CONFIGS = {path.name: load_config(path).config for path in SHIPPED if "search_space" not in path.name}
PLAIN = CONFIGS["training_config.yaml"]

FRONT_MATTER = """\
---
id: sample
title: A sample
trigger: never
severity: high
symptoms:
  - none
recommendations:
  - id: first
    title: First
    why: To test it.
    config:
      optimizer.learning_rate: {multiply: 0.1}
    impact: high
    effort: low
    risk: low
    expected_gain: none (no source)
---
# A sample

Prose.
"""


@pytest.fixture
def write(tmp_path):
    """Write a guide called ``sample`` and return its folder."""

    def write(content: str | bytes) -> Path:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / "sample.md").write_bytes(data)
        return tmp_path

    return write


def changed(old: str, new: str) -> str:
    assert old in FRONT_MATTER
    return FRONT_MATTER.replace(old, new)


def with_values(**values: object) -> Config:
    """The plain config with values by dotted key, where ``__`` stands for the dot."""
    mapping = config_to_mapping(PLAIN)
    for key, value in values.items():
        mapping = merged(mapping, nested(key.replace("__", "."), value))
    return config_from_mapping(mapping, "test")


# --- what ships


def test_the_guides_of_the_design_ship():
    assert sorted(GUIDES) == [
        "convergence_stall", "crashes", "data_quality", "exploding_gradients", "general_improvement", "nan_loss",
        "overfitting", "resource_inefficiency", "underfitting", "vanishing_gradients",
    ]  # fmt: skip
    assert all(guide.id == guide.path.stem == name for name, guide in GUIDES.items())


@pytest.mark.parametrize(
    ("guide_id", "ids"),
    [
        ("overfitting", ["dropout", "weight_decay", "data_augmentation"]),
        ("underfitting", ["increase_capacity", "increase_lr", "train_longer"]),
        ("data_quality", ["clean_labels", "balance_classes", "check_leakage"]),
        ("resource_inefficiency", ["increase_batch_size", "increase_workers", "pin_memory"]),
    ],
)
def test_the_documented_recommendations(guide_id, ids):
    assert [recommendation.id for recommendation in GUIDES[guide_id].recommendations] == ids


@pytest.mark.parametrize(
    ("guide_id", "recommendation_id", "values", "key", "new"),
    [
        ("nan_loss", "reduce_learning_rate", {"optimizer__learning_rate": 3e-4}, "optimizer.learning_rate", 3e-5),
        ("nan_loss", "clip_gradients", {}, "optimizer.gradient_clip_max_norm", 1.0),
        ("nan_loss", "restart_from_checkpoint", {"checkpointing__save_last": False}, "checkpointing.save_last", True),
        ("convergence_stall", "increase_lr", {"optimizer__learning_rate": 1e-4}, "optimizer.learning_rate", 1e-3),
        ("convergence_stall", "reinitialize", {}, "reproducibility.seed", 43),
        ("resource_inefficiency", "increase_batch_size", {}, "training.batch_size", 64),
        ("resource_inefficiency", "increase_workers", {"data__num_workers": 3}, "data.num_workers", 6),
        ("resource_inefficiency", "increase_workers", {}, "data.num_workers", 2),
        ("resource_inefficiency", "pin_memory", {}, "data.pin_memory", True),
        ("data_quality", "balance_classes", {}, "training.class_weights", "balanced"),
        ("overfitting", "dropout", {"model__dropout": 0.4}, "model.dropout", 0.5),
        ("underfitting", "increase_capacity", {}, "model.architecture", "resnet18"),
        ("underfitting", "train_longer", {}, "training.epochs", 40),
    ],
)
def test_the_documented_changes(guide_id, recommendation_id, values, key, new):
    before = with_values(**values)
    _, applied = apply_changes(before, [GUIDES[guide_id].recommendation(recommendation_id)])
    assert (key, new) in [(change.key, change.new) for change in applied]


@pytest.mark.parametrize(
    ("guide_id", "recommendation_id", "values"),
    [
        ("nan_loss", "clip_gradients", {"optimizer__gradient_clip_max_norm": 0.5}),
        ("convergence_stall", "increase_lr", {"optimizer__learning_rate": 0.5}),  # never lowered by the bound
        ("resource_inefficiency", "pin_memory", {"training__device": "cpu"}),
        ("overfitting", "dropout", {"model__dropout": 0.7}),
        ("underfitting", "increase_capacity", {"model__architecture": "resnet50"}),
        ("underfitting", "increase_capacity", {"model__pretrained": "weights.pt"}),
        ("crashes", "halve_batch_size", {"training__batch_size": 1}),
    ],
)
def test_what_is_enough_already_stays(guide_id, recommendation_id, values):
    before = with_values(**values)
    after, applied = apply_changes(before, [GUIDES[guide_id].recommendation(recommendation_id)])
    assert (after, applied) == (before, [])


def test_augmentation_fits_the_data():
    recommendation = GUIDES["overfitting"].recommendation("data_augmentation")
    names = {}
    for source, root in (
        ("digits", None),
        ("cifar10", "cifar"),
        ("wine", None),
        ("csv", "table.csv"),
        ("npz", "a.npz"),
    ):
        after, _ = apply_changes(with_values(data__source=source, data__root=root), [recommendation])
        names[source] = [transform.name for transform in after.data_augmentation.transforms]
    assert "horizontal_flip" not in names["digits"]
    assert names["cifar10"] == ["random_crop", "horizontal_flip"]
    assert names["wine"] == names["csv"] == names["npz"] == ["mixup"]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("guide_id", "recommendation"), RECOMMENDATIONS, ids=lambda value: getattr(value, "id", value))
def test_every_recommendation_applies_to_every_shipped_config(guide_id, recommendation, name):
    before = CONFIGS[name]
    after, applied = apply_changes(before, [recommendation])
    assert config_from_mapping(config_to_mapping(after), "test") == after
    assert [(c.key, c.old, c.new) for c in applied] == config_differences(before, after)
    assert {c.key for c in applied} <= set(recommendation.config)
    assert all(c.old != c.new and c.recommendation_id == recommendation.id for c in applied)
    doubts = set(conflicts(after)) - set(conflicts(before))
    assert not doubts, "a recommendation must not contradict the rest"


@pytest.mark.parametrize("guide", GUIDES.values(), ids=lambda guide: guide.id)
def test_a_recommendation_that_changes_a_config_changes_one_of_ours(guide):
    for recommendation in guide.recommendations:
        configs = [*CONFIGS.values(), with_values(optimizer__type="sgd", optimizer__momentum=0.99),
                   with_values(model__activation="sigmoid", training__precision="fp16"),
                   with_values(optimizer__learning_rate=1.0, data__normalize=False),
                   with_values(data__split={"stratify": False}, model__dropout=0.9),
                   with_values(checkpointing__save_last=False, data__cache="memory")]  # fmt: skip
        assert not recommendation.config or any(apply_changes(config, [recommendation])[1] for config in configs)


def numbers(key):
    allowed = number_range(key)
    if allowed.is_whole:
        return st.integers(int(max(allowed.low, -1e9)), int(min(allowed.high, 1e9)))
    return st.floats(allowed.low, allowed.high, allow_nan=False) | st.sampled_from([1e-3, 0.1, 0.5]).filter(
        lambda value: allowed.low <= value <= allowed.high
    )


@st.composite
def configs(draw):
    """Valid configs with anything in the fields that recommendations change."""
    mapping = config_to_mapping(PLAIN)
    for key in sorted({key for _, recommendation in RECOMMENDATIONS for key in recommendation.config}):
        if number_range(key) and not is_list(key) and draw(st.booleans()):
            mapping = merged(mapping, nested(key, draw(numbers(key))))
    choices = {
        "model.architecture": ["simple_mlp", "simple_cnn", "resnet50", "small_transformer", "my_pkg.nets:build"],
        "model.hidden_dims": [None, [1], [10**9, 3]],
        "model.activation": ["relu", "tanh"],
        "optimizer.type": ["adam", "adamw", "sgd", "rmsprop"],
        "optimizer.nesterov": [False, True],
        "training.precision": ["fp32", "fp16"],
        "training.class_weights": [None, "balanced", [1.0, 2.0, 3.0]],
        "data.source": ["digits", "wine", "my_pkg.data:load"],
        "data_augmentation.transforms": [[], ["random_crop"], [{"mixup": {"alpha": 1.0}}]],
    }
    for key, values in choices.items():
        mapping = merged(mapping, nested(key, draw(st.sampled_from(values))))
    result = validate(mapping)
    if not isinstance(result, Config):  # Nesterov without momentum
        result = validate(merged(mapping, {"optimizer": {"nesterov": False}}))
    assert isinstance(result, Config)
    return result


@settings(deadline=None, derandomize=True, max_examples=60)
@given(before=configs())
def test_all_recommendations_together_leave_any_config_valid(before):
    config = before
    for guide in GUIDES.values():
        config, applied = apply_changes(config, guide.recommendations)
        assert all(change.old != change.new for change in applied)
    assert isinstance(validate(config_to_mapping(config)), Config)


# --- the prose


def test_the_index_lists_every_guide():
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    for guide in GUIDES.values():
        assert f"[{guide.id}]({guide.id}.md) | {guide.severity} |" in index


@pytest.mark.parametrize("guide", GUIDES.values(), ids=lambda guide: guide.id)
def test_a_guide_is_whole(guide):
    headings = re.findall(r"^## (.+)$", guide.body, flags=re.MULTILINE)
    assert guide.body.startswith(f"# {guide.title}\n")
    assert "What looks like it and is not" in headings and "How to verify" in headings and headings[-1] == "Sources"
    assert "```bash\npython " in guide.body and "```yaml\n" in guide.body
    assert 80 <= guide.body.count("\n") <= 160
    assert "@" not in re.sub(r"```.*?```", "", guide.body, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name + "/" + page.name)
def test_links_and_examples_of_a_page_hold(page):
    text = page.read_text(encoding="utf-8")
    assert all(len(line) <= 120 for line in text.split("\n") if not line.startswith("|"))
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL):
        if "recommendations:" not in block:
            assert_settings(block)
    for block in re.findall(r"```python\n(.*?)```|<<'PY'\n(.*?)\nPY", text, flags=re.DOTALL):
        ast.parse("".join(block))
    for command in re.findall(r"python (\w+\.py [^`]*?)(?=\n\w|\n```|`|\n\n| && )", text.replace("\\\n", " ")):
        assert_command(command)


def assert_settings(block: str) -> None:
    """Every field of a YAML example exists and may hold what it holds."""
    document = read_yaml_text(block, "example")
    assert not document.problems, block
    mapping = config_to_mapping(PLAIN)
    for section, fields in document.value.items():
        for name in fields:
            assert name in keys_at([section]), f"{section}.{name}"
    assert isinstance(validate(merged(mapping, document.value)), Config), block


def assert_command(command: str) -> None:
    """A documented command line, where the script is there, is one that its parser takes."""
    script, *arguments = shlex.split(command.split("\n")[0].split(" #")[0])
    assert (ROOT / script).exists() or script in DOCUMENTED, script
    if (ROOT / script).exists() and "$" not in command:
        importlib.import_module(script.removesuffix(".py")).make_parser().parse_args(arguments)


DOCUMENTED = {"diagnostic_tool.py", "compare_results.py", "optimization_report_tool.py", "hyperparam_search.py"}


def test_the_example_that_finds_wrong_labels_finds_them(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", GUIDES["data_quality"].body, flags=re.DOTALL)
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 200)
    label = truth.copy()
    wrong = random.choice(200, 10, replace=False)
    label[wrong] = (label[wrong] + 1) % 3
    logits = 4 * np.eye(3, dtype=np.float32)[truth] + random.normal(0, 0.5, (200, 3)).astype(np.float32)
    monkeypatch.chdir(tmp_path)
    Path("results/baseline").mkdir(parents=True)
    np.savez("results/baseline/predictions_val.npz", index=np.arange(200), label=label, logits=logits)
    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(code, "guide", "exec"), {})
    found = {int(line.split()[0]) for line in output.getvalue().splitlines()}
    assert found <= set(wrong.tolist()) and len(found) >= 8


# --- loading


def test_guides_load_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_guide("nan_loss").title == "Loss is not a number"


def test_a_guide_is_read_as_written(write):
    guide = load_guide("sample", write(FRONT_MATTER))
    assert (guide.id, guide.severity, guide.symptoms, guide.body) == (
        "sample", "high", ["none"], "# A sample\n\nProse.\n",
    )  # fmt: skip
    assert guide.recommendations[0].config["optimizer.learning_rate"].operand == 0.1
    with pytest.raises(KeyError):
        guide.recommendation("second")


def test_a_guide_may_have_other_line_ends_and_a_byte_order_mark(write):
    folder = write(b"\xef\xbb\xbf" + FRONT_MATTER.replace("\n", "\r\n").encode())
    assert load_guide("sample", folder).recommendations == load_guide("sample", write(FRONT_MATTER)).recommendations


@pytest.mark.parametrize("name", ["overfiting", "", "..", "../secret", "README", "nan_loss.md", "x" * 500, "a\nb"])
def test_an_unknown_guide_is_an_error_that_helps(name):
    with pytest.raises(InputFileError) as caught:
        load_guide(name)
    assert caught.value.exit == Exit.BAD_INPUT
    assert "did you mean" in str(caught.value) or "known are convergence_stall" in str(caught.value)


def test_a_folder_that_is_none_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(InputFileError, match=folder.name):
            load_all_guides(folder)


FIRST = FRONT_MATTER[FRONT_MATTER.index("  - id: first") : FRONT_MATTER.index("---\n# A")]
RATE = "optimizer.learning_rate: {multiply: 0.1}"
MALFORMED = [
    ("", "no front matter", 1),
    ("# Only prose\n", "no front matter", 1),
    ("---\nid: sample\n", "never closed", 1),
    ("---\n---\n", "found nothing", 2),
    ("---\n- a\n---\n", "expected a mapping of fields, found a list of 1", 2),
    ("---\nid: [\n---\n", "syntax", None),
    (changed("title: A sample\n", ""), "title: this required field is missing", 2),
    (changed("title: A sample\n", "title: A sample\ntitle: B\n"), "already there", 4),
    (changed("title: A sample", "titel: A sample"), "did you mean `title`?", 3),
    (changed("title: A sample", "title: 3"), "title: expected text, found 3", 3),
    (changed("title: A sample", "title: ''"), "text that is not empty", 3),
    (changed("title: A sample", 'title: "two\\nlines"'), "one line of text", 3),
    (changed("title: A sample", "title: !!python/object:os.system A"), "tag", 3),
    (changed("title: A sample", "title: a\u202eb"), "cannot be seen", 3),
    (changed("id: sample", "id: other"), "the file is called sample.md", 2),
    (changed("id: sample", "id: Sample!"), "small letters, digits and underscores", 2),
    (changed("severity: high", "severity: fatal"), "'critical', 'high', 'medium' or 'low'", 5),
    (changed("severity: high", "severity: high\npath: /etc/passwd"), "unknown key `path`", 6),
    (changed("symptoms:\n  - none", "symptoms: []"), "at least 1 entry", 6),
    (changed("symptoms:\n  - none", "symptoms: none"), "expected a list, found the text `none`", 6),
    (changed("impact: high", "impact: huge"), "'high', 'medium' or 'low'", 14),
    (changed("impact: high", "impat: high"), "did you mean `impact`?", 14),
    (changed("    risk: low\n", ""), "recommendations[0].risk: this required field is missing", 9),
    (changed("optimizer.learning_rate", "optimizer.lr"), "did you mean `learning_rate`?", 13),
    (changed("optimizer.learning_rate", "optimizer"), "`optimizer` is a section, not a field", 13),
    (changed("optimizer.learning_rate", "a.b.c"), "no field of a config is called `a.b.c`", 13),
    (changed("{multiply: 0.1}", "0.1"), "expected a mapping, found 0.1", 13),
    (changed("{multiply: 0.1}", "{}"), "exactly one of", 13),
    (changed("{multiply: 0.1}", "{multiply: 0.1, set: 1}"), "found set and multiply", 13),
    (changed("{multiply: 0.1}", "{multiply: -1}"), "expected a number above 0, found -1", 13),
    (changed("{multiply: 0.1}", "{multiply: null}"), "`multiply` has no value", 13),
    (changed("{multiply: 0.1}", "{multiply: '10'}"), "expected a number, found the text `10`", 13),
    (changed("{multiply: 0.1}", "{multiply: .inf}"), "number", 13),
    (changed("{multiply: 0.1}", "{multipy: 0.1}"), "did you mean `multiply`?", 13),
    (changed("{multiply: 0.1}", "{set: -1}"), "expected a number above 0, found -1", 13),
    (changed("{multiply: 0.1}", "{set: 1, max: 2}"), "goes with multiply or add only", 13),
    (changed("{multiply: 0.1}", "{multiply: 2, min: 3, max: 2}"), "`min` is above `max`", 13),
    (changed("{multiply: 0.1}", "{multiply: 2, max: -3}"), "expected a number above 0, found -3", 13),
    (changed("{multiply: 0.1}", "{multiply: 2, start: 0}"), "expected a number above 0, found 0", 13),
    (changed("{multiply: 0.1}", "{append: [1]}"), "is no list", 13),
    (changed("{multiply: 0.1}", "{at_most: true}"), "expected a number, found `true`", 13),
    (changed("{multiply: 0.1}", "{set: 1, otherwise: {set: 2}}"), "`otherwise` needs a condition", 13),
    (changed("{multiply: 0.1}", "{set: 1, when: {}}"), "at least 1 entry", 13),
    (changed("{multiply: 0.1}", "{set: 1, when: {data.source: [digitz]}}"), "did you mean `digits`?", 13),
    (changed("{multiply: 0.1}", "{set: 1, when: {data.sorce: digits}}"), "did you mean `source`?", 13),
    (changed("{multiply: 0.1}", "{set: 1, unless: {data.source: {a: 1}}}"), "a value, or a list of values", 13),
    (
        changed("{multiply: 0.1}", "{set: 1, when: {data.source: digits}, otherwise: {set: 0}}"),
        "otherwise.set: `optimizer.learning_rate`: expected a number above 0, found 0", 13,
    ),
    (changed(RATE, "model.activation: {multiply: 2}"), "no field of a number", 13),
    (changed(RATE, "training.epochs: {at_least: 2.5}"), "a whole number", 13),
    (changed(RATE, "model.activation: {replace: {relu: rely}}"), "`relu`?", 13),
    (changed(RATE, "model.hidden_dims: {multiply: 2, max: 0}"), "at least 1", 13),
    (
        changed(RATE, "data_augmentation.transforms: {append: [rotatoin]}"),
        "did you mean `rotation`?", 13,
    ),
    (changed(RATE, "data.source: {set: csv}"), "needs `data.root`", 13),
    (FRONT_MATTER + "\x1b[2J", "cannot be seen", 22),
    (changed("---\n# A", f"{FIRST}---\n# A"), "another recommendation is called `first`", 18),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said", "line"), MALFORMED)
def test_a_malformed_guide_is_refused_with_its_place(write, text, said, line):
    folder = write(text)
    with pytest.raises(GuideInvalidError) as caught:
        load_guide("sample", folder)
    message = str(caught.value)
    assert said in message and caught.value.exit == Exit.BAD_INPUT
    assert message.startswith(f"{folder / 'sample.md'}: not a valid guide, ")
    if line is not None:
        assert f"sample.md:{line}:" in message
    assert caught.value.as_json()["problems"]


def test_everything_wrong_is_said_at_once(write):
    text = changed("title: A sample", "title: 3").replace("severity: high", "severity: fatal")
    with pytest.raises(GuideInvalidError, match="2 errors"):
        load_guide("sample", write(text))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"---\nid: \xff\n---\n", "UTF-8"), (b"---\n" + b"#" * 2**20 + b"\n---\n", "larger than 1024 KiB")],
)
def test_what_is_no_text_for_a_guide_is_refused(write, content, said):
    with pytest.raises(InputFileError, match=said):
        load_guide("sample", write(content))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(start=st.integers(0, len(FRONT_MATTER)), length=st.integers(0, 40), new=st.text(max_size=12))
def test_no_change_to_a_guide_crashes_the_reader(tmp_path_factory, start, length, new):
    folder = tmp_path_factory.getbasetemp() / "fuzzed_guides"
    folder.mkdir(exist_ok=True)
    text = FRONT_MATTER[:start] + new + FRONT_MATTER[start + length :]
    (folder / "sample.md").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        guide = load_guide("sample", folder)
    except InputFileError as error:
        assert "sample.md" in str(error)
    else:
        apply_changes(PLAIN, guide.recommendations)


# --- the vocabulary


@pytest.mark.parametrize(
    ("key", "old", "change", "new"),
    [
        ("optimizer.learning_rate", 1e-3, {"set": 0.5}, 0.5),
        ("training.class_weights", "balanced", {"set": None}, None),
        ("optimizer.learning_rate", 3e-4, {"multiply": 0.1}, 3e-5),
        ("optimizer.learning_rate", 3e-4, {"multiply": 10, "max": 2e-3}, 2e-3),
        ("optimizer.learning_rate", 0.5, {"multiply": 10, "max": 0.1}, 0.5),
        ("optimizer.learning_rate", 1e-3, {"multiply": 0.1, "min": 5e-4}, 5e-4),
        ("optimizer.learning_rate", 1e-5, {"multiply": 0.1, "min": 1e-4}, 1e-5),
        ("optimizer.learning_rate", 1e308, {"multiply": 1e10}, 1.79769313486e308),
        ("optimizer.learning_rate", 5e-324, {"multiply": 0.1}, 5e-324),
        ("training.batch_size", 33, {"multiply": 0.5}, 16),
        ("training.batch_size", 1, {"multiply": 0.1}, 1),
        ("training.batch_size", 10**9, {"multiply": 2}, 10**9),
        ("data.num_workers", 0, {"multiply": 2, "start": 2}, 2),
        ("data.num_workers", 0, {"multiply": 2}, 0),
        ("model.dropout", 0.1, {"add": 0.2}, 0.3),
        ("model.dropout", 0.9, {"add": 0.2}, 0.9999999999999999),
        ("model.dropout", 0.0, {"add": 0.2, "max": 0.5}, 0.2),
        ("model.dropout", 0.3, {"add": -0.5}, 0.0),
        ("reproducibility.seed", 2**32 - 1, {"add": 1}, 2**32 - 1),
        ("reproducibility.seed", 0, {"add": 1}, 1),
        ("training.ema", None, {"multiply": 0.5}, None),
        ("model.hidden_dims", [32, 16], {"multiply": 2, "max": 40}, [40, 32]),
        ("model.hidden_dims", None, {"multiply": 2, "start": [8]}, [8]),
        ("training.ema", None, {"at_least": 0.99}, 0.99),
        ("training.ema", 0.999, {"at_least": 0.99}, 0.999),
        ("optimizer.gradient_clip_max_norm", None, {"at_most": 1.0}, 1.0),
        ("optimizer.gradient_clip_max_norm", 5.0, {"at_most": 1.0}, 1.0),
        ("optimizer.gradient_clip_max_norm", 0.1, {"at_most": 1.0}, 0.1),
        ("optimizer.type", "adam", {"replace": {"Adam": "adamw"}}, "adamw"),
        ("optimizer.type", "sgd", {"replace": {"adam": "adamw"}}, "sgd"),
        ("data_augmentation.transforms", [], {"append": ["mixup"]}, ["mixup"]),
        (
            "data_augmentation.transforms", [{"mixup": {"alpha": 1.0}}], {"append": ["mixup", {"cutout": {"size": 2}}]},
            [{"mixup": {"alpha": 1.0}}, {"cutout": {"size": 2}}],
        ),
        ("model.dropout", 0.1, {"set": 0.5, "when": {"optimizer.type": ["SGD", "adam"]}}, 0.5),
        ("model.dropout", 0.1, {"set": 0.5, "when": {"optimizer.type": "sgd"}}, 0.1),
        ("model.dropout", 0.1, {"set": 0.5, "when": {"optimizer.type": "sgd"}, "otherwise": {"set": 0.2}}, 0.2),
        ("model.dropout", 0.1, {"set": 0.5, "unless": {"optimizer.type": "adam"}}, 0.1),
        ("model.dropout", 0.1, {"set": 0.5, "when": {"model.hidden_dims": None}}, 0.5),
        ("model.dropout", 0.1, {"set": 0.5, "when": {"training.accumulate": True}}, 0.1),
    ],
)  # fmt: skip
def test_what_a_change_makes_of_a_value(key, old, change, new):
    mapping = merged(config_to_mapping(PLAIN), nested(key, old))
    value = changed_value(Change.model_validate(change), key, mapping)
    assert value == new and type(value) is type(new)
    assert isinstance(validate(merged(mapping, nested(key, value))), Config)


def recommendation(recommendation_id="one", **values) -> Recommendation:
    fields = {"id": recommendation_id, "title": "t", "why": "w", "impact": "low", "effort": "low", "risk": "low",
              "expected_gain": "g", **values}  # fmt: skip
    return Recommendation.model_validate(fields)


def test_recommendations_are_applied_one_after_the_other():
    double = {"training.batch_size": {"multiply": 2}}
    after, applied = apply_changes(PLAIN, [recommendation("one", config=double), recommendation("two", config=double)])
    assert after.training.batch_size == 4 * PLAIN.training.batch_size
    assert applied == [("training.batch_size", 32, 64, "one"), ("training.batch_size", 64, 128, "two")]


def test_changes_of_one_recommendation_see_the_config_as_it_was():
    swap = {"training.batch_size": {"multiply": 0.5},
            "training.accumulate": {"multiply": 2, "unless": {"training.batch_size": 1}}}  # fmt: skip
    after, _ = apply_changes(with_values(training__batch_size=2), [recommendation(config=swap)])
    assert (after.training.batch_size, after.training.accumulate) == (1, 2)


def test_what_a_config_leaves_open_stays_open():
    after, _ = apply_changes(PLAIN, [recommendation(config={"optimizer.learning_rate": {"multiply": 2}})])
    assert "momentum" not in after.optimizer.model_fields_set and "logging" not in after.model_fields_set


def test_a_change_that_contradicts_the_config_is_an_error():
    nesterov = with_values(optimizer__type="sgd", optimizer__nesterov=True)
    with pytest.raises(InputFileError, match=r"recommendation `one` .* Nesterov"):
        apply_changes(nesterov, [recommendation(config={"optimizer.momentum": {"set": 0.0}})])


def test_ranked_by_impact_then_effort_then_risk():
    made = [
        recommendation("a", impact="low"), recommendation("b", impact="high", effort="high"),
        recommendation("c", impact="high", risk="medium"), recommendation("d", impact="high"),
        recommendation("e", impact="low"),
    ]  # fmt: skip
    assert [r.id for r in rank(made)] == ["d", "c", "b", "a", "e"]
