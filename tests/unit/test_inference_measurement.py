"""A whole measurement of a small model: accuracy from real inputs, resources of a fresh process, requirements."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from common.exits import InputFileError, UsageError
from common.inference import resource_probe
from common.inference.accuracy import wilson_interval_pct
from common.inference.comparison import compare
from common.inference.engines import open_model
from common.inference.gates import check_gates
from common.inference.measurement import Settings, check_schedule, measure
from common.inference.requests import RequestSource, load_requests
from common.inference.resources import Resources, measure_resources
from common.inference.wording import milliseconds, rate
from tests import inference_samples as samples

SHORT = Settings(duration_s=0.05)


def nothing(count: int) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return samples.write_folder(tmp_path_factory.mktemp("data") / "test")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return open_model(samples.write_onnx(tmp_path_factory.mktemp("model") / "model.onnx"), "cpu", 1)


@pytest.fixture(scope="module")
def measured(engine, folder):
    """The model at batch size 1."""
    return measure(engine, requests(engine, folder), Settings(duration_s=0.3), nothing)


def requests(engine, path, batch_size=1):
    return RequestSource(load_requests(path, engine.metadata), path, batch_size)


def test_images_are_prepared_from_their_files_as_in_training(engine, folder):
    source = requests(engine, folder, 5)
    assert source.steps == "read, decode, normalise" and source.num_requests == 8
    prepared = np.concatenate(source.prepared())[: source.num_samples]
    np.testing.assert_allclose(prepared, samples.normalized().numpy(), rtol=1e-5, atol=1e-6)
    assert prepared.dtype == np.float32 and source.prepared()[0].flags["C_CONTIGUOUS"]


def test_arrays_give_the_same_inputs_as_images(engine, folder, tmp_path):
    from_files, arrays = requests(engine, folder, 4), requests(engine, samples.write_npz(tmp_path / "t.npz"), 4)
    assert arrays.steps == "normalise"
    for number in range(from_files.num_requests):
        np.testing.assert_array_equal(
            from_files.prepare(from_files.indices(number)), arrays.prepare(arrays.indices(number))
        )


def test_the_last_request_is_filled_up_and_more_than_all_samples_go_round(engine, folder):
    source = requests(engine, folder, 16)
    assert source.indices(2).tolist() == [32, 33, 34, 35, *range(12)]
    assert source.indices(3).tolist() == list(range(16))
    large = requests(engine, folder, 80)
    assert large.num_requests == 1 and large.indices(0).tolist() == [*range(36), *range(36), *range(8)]


def test_prepared_requests_stay_within_their_memory(engine, folder):
    source = requests(engine, folder, 2)
    assert len(source.prepared(max_bytes=3 * 2 * 36 * 4)) == 3
    assert len(source.prepared(max_bytes=1)) == 1


def test_images_of_another_size_are_resized_where_the_model_was_trained_so(tmp_path, folder):
    preprocessing = {**samples.MODEL_SPEC["preprocessing"], "resize": [6, 6]}
    metadata = replace(samples.METADATA, model_spec={**samples.MODEL_SPEC, "preprocessing": preprocessing})
    engine = open_model(samples.write_onnx(tmp_path / "m.onnx", metadata), "cpu", 1)
    assert requests(engine, folder).steps == "read, decode, resize, normalise"


def test_an_image_that_vanishes_is_named(engine, tmp_path):
    folder = samples.write_folder(tmp_path)
    source = requests(engine, folder)
    (folder / "ant" / "03.png").unlink()
    with pytest.raises(InputFileError, match=r"03\.png: is missing"):
        source.prepare(source.indices(3))


@pytest.mark.parametrize("batch_size", [7, 50])
def test_accuracy_is_that_of_the_model_whatever_the_batch_size(engine, folder, batch_size):
    answered = []
    found = measure(engine, requests(engine, folder, batch_size), SHORT, answered.append)
    assert 50 < samples.expected_accuracy_pct() < 100, "the sample must be able to show a difference"
    assert found.accuracy.metrics.accuracy_pct == samples.expected_accuracy_pct()
    assert (found.accuracy.predictions_N == samples.expected_predictions()).all()
    assert sum(answered) == 36 and found.accuracy.num_non_finite == 0
    assert found.timings.batch_size == batch_size == found.batch_size
    assert found.samples_per_s == pytest.approx(
        batch_size * found.timings.num_calls / found.timings.model_ns.sum() * 1e9
    )
    assert (found.end_to_end.latency_ns >= found.end_to_end.prepare_ns).all()


def test_classes_are_matched_by_name_not_by_number(engine, tmp_path):
    # A folder without ants: its classes are numbered 0 and 1, the model's 1 and 2.
    folder = samples.write_folder(tmp_path)
    shutil.rmtree(folder / "ant")
    source = requests(engine, folder)
    assert source.labels.tolist() == [1] * samples.PER_CLASS + [2] * samples.PER_CLASS


def test_a_fresh_process_tells_memory_and_cold_start(engine):
    found = measure_resources(engine, 3)
    assert isinstance(found, Resources)
    assert 0 < found.baseline_bytes < found.peak_bytes
    assert found.over_baseline_bytes == found.peak_bytes - found.baseline_bytes
    assert min(found.import_s, found.load_s, found.first_call_s) > 0
    assert (found.gpu, found.nodes_by_provider, found.cpu_nodes_pct) == (None, None, None)


def test_a_fresh_process_that_fails_is_a_reason_in_words(tmp_path):
    engine = open_model(samples.write_onnx(tmp_path / "model.onnx"), "cpu", 1)
    engine.path.write_bytes(b"\x08\x07 and no graph")
    reason = measure_resources(engine, 1)
    assert isinstance(reason, str) and "ended with 3" in reason and "ONNX Runtime" in reason


def test_nodes_are_counted_by_provider(engine):
    counts = resource_probe.nodes_by_provider(engine.path, "cpu", 1, samples.normalized().numpy()[:2])
    assert list(counts) == ["CPUExecutionProvider"] and counts["CPUExecutionProvider"] >= 2
    shared = {"CUDAExecutionProvider": 9, "CPUExecutionProvider": 3}
    assert Resources(0.1, 0.1, 0.1, None, None, None, shared).cpu_nodes_pct == 25.0


def test_a_schedule_is_as_long_as_asked_for_or_as_percentiles_need():
    assert check_schedule(Settings(duration_s=10, rate_per_s=1000)) == 10_000
    assert check_schedule(Settings(duration_s=5, rate_per_s=100)) == 662
    assert check_schedule(Settings(duration_s=5, rate_per_s=2)) == 100
    for wrong in (0.001, 1e9):
        with pytest.raises(UsageError, match="--rate"):
            check_schedule(Settings(duration_s=5, rate_per_s=wrong))


def test_on_a_schedule_the_model_is_measured_apart(engine, folder):
    found = measure(engine, requests(engine, folder), Settings(duration_s=0.2, rate_per_s=2000), nothing)
    assert found.schedule is not None and found.schedule.rate_per_s == 2000
    served = found.timings.num_served
    assert found.samples_per_s == pytest.approx(served / found.timings.wall_s)
    assert 0 < found.schedule.busy_pct <= 100
    assert (found.timings.latency_ns[:served] >= found.timings.model_ns[:served]).all()


def test_two_models_are_compared_on_the_same_samples(engine, folder, tmp_path):
    # The other model numbers the classes in reverse; what it says is the same.
    class Reversed(nn.Module):
        def forward(self, logits):
            return logits.flip(1)

    model = nn.Sequential(samples.trained_model(), Reversed()).eval()
    metadata = replace(samples.METADATA, model_spec={**samples.MODEL_SPEC, "class_names": samples.CLASS_NAMES[::-1]})
    other = open_model(samples.write_onnx(tmp_path / "other.onnx", metadata, model=model), "cpu", 1)
    found = compare((engine, other), (requests(engine, folder, 2), requests(other, folder, 2)), SHORT, nothing)
    assert found.agreement_pct == 100.0
    assert (found.mcnemar.baseline_only, found.mcnemar.optimized_only, found.mcnemar.p_value) == (0, 0, 1.0)
    assert found.num_turns >= 1 and found.ratio.ratio > 0
    assert found.ratio.low is None or found.ratio.low <= found.ratio.ratio <= found.ratio.high
    assert (found.first.accuracy.predictions_N == 2 - found.other.accuracy.predictions_N).all()
    for one in (found.first, found.other):
        assert one.accuracy.metrics.accuracy_pct == samples.expected_accuracy_pct()


def test_requirements_are_met_missed_or_not_proven(measured):
    found = measured
    assert found.percentile(99.0).value_ms is not None
    accuracy_pct = samples.expected_accuracy_pct()

    def verdicts(max_latency_ms=None, min_accuracy_pct=None):
        gates = check_gates(found, max_latency_ms=max_latency_ms, min_accuracy_pct=min_accuracy_pct)
        return [gate.verdict for gate in gates]

    assert verdicts() == []
    assert verdicts(max_latency_ms=1e6, min_accuracy_pct=accuracy_pct) == ["met", "met"]
    assert verdicts(max_latency_ms=1e-6, min_accuracy_pct=accuracy_pct + 0.01) == ["missed", "missed"]
    between = found.percentile(99.0).value_ms
    expected = "met" if found.percentile(99.0).high_ms == between else "not proven"
    assert verdicts(max_latency_ms=between) == [expected]


def test_a_requirement_needs_enough_samples(measured):
    few = replace(measured, timings=replace(measured.timings, latency_ns=measured.timings.latency_ns[:600]))
    [gate] = check_gates(few, max_latency_ms=1e6, min_accuracy_pct=None)
    assert gate.verdict == "not proven" and "p99 needs 662 calls, there are 600" in gate.message


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"), [(0, 10, 0.0, 27.753), (9, 10, 59.585, 98.212), (100, 100, 96.301, 100.0)]
)
def test_wilson_intervals_are_those_of_the_tables(correct, count, low, high):
    assert wilson_interval_pct(correct, count) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [(11.2, "11.2ms"), (9.996, "10.0ms"), (1.234, "1.23ms"), (0.9996, "1.00ms"), (0.417, "0.417ms")],
)
def test_milliseconds_keep_the_digits_that_count(value_ms, text):
    assert milliseconds(value_ms) == text


@pytest.mark.parametrize(("value", "text"), [(89.3, "89"), (9.96, "10"), (4.23, "4.2"), (0.123, "0.12")])
def test_rates_keep_the_digits_that_count(value, text):
    assert rate(value) == text


def test_what_runs_in_the_fresh_process_says_what_it_found_and_what_stops_it(engine, tmp_path, capfd):
    request = {"path": str(engine.path), "device": "cpu", "num_threads": 1, "input_shape": [1, 6, 6], "batch_size": 2}
    assert resource_probe.main(json.dumps(request)) == 0
    assert set(json.loads(capfd.readouterr().out)) >= {"load_s", "peak_bytes", "gpu", "nodes_by_provider"}
    assert resource_probe.main(json.dumps({**request, "path": str(tmp_path / "none.onnx")})) == 3
    assert "no such file" in capfd.readouterr().err
