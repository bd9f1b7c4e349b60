from __future__ import annotations

import json

from common.record_texts import RecordTexts


def counting_texts() -> tuple[RecordTexts, list[int]]:
    encoded: list[int] = []

    def encode(record) -> str:
        encoded.append(record["num"])
        return json.dumps(record)

    return RecordTexts(encode), encoded


def test_each_record_is_encoded_once():
    texts, encoded = counting_texts()
    records: list[dict] = []
    assert texts.of(records) == []
    for num in range(50):
        records.append({"num": num})
        assert texts.of(records) == texts.of(records) == [json.dumps(record) for record in records]
    assert encoded == list(range(50))


def test_another_history_is_encoded_where_it_differs():
    texts, encoded = counting_texts()
    records = [{"num": num} for num in range(4)]
    texts.of(records)
    encoded.clear()
    assert texts.of([*records[:2], {"num": 7}, {"num": 8}, {"num": 9}]) == [
        json.dumps({"num": num}) for num in (0, 1, 7, 8, 9)
    ]
    assert encoded == [7, 8, 9]
    assert texts.of(records[:1]) == ['{"num": 0}']
