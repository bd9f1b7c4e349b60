"""Problems in a file: what is wrong, where, and what to do, shown as a good compiler would."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common.config.characters import printable
from common.exits import CheckFailedError

ERROR = "error"
WARNING = "warning"

# What other tools call the same thing, without underscores.
_OTHER_NAMES = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "arch": "architecture",
    "network": "architecture",
    "numepochs": "epochs",
    "maxepochs": "epochs",
    "gradclip": "gradient_clip_max_norm",
    "clipnorm": "gradient_clip_max_norm",
    "accuracy": "val_acc",
    "valaccuracy": "val_acc",
    "loss": "val_loss",
}

_WIDEST_EXCERPT = 110
_SHOWN_BEFORE_CARET = 50


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong (or, as a warning, doubtful).

    Args:
        path: the file as the user named it, or ``--set KEY`` for a value from the command line.
        line: from 1; None where there is no file.
        column: in characters, from 1.
        end_column: one past the last character to mark, on the same line.
        code: stable name of the kind, such as ``unknown-key``.
        severity: ``error`` or ``warning``.
        key: dotted name of the field; empty for the file as a whole.
        message: a clause without capital letter and full stop.
        expected: what may stand there, in words, or None.
        found: what stands there, in words, or None.
        hint: what to do, or None.
        excerpt: the line of the file, without its end.
    """

    path: str
    code: str
    message: str
    severity: str = ERROR
    key: str = ""
    line: int | None = None
    column: int | None = None
    end_column: int | None = None
    expected: str | None = None
    found: str | None = None
    hint: str | None = None
    excerpt: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        """The message with the key it is about."""
        return f"{self.key}: {self.message}" if self.key else self.message


class ConfigInvalidError(CheckFailedError):
    """A file is not valid; ``str()`` is the whole report, and ``problems`` holds every error and warning."""

    def __init__(self, problems: Sequence[Problem], *, what: str = "config") -> None:
        self.problems = tuple(problems)
        errors = [problem for problem in problems if problem.severity == ERROR]
        sources = ", ".join(dict.fromkeys(problem.path for problem in errors))
        report = "\n\n".join(render(problem) for problem in errors)
        super().__init__(f"{sources}: not a valid {what}, {count(len(errors), 'error')}\n\n{report}")

    def as_json(self) -> dict[str, object]:
        return {**super().as_json(), "problems": [problem.as_json() for problem in self.problems]}


def render(problem: Problem) -> str:
    """The problem with its line, a caret and the hint."""
    where = printable(problem.path)
    if problem.line is not None:
        where += f":{problem.line}:{problem.column}"
    lines = [f"{where}: {problem.severity}[{problem.code}]: {printable(problem.sentence())}"]
    if problem.line is not None and problem.excerpt is not None:
        lines += _excerpt(problem.line, problem.excerpt, problem.column or 1, problem.end_column or 1)
    if problem.hint:
        indent = " " * (len(str(problem.line)) + 1) if problem.line is not None else "  "
        lines.append(f"{indent}= help: {printable(problem.hint)}")
    return "\n".join(lines)


def in_file_order(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0, problem.key, problem.code))


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` is most likely a misspelling of, or another name for."""
    known = list(known)
    plain = {_squeezed(name): name for name in reversed(known)}
    other_name = _OTHER_NAMES.get(_squeezed(word))
    if other_name in known:
        return other_name
    if _squeezed(word) in plain:
        return plain[_squeezed(word)]
    import difflib  # 5 ms that a valid config need not wait for

    close = difflib.get_close_matches(word.lower()[:80], known, n=1, cutoff=0.6)
    return close[0] if close else None


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _squeezed(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "").replace(" ", "")


def _excerpt(line: int, text: str, column: int, end_column: int) -> list[str]:
    start = max(0, column - 1 - _SHOWN_BEFORE_CARET) if len(text) > _WIDEST_EXCERPT else 0
    before = text[start : column - 1]
    marked = text[column - 1 : min(max(end_column - 1, column), start + _WIDEST_EXCERPT)]
    after = text[column - 1 + len(marked) : start + _WIDEST_EXCERPT]
    left = "... " if start else ""
    right = " ..." if start + _WIDEST_EXCERPT < len(text) else ""
    shown = printable((before + marked + after).replace("\t", " ")).rstrip()
    gutter = " " * len(str(line))
    caret = " " * (len(left) + _width(before)) + "^" * max(1, _width(marked))
    return [f"{gutter} |", f"{line} | {left}{shown}{right}", f"{gutter} | {caret}"]


def _width(text: str) -> int:
    """Columns that a terminal gives ``text``."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
