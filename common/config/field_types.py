"""The kinds of value that fields of the schema have: choices, paths, devices, text, each with its JSON Schema."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from common.config.characters import hidden_character, name_of
from common.config.yaml_scalars import LARGEST_INTEGER

IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_IMPORT_PATH_JSON = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
_DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?", re.ASCII)

MAX_PLAIN_DEPTH = 16
MAX_KEY_LENGTH = 200
MAX_TEXT_LENGTH = 10_000
MAX_LINE_LENGTH = 1_000


class Section(BaseModel):
    """A mapping of the config: read-only, strict about types, and without room for keys that nobody knows."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class JsonForm:
    """Replaces what pydantic would say about a field in the JSON Schema by ``form``."""

    def __init__(self, form: Callable[[], dict[str, Any]]) -> None:
        self._form = form

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return self._form()


def any_case(name: str) -> str:
    """A regular expression, in the dialect of JSON Schema, that matches ``name`` in upper and lower case."""
    return "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else re.escape(c) for c in name)


def choices_form(names: Sequence[str], *, import_path: bool = False) -> dict[str, Any]:
    """JSON Schema of a choice: an ``enum`` that editors complete, or the same names in another case."""
    branches: list[dict[str, Any]] = [
        {"enum": list(names)},
        {"type": "string", "pattern": f"^({'|'.join(any_case(name) for name in names)})$"},
    ]
    if import_path:
        branches.append({"type": "string", "title": "import path", "pattern": _IMPORT_PATH_JSON})
    return {"anyOf": branches}


def lower_case(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def choice(*names: str) -> Any:
    """The type of a field that takes one of ``names``, in upper or lower case; the config holds lower case."""
    return Annotated[Literal[names], BeforeValidator(lower_case), JsonForm(lambda: choices_form(names))]


def choice_or_import_path(*names: str) -> Any:
    """The type of a field that takes one of ``names`` or ``package.module:callable``."""

    def check(value: str) -> str:
        if ":" not in value:
            if value.lower() in names:
                return value.lower()
            raise PydanticCustomError("choice", "not one of the known names", {"choices": list(names)})
        if not IMPORT_PATH.fullmatch(value):
            raise PydanticCustomError(
                "import_path", "not an import path", {"hint": "write it as `package.module:callable`"}
            )
        return value

    return Annotated[str, AfterValidator(check), JsonForm(lambda: choices_form(names, import_path=True))]


def _check_device(value: str) -> str:
    if not _DEVICE.fullmatch(value.lower()):
        hint = "did you mean `cuda`?" if value.lower().startswith(("gpu", "cuda", "nvidia")) else None
        raise PydanticCustomError("choice", "not a device", {"choices": ["auto", "cpu", "cuda"], "hint": hint})
    return value.lower()


def _device_form() -> dict[str, Any]:
    form = choices_form(["auto", "cpu", "cuda"])
    numbered = {"type": "string", "title": "cuda:N", "pattern": f"^{any_case('cuda')}:(0|[1-9][0-9]{{0,2}})$"}
    return {"anyOf": [*form["anyOf"], numbered]}


def _check_seed(value: object) -> object:
    if value is None or (isinstance(value, str) and value.lower() in {"random", "none", "null", "auto", "time"}):
        raise PydanticCustomError("seed", "the seed must be fixed", {"hint": "write a number, such as `seed: 42`"})
    return value


def _check_visible(text: str) -> str:
    index = hidden_character(text)
    if index is not None:
        raise PydanticCustomError("value", "holds a character that cannot be seen", {"hint": name_of(text[index])})
    return text


def _check_plain_mapping(mapping: dict[str, Any]) -> dict[str, Any]:
    if not _is_plain(mapping, MAX_PLAIN_DEPTH):
        raise PydanticCustomError(
            "value", "holds something that YAML cannot say", {"hint": "use text, finite numbers, lists and mappings"}
        )
    return mapping


def _is_plain(value: object, depth: int) -> bool:
    """Whether ``value`` can be written as YAML and read back as it was."""
    if depth == 0:
        return False
    if isinstance(value, dict):
        return all(_is_plain_key(key) and _is_plain(inner, depth - 1) for key, inner in value.items())
    if type(value) in {list, tuple}:
        return all(_is_plain(inner, depth - 1) for inner in value)
    if type(value) is str:
        return hidden_character(value) is None
    if type(value) is int:
        return abs(value) <= LARGEST_INTEGER
    return value is None or type(value) is bool or (type(value) is float and math.isfinite(value))


def _is_plain_key(key: object) -> bool:
    line = type(key) is str and len(key) <= MAX_KEY_LENGTH and hidden_character(key) is None
    return line and not any(character in key for character in "\t\r\n")


Device = Annotated[str, AfterValidator(_check_device), JsonForm(_device_form)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), BeforeValidator(_check_seed)]

Text = Annotated[str, Field(max_length=MAX_TEXT_LENGTH), AfterValidator(_check_visible)]
Line = Annotated[
    str, Field(min_length=1, max_length=MAX_LINE_LENGTH, pattern=r"^[^\r\n\t]+$"), AfterValidator(_check_visible)
]
PlainMapping = Annotated[dict[str, Any], AfterValidator(_check_plain_mapping)]

LARGEST_COUNT = 1_000_000_000

Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
CountFromZero = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
FractionInside = Annotated[float, Field(gt=0, lt=1)]
Percent = Annotated[float, Field(ge=0, le=100)]

METRICS = ("val_loss", "val_acc", "val_f1", "val_precision", "val_recall")
Metric = choice(*METRICS)
Direction = choice("auto", "min", "max")
Measure = choice("loss", "acc", "f1", "precision", "recall")


def direction_of(metric: str, mode: str) -> Literal["min", "max"]:
    """Whether ``metric`` gets better downwards (``min``) or upwards, where ``mode`` is auto, min or max."""
    if mode == "auto":
        return "min" if metric.endswith("loss") else "max"
    return "min" if mode == "min" else "max"
