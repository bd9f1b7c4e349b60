"""JSON of a history that grows by a record at a time, without encoding all of it again each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class RecordTexts:
    """The texts of records, each encoded once, so that writing a history costs the same after every epoch of it.

    A record must not change once its text was asked for.
    """

    def __init__(self, encode: Callable[[Mapping], str]) -> None:
        self._encode = encode
        self._records: list[Mapping] = []
        self._texts: list[str] = []

    def of(self, records: Sequence[Mapping]) -> list[str]:
        """The text of every record, in order. Another history than the last time is encoded anew where it differs."""
        known = self._num_known(records)
        self._records[known:] = records[known:]
        self._texts[known:] = map(self._encode, records[known:])
        return list(self._texts)

    def _num_known(self, records: Sequence[Mapping]) -> int:
        known = 0
        for mine, given in zip(self._records, records, strict=False):
            if mine is not given:
                break
            known += 1
        return known
