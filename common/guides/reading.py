"""From a file of ``diagnostics/`` to a guide, or to everything that is wrong with it, with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config import Document, Problem
from common.config.characters import hidden_character, name_of, printable
from common.config.problems import count, did_you_mean, in_file_order, render
from common.config.schema_errors import shown
from common.config.yaml_document import MAX_BYTES, KeyPath, dotted, read_limited, read_yaml_text
from common.exits import InputFileError
from common.guides.changes import Change
from common.guides.checks import faults
from common.guides.sections import ID_PATTERN, FrontMatter, Guide, Recommendation

FOLDER = Path(__file__).resolve().parents[2] / "diagnostics"
INDEX = "README.md"
WHAT = "guide"

_FENCE = "---"
_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*\r?(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_EXPECTED = {
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "float_type": "a number",
    "bool_type": "`true` or `false`",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt:g}",
    "string_too_short": "text that is not empty",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "at least {min_length} entry",
    "literal_error": "{expected}",
}
_NAME = "a name of small letters, digits and underscores that begins with a letter"
_OWN_MESSAGES = frozenset({"change", "value"})


class GuideInvalidError(InputFileError):
    """A guide is malformed; ``str()`` is the whole report, and ``problems`` holds every one."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.problems = tuple(in_file_order(problems))
        report = "\n\n".join(render(problem) for problem in self.problems)
        super().__init__(f"not a valid {WHAT}, {count(len(problems), 'error')}\n\n{report}", path=path)

    def as_json(self) -> dict[str, object]:
        return {**super().as_json(), "problems": [problem.as_json() for problem in self.problems]}


def load_guide(guide_id: str, folder: str | Path | None = None) -> Guide:
    """The guide to an issue.

    Args:
        guide_id: such as ``overfitting``: the file's name without ``.md``.
        folder: where guides lie; None for the project's own, whatever the working directory.
    Raises:
        InputFileError: no such guide, or it cannot be read.
        GuideInvalidError: it is malformed.
    """
    paths = _paths(folder)
    if guide_id not in paths:
        close = did_you_mean(guide_id, paths)
        hint = f"did you mean `{close}`?" if close else f"known are {', '.join(paths) or 'none'}"
        raise InputFileError(f"no guide is called `{printable(guide_id[:80])}`", path=folder or FOLDER, hint=hint)
    return read_guide(paths[guide_id])


def load_all_guides(folder: str | Path | None = None) -> dict[str, Guide]:
    """Every guide by its id, in alphabetical order; arguments and errors as for ``load_guide``."""
    return {guide_id: read_guide(path) for guide_id, path in _paths(folder).items()}


def read_guide(path: Path) -> Guide:
    """The guide in a file.

    Raises:
        InputFileError: it cannot be read, or is not UTF-8.
        GuideInvalidError: it is malformed.
    """
    text = _text_of(path)
    match = _FRONT_MATTER.match(text)
    if match is None:
        raise GuideInvalidError(path, [_no_front_matter(path, text)])
    document = read_yaml_text(match["yaml"], printable(str(path)), first_line=2)
    body = text[match.end() :]
    if document.problems:
        raise GuideInvalidError(path, document.problems)
    front_matter, problems = _checked(document, path)
    problems += _hidden_in_body(document, text, match.end())
    if problems or front_matter is None:
        raise GuideInvalidError(path, problems)
    return Guide.model_construct(**dict(front_matter), path=path, body=body.lstrip("\r\n"))


def _paths(folder: str | Path | None) -> dict[str, Path]:
    """The files that are guides, by id."""
    folder = Path(FOLDER if folder is None else folder)
    try:
        names = sorted(path.name for path in folder.iterdir() if path.suffix == ".md" and path.name != INDEX)
    except FileNotFoundError:
        raise InputFileError("no such folder of guides", path=folder, hint="check the path") from None
    except NotADirectoryError:
        raise InputFileError("a file, not a folder of guides", path=folder, hint="name the folder") from None
    except PermissionError:
        raise InputFileError("no permission to read it", path=folder, hint="check its access rights") from None
    return {name.removesuffix(".md"): folder / name for name in names}


def _text_of(path: Path) -> str:
    content = read_limited(path)
    if len(content) > MAX_BYTES:
        raise InputFileError(f"larger than {MAX_BYTES // 1024} KiB", path=path, hint="shorten the guide")
    try:
        return content.decode("utf-8").removeprefix("\N{BYTE ORDER MARK}")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputFileError(f"not UTF-8 text (line {line})", path=path, hint="save it as UTF-8") from None


def _no_front_matter(path: Path, text: str) -> Problem:
    opened = re.match(r"---[ \t]*\r?\n", text) is not None
    message = "the front matter is never closed" if opened else "there is no front matter"
    hint = (
        f"end it with a line `{_FENCE}`"
        if opened
        else f"begin the file with a line `{_FENCE}`, then `id:`, `title:` and so on, then another `{_FENCE}`"
    )
    excerpt = re.split(r"[\r\n]", text, maxsplit=1)[0]
    return Problem(printable(str(path)), "front-matter", message, line=1, column=1, end_column=2, hint=hint,
                   excerpt=excerpt)  # fmt: skip


