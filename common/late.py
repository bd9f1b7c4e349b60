"""Work that can wait until somebody asks for its result, and may never be done at all.

What is done once in an epoch finds the processor's caches full of training, and takes twice as long as when it is done
for several epochs in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Late(Generic[Value]):
    """A value that is worked out at the first call, and kept: ``work`` must depend on nothing that changes by then."""

    def __init__(self, work: Callable[[], Value]) -> None:
        self._work: Callable[[], Value] | None = work

    def __call__(self) -> Value:
        if self._work is not None:
            self._value = self._work()
            self._work = None  # lets go of what the work needed
        return self._value


class LateMapping(Mapping[str, Any]):
    """A mapping that is worked out when it is first looked into."""

    def __init__(self, work: Callable[[], dict[str, Any]]) -> None:
        self._values = Late(work)

    def settle(self) -> None:
        """Do the work now."""
        self._values()

    def __getitem__(self, key: str) -> Any:
        return self._values()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())


def settled(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with every late value at the top level worked out."""
    return {key: value() if isinstance(value, Late) else value for key, value in values.items()}
