from __future__ import annotations

import json

from common.record_texts import RecordTexts


def counting_texts() -> tuple[RecordTexts, list[int]]:
    encoded: list[int] = []

    def encode(record) -> str:
        encoded.append(record["num"])
        return json.dumps(record)

    return RecordTexts(encode), encoded


def test_what_another_record_follows_is_encoded_no_more():
    texts, encoded = counting_texts()
    records: list[dict] = []
    assert texts.of(records) == []
    for num in range(50):
        records.append({"num": num})
        assert texts.of(records) == [json.dumps(record) for record in records]
    assert all(encoded.count(num) <= 2 for num in range(50))


def test_the_last_record_may_still_change():
    texts, _ = counting_texts()
    records = [{"num": 1}, {"num": 2}]
    texts.of(records)
    records[-1]["val_acc"] = 3.0
    assert texts.of(records) == ['{"num": 1}', '{"num": 2, "val_acc": 3.0}']


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