def _checked(document: Document, path: Path) -> tuple[FrontMatter | None, list[Problem]]:
    if not isinstance(document.value, dict):
        found = "nothing" if document.value is None else shown(document.value)
        return None, [
            document.problem(
                "front-matter", f"expected a mapping of fields, found {found}", document.value_span(()),
                hint="begin with `id:`",
            )
        ]  # fmt: skip
    try:
        front_matter = FrontMatter.model_validate(document.value)
    except ValidationError as refused:
        return None, list(_refusals(refused, document))
    return front_matter, [*_wrong_names(front_matter, document, path), *_wrong_changes(front_matter, document)]


def _refusals(refused: ValidationError, document: Document) -> Iterator[Problem]:
    """pydantic's findings in our words. A key that is missing because it is misspelt is one mistake."""
    details = [(detail, _place(detail, document.value)) for detail in refused.errors(include_url=False)]
    meant = {(*place[:-1], _meant(place)) for detail, place in details if detail["type"] == "extra_forbidden"}
    for detail, place in details:
        if detail["type"] != "missing" or place not in meant:
            yield _refusal(detail, place, document)


def _refusal(detail: Any, place: KeyPath, document: Document) -> Problem:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return document.problem(
            "missing-field", "this required field is missing", document.key_span(place[:-1]),
            key=dotted(place), hint=f"add `{place[-1]}:`",
        )  # fmt: skip
    if kind == "extra_forbidden":
        known = ", ".join(f"`{name}`" for name in _fields_at(place[:-1]))
        hint = f"did you mean `{_meant(place)}`?" if _meant(place) else f"known here: {known}"
        return document.problem(
            "unknown-key", f"unknown key `{place[-1]}`", document.key_span(place), key=dotted(place), hint=hint
        )
    at = (context["at"],) if context.get("at") else ()
    span = document.value_span((*place, *at))
    message = detail["msg"] if kind in _OWN_MESSAGES else _expectation(detail)
    return document.problem("value", message, span, key=dotted((*place, *at)), hint=context.get("hint"))


def _place(detail: Any, value: Any) -> KeyPath:
    """The path in the file of a finding; pydantic's also names what stands nowhere, such as types."""
    *parents, last = detail["loc"]
    path: list[str | int] = []
    for part in parents:
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            path.append(part)
            value = value[part]
    return (*path, last)


def _meant(place: KeyPath) -> str | None:
    return did_you_mean(str(place[-1]), _fields_at(place[:-1]))


def _fields_at(place: KeyPath) -> list[str]:
    """The keys that a guide may have at ``place``."""
    if not place:
        return list(FrontMatter.model_fields)
    return list((Change if "config" in place else Recommendation).model_fields)


def _expectation(detail: Any) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    expected = _EXPECTED.get(kind)
    if kind == "string_pattern_mismatch":
        expected = _NAME if context["pattern"] == ID_PATTERN else "one line of text"
    if expected is None:
        return detail["msg"][:1].lower() + detail["msg"][1:]
    return f"expected {expected.format(**context)}, found {shown(detail['input'])}"


def _wrong_names(front_matter: FrontMatter, document: Document, path: Path) -> Iterator[Problem]:
    if front_matter.id != path.stem:
        yield document.problem(
            "id", f"the id is `{front_matter.id}`, and the file is called {path.name}", document.value_span(("id",)),
            key="id", hint="give both the same name",
        )  # fmt: skip
    seen: set[str] = set()
    for index, recommendation in enumerate(front_matter.recommendations):
        place = ("recommendations", index, "id")
        if recommendation.id in seen:
            yield document.problem(
                "id", f"another recommendation is called `{recommendation.id}`", document.value_span(place),
                key=dotted(place), hint="rename one of the two",
            )  # fmt: skip
        seen.add(recommendation.id)


def _wrong_changes(front_matter: FrontMatter, document: Document) -> Iterator[Problem]:
    for index, recommendation in enumerate(front_matter.recommendations):
        for key, change in recommendation.config.items():
            place = ("recommendations", index, "config", key)
            for fault in faults(key, change):
                at = (*place, *fault.path)
                span = document.key_span(at) if fault.at_key else document.value_span(at)
                yield document.problem("change", fault.message, span, key=dotted(at), hint=fault.hint)


def _hidden_in_body(document: Document, text: str, start: int) -> Iterator[Problem]:
    index = hidden_character(text[start:])
    if index is not None:
        before = text[: start + index]
        line = before.count("\n") + 1
        yield Problem(
            document.source, "hidden-character",
            f"a character that cannot be seen: {name_of(text[start + index])}",
            line=line, column=start + index - before.rfind("\n"), end_column=start + index - before.rfind("\n") + 1,
            hint="remove it", excerpt=text.split("\n")[line - 1],
        )  # fmt: skip
