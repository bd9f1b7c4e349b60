"""The transforms of ``data_augmentation``: names, arguments, and the two ways of writing them.

Short form, with the default arguments: ``- random_crop``. Long form: ``- random_crop: {padding: 2}``. Both become one
typed object whose ``name`` says which it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_serializer
from pydantic_core import PydanticCustomError

from common.config.field_types import Count, Fraction, JsonForm, Positive, Section, choices_form


class Transform(Section):
    """One step of the augmentation; ``name`` and the arguments are attributes."""

    name: str

    @model_serializer
    def long_form(self) -> dict[str, dict[str, Any]]:
        """The long form, which the reader accepts again."""
        return {self.name: {key: getattr(self, key) for key in type(self).model_fields if key != "name"}}


class RandomCrop(Transform):
    """Shift the image: pad by zeros on every side, then cut out the original size at random."""

    name: Literal["random_crop"] = "random_crop"
    padding: Count = Field(4, description="Pixels added on every side before the crop.")


class HorizontalFlip(Transform):
    """Mirror the image left to right (not for digits or text)."""

    name: Literal["horizontal_flip"] = "horizontal_flip"
    p: Fraction = Field(0.5, description="Probability of a flip.")


class Rotation(Transform):
    """Turn the image about its centre."""

    name: Literal["rotation"] = "rotation"
    degrees: Annotated[float, Field(gt=0, le=180)] = Field(10.0, description="Largest angle, either way.")


class ColorJitter(Transform):
    """Change brightness, contrast and saturation by random factors around 1."""

    name: Literal["color_jitter"] = "color_jitter"
    brightness: Fraction = Field(0.2, description="Factor in [1 - b, 1 + b].")
    contrast: Fraction = Field(0.2, description="Factor in [1 - c, 1 + c].")
    saturation: Fraction = Field(0.2, description="Factor in [1 - s, 1 + s]; no effect on grey images.")


class Cutout(Transform):
    """Blank out a random square."""

    name: Literal["cutout"] = "cutout"
    size: Count = Field(8, description="Side of the square in pixels.")


class Mixup(Transform):
    """Mix pairs of examples and their labels (Zhang et al. 2018, arXiv:1710.09412)."""

    name: Literal["mixup"] = "mixup"
    alpha: Positive = Field(0.2, description="Both parameters of the Beta distribution of the mixing weight.")


TRANSFORMS: dict[str, type[Transform]] = {
    kind.model_fields["name"].default: kind
    for kind in (RandomCrop, HorizontalFlip, Rotation, ColorJitter, Cutout, Mixup)
}


def _one_form(value: object) -> object:
    """Turn the short and the long form into ``{"name": ..., **arguments}``."""
    if isinstance(value, Transform):
        return value
    if isinstance(value, str):
        return {"name": _known(value)}
    if not isinstance(value, dict):
        raise PydanticCustomError("transform_type", "neither a name nor a mapping")
    if "name" in value:
        raise PydanticCustomError("transform_form", "the name is written as the key", {"hint": _long_form_of(value)})
    if len(value) != 1:
        raise PydanticCustomError(
            "transform_form",
            "more than one name in one entry" if value else "an empty entry",
            {"hint": "give each transform its own `- ` entry, as in `- random_crop: {padding: 4}`"},
        )
    (name, arguments), *_ = value.items()
    known = _known(name)
    if arguments is None:
        return {"name": known}
    if not isinstance(arguments, dict):
        raise PydanticCustomError(
            "transform_form",
            "its arguments are no mapping",
            {"hint": f"write `- {known}` or `- {known}: {{{_argument_names(known)}: ...}}`", "at": name},
        )
    if "name" in arguments:
        raise PydanticCustomError("transform_form", "`name` is no argument", {"hint": "remove it", "at": name})
    return {**arguments, "name": known}


def _known(name: object) -> str:
    if not isinstance(name, str) or name.lower() not in TRANSFORMS:
        raise PydanticCustomError("choice", "unknown transform", {"choices": list(TRANSFORMS), "at_key": True})
    return name.lower()


def _argument_names(name: str) -> str:
    return next(key for key in TRANSFORMS[name].model_fields if key != "name")


def _long_form_of(value: dict[str, Any]) -> str:
    arguments = ", ".join(f"{key}: {argument}" for key, argument in value.items() if key != "name")
    return f"write `- {value['name']}: {{{arguments}}}`" if arguments else f"write `- {value['name']}`"


def _name_of(value: Any) -> str:
    return value.name if isinstance(value, Transform) else value["name"]


def _entry_form() -> dict[str, Any]:
    forms: list[dict[str, Any]] = [choices_form(list(TRANSFORMS))]
    for name, kind in TRANSFORMS.items():
        arguments = kind.model_json_schema()
        del arguments["properties"]["name"]
        arguments.pop("title")
        forms.append(
            {
                "type": "object",
                "additionalProperties": False,
                "required": [name],
                "minProperties": 1,
                "maxProperties": 1,
                "properties": {name: arguments},
            }
        )
    return {"anyOf": forms}


AnyTransform = Annotated[
    Annotated[RandomCrop, Tag("random_crop")]
    | Annotated[HorizontalFlip, Tag("horizontal_flip")]
    | Annotated[Rotation, Tag("rotation")]
    | Annotated[ColorJitter, Tag("color_jitter")]
    | Annotated[Cutout, Tag("cutout")]
    | Annotated[Mixup, Tag("mixup")],
    Discriminator(_name_of),
    BeforeValidator(_one_form),
    JsonForm(_entry_form),
]
