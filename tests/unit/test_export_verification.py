"""An exported file is compared with its checkpoint; whatever is wrong with it must show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper
from scipy import stats

from common.exits import CheckFailedError, InputFileError
from common.export.evaluation_data import LabelledInputs, TrainingData, verification_inputs
from common.export.formats import FORMATS
from common.export.onnx_format import onnx_model, serialized
from common.export.verification import Outputs, allowed_logit_difference, verify
from tests.exported_models import HERE, dataset, held_out, reference, source_of


@pytest.fixture
def source(tmp_path):
    return source_of(tmp_path)


def onnx_file(source, folder, change=lambda proto: None, **metadata_changes):
    """The model as ONNX after ``change`` to its graph; returns the path and its true metadata."""
    metadata = replace(source.metadata, opset=17)
    proto = onnx_model(source, source.model, 17)
    change(proto)
    path = folder / "model.onnx"
    path.write_bytes(serialized(proto, replace(metadata, **metadata_changes)))
    return path, metadata


def change_weights(proto, name, change):
    for initializer in proto.graph.initializer:
        if initializer.name == name:
            value = change(numpy_helper.to_array(initializer).copy())
            initializer.CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
            return
    raise AssertionError(f"no weights named {name}")


def swap_rows(values):
    values[[3, 8]] = values[[8, 3]]
    return values


def swap_classes(proto):
    change_weights(proto, "head.weight", swap_rows)
    change_weights(proto, "head.bias", swap_rows)


def checked(source, path, expected, inputs=None, **options):
    inputs = inputs or held_out()
    return verify(path, expected, inputs, reference(source, inputs), **options)


def test_sound_export_passes(source, tmp_path):
    path, metadata = onnx_file(source, tmp_path)
    result = checked(source, path, metadata)
    assert result.passed and result.agreement_pct == 100.0 and result.max_logit_difference < 1e-4
    assert result.num_samples == 270 and result.batch_sizes == (1, 2, 7, 64)
    assert result.reference_acc == result.exported_acc > 85
    assert (result.reference_only, result.exported_only, result.p_value) == (0, 0, 1.0)


def test_swapped_classes_fail(source, tmp_path):
    path, metadata = onnx_file(source, tmp_path, swap_classes)
    result = checked(source, path, metadata)
    assert not result.passed and result.agreement_pct < 90
    assert any("agrees on" in problem for problem in result.problems)


def test_swapped_class_names_fail(source, tmp_path):
    names = [*source.metadata.class_names]
    names[3], names[8] = names[8], names[3]
    path, metadata = onnx_file(source, tmp_path, model_spec={**source.metadata.model_spec, "class_names": names})
    result = checked(source, path, metadata)
    assert result.problems == ("its metadata differs in class_names",)


@pytest.mark.parametrize(("field", "value"), [("mean", [0.0]), ("std", [1.0])])
def test_other_normalisation_fails_by_its_answers_alone(source, tmp_path, field, value):
    spec = source.metadata.model_spec
    wrong = {**spec, "preprocessing": {**spec["preprocessing"], field: value}}
    path, metadata = onnx_file(source, tmp_path, model_spec=wrong)
    # Even where the metadata that is expected has the same fault.
    result = checked(source, path, replace(metadata, model_spec=wrong))
    assert any("logits differ" in problem for problem in result.problems)


def test_other_resize_fails(source, tmp_path):
    spec = source.metadata.model_spec
    path, metadata = onnx_file(
        source, tmp_path, model_spec={**spec, "preprocessing": {**spec["preprocessing"], "resize": [9, 9]}}
    )
    assert checked(source, path, metadata).problems == ("its metadata differs in preprocessing",)


def test_slightly_different_weights_fail_though_all_classes_agree(source, tmp_path):
    path, metadata = onnx_file(
        source, tmp_path, lambda proto: change_weights(proto, "head.bias", lambda bias: bias + 2e-4)
    )
    result = checked(source, path, metadata)
    assert result.agreement_pct == 100.0 and result.max_logit_difference == pytest.approx(2e-4, rel=0.1)
    assert any("1.0e-04 is allowed" in problem for problem in result.problems)
    assert checked(source, path, metadata, tolerance=3e-4).passed


def test_nan_fails(source, tmp_path):
    path, metadata = onnx_file(
        source, tmp_path, lambda proto: change_weights(proto, "head.bias", lambda bias: bias * np.nan)
    )
    for precision in ("fp32", "int8"):
        result = checked(source, path, replace(metadata, precision=precision), tolerance=100)
        assert not result.passed and result.max_logit_difference is None


def test_quantised_models_are_judged_by_accuracy(source, tmp_path):
    path, metadata = onnx_file(source, tmp_path, swap_classes, precision="int8")
    expected = replace(metadata, precision="int8")
    inputs = held_out()
    result = checked(source, path, expected)
    lost = result.reference_acc - result.exported_acc
    assert lost > 10
    assert result.problems == (f"{lost:.2f} points of accuracy are lost, and 1 are allowed",)
    # Exact McNemar, from scratch.
    before = reference(source, inputs).predictions_N
    after = np.select([before == 3, before == 8], [8, 3], before)
    only_before = int(((before == inputs.labels) & (after != inputs.labels)).sum())
    only_after = int(((before != inputs.labels) & (after == inputs.labels)).sum())
    assert (result.reference_only, result.exported_only) == (only_before, only_after)
    assert result.p_value == pytest.approx(stats.binomtest(only_after, only_before + only_after).pvalue)
    assert checked(source, path, expected, tolerance=lost).passed


def test_a_little_lost_is_allowed_to_a_quantised_model_only(source, tmp_path):
    path, metadata = onnx_file(
        source, tmp_path, lambda proto: change_weights(proto, "head.bias", lambda bias: bias + 0.05), precision="fp16"
    )
    assert checked(source, path, replace(metadata, precision="fp16")).passed


def test_seeded_inputs_have_no_accuracy(tmp_path):
    source = source_of(tmp_path)
    source = replace(source, config={**source.config, "data": {"source": "npz", "root": str(tmp_path / "gone.npz")}})
    data = TrainingData(source)
    inputs = verification_inputs(source, data, None)
    assert not inputs.labelled and inputs.num_samples == 512 and "gone.npz" in data.problem
    batch = np.concatenate(list(inputs.batches(source.metadata.preprocessing)))
    assert batch.mean() == pytest.approx(0, abs=0.05) and batch.std() == pytest.approx(1, abs=0.05)
    path, metadata = onnx_file(source, tmp_path)
    result = checked(source, path, metadata, inputs)
    assert result.passed and result.reference_acc is None and result.p_value is None
    path, metadata = onnx_file(source, tmp_path, swap_classes, precision="int8")
    result = checked(source, path, replace(metadata, precision="int8"), inputs)
    assert "percent of the predictions are lost" in result.problems[0]


def test_validation_split_where_there_is_no_test(tmp_path):
    source = source_of(tmp_path)
    mapping = {**source.config, "data": {**source.config["data"], "split": {"val": 0.2, "test": 0.0}}}
    inputs = verification_inputs(source, TrainingData(replace(source, config=mapping)), None)
    assert inputs.labelled and not inputs.is_test and "val split" in inputs.description


def test_data_of_other_classes_is_not_used(tmp_path):
    source = source_of(tmp_path)
    data = TrainingData(replace(source, config={**source.config, "data": {"source": "wine"}}))
    assert data.split("test") is None and "other classes" in data.problem


@pytest.mark.parametrize("name", ["onnx", "torchscript"])
def test_fixed_batch_size_fails(tmp_path, name):
    source = source_of(tmp_path, f"{HERE}:FixedBatch")
    metadata = replace(source.metadata, opset=17 if name == "onnx" else None)
    path = tmp_path / "model"
    path.write_bytes(FORMATS[name].write(source, source.model, metadata))
    with pytest.raises(CheckFailedError, match="does not run at batch size 1"):
        checked(source, path, metadata)


def test_branch_on_values_fails_in_onnx(tmp_path):
    source = source_of(tmp_path, f"{HERE}:WithBranch")
    labels = dataset("digits").splits["test"]
    # The branch that tracing did not take.
    dark = LabelledInputs("inverted", replace(labels, inputs=255 - labels.inputs))
    path, metadata = onnx_file(source, tmp_path)
    results = [checked(source, path, metadata, inputs) for inputs in (held_out(), dark)]
    assert not all(result.passed for result in results)


def test_file_that_cannot_be_opened_fails(source, tmp_path):
    path, metadata = onnx_file(source, tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckFailedError, match="what was written is no model"):
        checked(source, path, metadata)


def test_empty_folder_named_for_verification_is_an_error(source, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputFileError, match="empty"):
        verification_inputs(source, TrainingData(source), tmp_path / "empty")


def test_tolerance_grows_with_large_logits_only():
    def of(largest):
        return Outputs(np.array([[0.0, -largest]], dtype=np.float32))

    assert allowed_logit_difference(None, of(20)) == allowed_logit_difference(None, of(100)) == 1e-4
    assert allowed_logit_difference(None, of(1000)) == pytest.approx(1e-3)
    assert allowed_logit_difference(1e-6, of(1)) == 1e-6


def test_json_is_strict(source, tmp_path):
    path, metadata = onnx_file(source, tmp_path)
    document = checked(source, path, metadata).as_json()
    assert document["passed"] is True and document["problems"] == [] and document["batch_sizes"] == [1, 2, 7, 64]
