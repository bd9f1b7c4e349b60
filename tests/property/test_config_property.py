"""Whatever the text: an answer, never a crash. Whatever the valid config: written down, it comes back equal."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.config import (
    Config,
    check_config,
    config_differences,
    config_from_mapping,
    config_sha256,
    config_to_mapping,
    dump_config,
    json_schema,
    load_yaml_text,
    read_yaml_text,
)
from common.config.characters import hidden_character
from common.config.problems import render
from common.config.schema_errors import validate
from common.config.yaml_scalars import ScalarError, resolve, trap_hint

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = (ROOT / "configs" / "optimization_template.yaml").read_text(encoding="utf-8")
CALM = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

PIECES = (
    "a: ", "b", "- ", "? ", ": ", "\n", "\n  ", "\n    ", "\t", " ", "#", "'", '"', "\\", "&a ", "*a", "<<: ", "!!str ",
    "!x ", "{", "}", "[", "]", ",", "|", ">", "|-\n", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n", "\r", "\r\n",
    "\ufeff", "\u202e", "\x00", "\x85", "\\x", "\\u12", "\\UFFFFFFFF", "1e-3", ".nan", "010", "yes", "null", "~",
    "=", "@", "`", "model", "training", "epochs", "seed", "é", "漢", "🙂",
)  # fmt: skip
yaml_like = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def check_text(text: str, folder: Path) -> None:
    """Every way of reading gives an answer that can be shown and stored."""
    path = folder / "random.yaml"
    path.write_bytes(text.encode("utf-8"))
    problems = check_config(path)
    lines = read_yaml_text(text, "x").lines
    for problem in problems:
        assert problem.line is not None and 1 <= problem.line <= len(lines)
        assert problem.column is not None and problem.column >= 1
        assert problem.excerpt == lines[problem.line - 1]
        assert render(problem).replace("\n", "").isprintable()
        json.dumps(problem.as_json())


@settings(CALM, max_examples=250)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_random_text_is_answered(text: str, tmp_path_factory) -> None:
    check_text(text, tmp_path_factory.getbasetemp())


@settings(CALM, max_examples=500)
@given(text=yaml_like)
def test_text_that_looks_like_yaml_is_answered(text: str, tmp_path_factory) -> None:
    check_text(text, tmp_path_factory.getbasetemp())


@settings(CALM, max_examples=150)
@given(seed=st.integers(0, 10_000), pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=4))
def test_a_damaged_config_is_answered(seed: int, pieces: list[str], tmp_path_factory) -> None:
    text, generator = TEMPLATE, random.Random(seed)
    for piece in pieces:
        start = generator.randrange(len(text))
        text = text[:start] + piece + text[start + generator.randrange(3) :]
    check_text(text, tmp_path_factory.getbasetemp())


plain_scalar = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(
    allow_nan=False, allow_infinity=False
)  # fmt: skip
visible_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
    lambda text: hidden_character(text) is None
)
visible_key = visible_text.filter(lambda text: not set(text) & set("\t\r\n"))
any_value = st.recursive(
    plain_scalar | visible_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(visible_key, inner, max_size=4),
    max_leaves=12,
)


@settings(CALM, max_examples=200)
@given(value=st.dictionaries(visible_key, any_value, max_size=5))
def test_json_is_yaml_and_reads_as_what_it_is(value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False)
    # JSON writes a float without a point or as 1e22; both are floats here, as the value says.
    assert load_yaml_text(text, "x").value == value


@settings(CALM, max_examples=200)
@given(text=st.text("0123456789.eExo_+-:, ntrufalsyNTF~", max_size=12))
def test_what_is_read_as_a_number_is_one_to_everybody(text: str) -> None:
    try:
        value = resolve(text)
    except ScalarError as error:
        assert error.hint
        return
    if isinstance(value, float):
        assert value == float(text)
    elif isinstance(value, int) and not isinstance(value, bool):
        assert value == int(text, 0)
    if isinstance(value, (int, float)):
        assert trap_hint(text) is None


def from_fragment(fragment: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a part of the JSON Schema allows."""
    if "$ref" in fragment:
        return from_fragment(json_schema()["$defs"][fragment["$ref"].rsplit("/", 1)[-1]])
    if "anyOf" in fragment:
        # The pattern beside an enum allows its names in upper case, which the enum's strategy writes by itself.
        with_enum = any("enum" in branch for branch in fragment["anyOf"])
        patterns = [b for b in fragment["anyOf"] if with_enum and "pattern" in b and "title" not in b]
        return st.one_of([from_fragment(branch) for branch in fragment["anyOf"] if branch not in patterns])
    if "enum" in fragment:
        return st.sampled_from(fragment["enum"]).flatmap(lambda name: st.sampled_from([name, name.upper()]))
    kind = fragment["type"]
    if kind == "object":
        return from_object(fragment)
    if kind == "array":
        if "prefixItems" in fragment:
            return st.tuples(*map(from_fragment, fragment["prefixItems"])).map(list)
        return st.lists(from_fragment(fragment["items"]), min_size=fragment.get("minItems", 0), max_size=4)
    if kind == "string":
        return from_string(fragment)
    if kind in {"integer", "number"}:
        return from_range(kind, fragment)
    return {"boolean": st.booleans(), "null": st.none()}[kind]


def from_object(fragment: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    if "properties" not in fragment:
        return st.dictionaries(visible_key, any_value, max_size=3)
    fields = {key: from_fragment(inner) for key, inner in fragment["properties"].items()}
    required = set(fragment.get("required", ()))
    return st.fixed_dictionaries(
        {key: fields[key] for key in required}, optional={key: fields[key] for key in fields.keys() - required}
    )


def from_string(fragment: dict[str, Any]) -> st.SearchStrategy[str]:
    if "title" in fragment and "pattern" in fragment:
        return st.just({"import path": "my_pkg.nets:build", "cuda:N": "CUDA:3"}[fragment["title"]])
    if "minLength" in fragment:
        return visible_key.filter(bool)
    return visible_text


def from_range(kind: str, fragment: dict[str, Any]) -> st.SearchStrategy[float]:
    low = fragment.get("minimum", fragment.get("exclusiveMinimum", -1e6))
    high = fragment.get("maximum", fragment.get("exclusiveMaximum", 1e6))
    if kind == "integer":
        return st.integers(int(low), int(high))
    return st.floats(low, high, exclude_min="exclusiveMinimum" in fragment, exclude_max="exclusiveMaximum" in fragment)


configs = from_fragment(json_schema())


@settings(CALM, max_examples=120)
@given(mapping=configs)
def test_what_editors_accept_is_valid_but_for_conflicts(mapping: dict[str, Any]) -> None:
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(mapping)
    result = validate(copy.deepcopy(mapping))
    if not isinstance(result, Config):
        assert {error.code for error in result} == {"conflict"}


@settings(CALM, max_examples=120)
@given(mapping=configs)
def test_a_config_written_down_comes_back_equal(mapping: dict[str, Any]) -> None:
    config = validate(mapping)
    if not isinstance(config, Config):
        return
    text = dump_config(config, ["header"])
    again = config_from_mapping(load_yaml_text(text, "x").value, "x")
    assert again == config
    assert (dump_config(again, ["header"]), config_sha256(again)) == (text, config_sha256(config))
    assert config_differences(config, again) == []
    assert yaml.safe_load(text) == config_to_mapping(config)
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(config_to_mapping(config))
