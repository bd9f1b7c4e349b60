from __future__ import annotations

import json
import math

import pytest

from common.exits import InputFileError
from common.metrics_file import MetricsWriter, read_metrics, write_metrics

DOCUMENT = {"schema_version": 1, "run": {"id": "x"}, "epochs": [{"num": 1, "train_loss": 0.5}], "events": []}


def test_round_trip_from_file_and_from_folder(tmp_path):
    write_metrics(tmp_path / "metrics.json", DOCUMENT)
    assert read_metrics(tmp_path / "metrics.json") == DOCUMENT
    assert read_metrics(tmp_path) == DOCUMENT


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_numbers_become_null_at_any_depth(tmp_path, value):
    write_metrics(tmp_path / "m.json", {**DOCUMENT, "best": {"values": [(value, 1.0)]}})
    text = (tmp_path / "m.json").read_text()
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert strict["best"] == {"values": [[None, 1.0]]}


def test_a_growing_history_is_written_as_if_it_were_written_at_once(tmp_path):
    writer, epochs = MetricsWriter(tmp_path / "grown.json"), []
    for num in range(1, 5):
        epochs.append({"num": num, "train_loss": math.nan if num == 2 else num / 3})
        writer.write({**DOCUMENT, "epochs": epochs})
        write_metrics(tmp_path / "at_once.json", {**DOCUMENT, "epochs": epochs})
        assert (tmp_path / "grown.json").read_bytes() == (tmp_path / "at_once.json").read_bytes()
    # A run that went back to an older checkpoint has another history from there on.
    writer.write({**DOCUMENT, "epochs": [*epochs[:2], {"num": 3, "train_loss": 9.0}, {"num": 4, "train_loss": 8.0}]})
    assert [epoch["train_loss"] for epoch in read_metrics(tmp_path / "grown.json")["epochs"]] == [1 / 3, None, 9.0, 8.0]


def test_signals_that_were_replaced_are_written_anew(tmp_path):
    writer, document = MetricsWriter(tmp_path / "metrics.json"), {"signals": {"initial_loss_ratio": None}}
    writer.write(document)
    writer.write(document | {"signals": {"initial_loss_ratio": 1.5}})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"signals": {"initial_loss_ratio": 1.5}}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not valid JSON"),
        (b'{"schema_version": 1, "run"', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "no schema_version"),
        (b'{"schema_version": 2}', "newer"),
        (b'{"schema_version": 1, "run": {}, "epochs": {}, "events": []}', "'epochs'"),
        (b'{"schema_version": 1, "run": {}, "epochs": [{"num": "1"}], "events": []}', "'num'"),
    ],
)
def test_what_is_no_metrics_file_gets_one_sentence(tmp_path, content, complaint):
    path = tmp_path / "m.json"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=complaint) as caught:
        read_metrics(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputFileError, match="no such file"):
        read_metrics(tmp_path / "none.json")
