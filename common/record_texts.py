"""JSON of a history that grows by a record at a time, without encoding all of it again each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class RecordTexts:
    """The texts of records, each encoded once, so that writing a history costs the same after every epoch of it.

    A record must not change once another one follows it; the last one still may, and is encoded every time.
    """

    def __init__(self, encode: Callable[[Mapping], str]) -> None:
        self._encode = encode
        self._records: list[Mapping] = []
        self._texts: list[str] = []

    def of(self, records: Sequence[Mapping]) -> list[str]:
        """The text of every record, in order. Another history than the last time is encoded anew where it differs."""
        known = self._num_known(records)
        del self._records[known:], self._texts[known:]
        for record in records[known:-1]:
            self._records.append(record)
            self._texts.append(self._encode(record))
        return [*self._texts, *map(self._encode, records[-1:])]

    def _num_known(self, records: Sequence[Mapping]) -> int:
        known = 0
        for mine, given in zip(self._records, records[:-1], strict=False):
            if mine is not given:
                break
            known += 1
        return known
