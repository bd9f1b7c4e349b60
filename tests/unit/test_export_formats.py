"""Files of every format: the opset asked for, any batch size, the same bytes again, nothing of the machine inside."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from common.exits import CheckFailedError, UsageError
from common.export import onnx_format
from common.export.formats import FORMATS, output_paths
from common.export.layers import operator_in
from common.export.onnx_format import OPSETS, check_opset, onnx_bytes
from common.inference.engines import open_model
from common.model_metadata import ONNX_KEY, parse_metadata, read_archive_metadata
from tests.exported_models import HERE, contents, source_of

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = [
    ("simple_mlp", "wine"),
    ("simple_cnn", "digits"),
    ("small_transformer", "digits"),
]


def metadata_for(source, name, opset=17):
    return replace(source.metadata, opset=opset if name == "onnx" else None)


def written(source, name, folder, opset=17):
    path = folder / f"model{FORMATS[name].suffix}"
    path.write_bytes(FORMATS[name].write(source, source.model, metadata_for(source, name, opset)))
    return path


@pytest.mark.parametrize(("architecture", "data"), ARCHITECTURES)
@pytest.mark.parametrize("opset", [OPSETS[0], OPSETS[-1]])
def test_onnx_has_the_opset_asked_for_and_takes_any_batch(tmp_path, architecture, data, opset):
    source = source_of(tmp_path, architecture, data)
    path = written(source, "onnx", tmp_path, opset)
    assert [(entry.domain, entry.version) for entry in onnx.load(path).opset_import] == [("", opset)]
    assert_answers_as_model(path, source)


@pytest.mark.parametrize("name", ["torchscript", "pt2"])
@pytest.mark.parametrize(("architecture", "data"), [*ARCHITECTURES[1:], ("small_transformer", "wine")])
def test_torch_formats_take_any_batch(tmp_path, architecture, data, name):
    source = source_of(tmp_path, architecture, data)
    assert_answers_as_model(written(source, name, tmp_path), source)


def assert_answers_as_model(path, source):
    engine = open_model(path, "cpu", torch.get_num_threads())
    for size in (1, 2, 7, 200):
        inputs = torch.randn(size, *source.input_shape, generator=torch.Generator().manual_seed(size))
        expected = source.model(inputs).numpy()
        np.testing.assert_allclose(engine(inputs.numpy()), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_same_checkpoint_gives_same_bytes(tmp_path, name):
    first = source_of(tmp_path / "one", "small_transformer")
    second = source_of(tmp_path / "two", "small_transformer")
    contents_of = [FORMATS[name].write(each, each.model, metadata_for(each, name)) for each in (first, second)]
    if name == "torchscript":
        # Names in its code are numbered over the life of the process, so two in one process differ by those.
        assert len(contents(contents_of[0])) == pytest.approx(len(contents(contents_of[1])), rel=1e-2)
    else:
        assert contents_of[0] == contents_of[1]


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_of_this_machine_is_inside(tmp_path, name):
    source = source_of(tmp_path)
    inside = contents(written(source, name, tmp_path).read_bytes())
    for folder in (ROOT, sys.prefix, Path(torch.__file__).parent, Path.home(), tempfile.gettempdir(), tmp_path):
        if len(str(folder)) > 1:  # a home folder may be the root
            assert str(folder).encode() not in inside
    assert b"site-packages" not in inside and b"Traceback" not in inside


@pytest.mark.parametrize("name", FORMATS)
def test_metadata_travels_inside(tmp_path, name):
    source = source_of(tmp_path).with_test_accuracy(91.25)
    path = written(source, name, tmp_path)
    if name == "onnx":
        [entry] = onnx.load(path).metadata_props
        assert entry.key == ONNX_KEY
        found = parse_metadata(entry.value, path)
    else:
        found = read_archive_metadata(path)
    assert found == metadata_for(source, name)
    assert found.test_acc == 91.25 and found.val_acc == 90.0
    assert found.class_names == [str(digit) for digit in range(10)]
    assert found.preprocessing["mean"] == pytest.approx([0.3047], abs=1e-3)


def test_onnx_is_one_file_without_external_data(tmp_path):
    path = written(source_of(tmp_path), "onnx", tmp_path)
    assert all(not value.external_data for value in onnx.load(path, load_external_data=False).graph.initializer)


def test_dropout_is_off(tmp_path):
    source = source_of(tmp_path)
    source.model.dropout.p = 0.9
    for name in FORMATS:
        assert_answers_as_model(written(source, name, tmp_path), source)


def test_unknown_operator_is_named_with_its_layer(tmp_path):
    source = source_of(tmp_path, f"{HERE}:WithUnknownOperator")
    with pytest.raises(CheckFailedError, match=r"aten::special_erfcx in layer body\.strange .* opset 17"):
        FORMATS["onnx"].write(source, source.model, metadata_for(source, "onnx"))
    assert_answers_as_model(written(source, "pt2", tmp_path), source)


@pytest.mark.parametrize("name", FORMATS)
def test_layer_that_cannot_be_traced_is_named(tmp_path, name):
    source = source_of(tmp_path, f"{HERE}:WithUntraceableLayer")
    with pytest.raises(CheckFailedError, match=r"layer body\.strange.*cannot be traced"):
        FORMATS[name].write(source, source.model, metadata_for(source, name))


def test_branch_on_values_stops_pt2(tmp_path):
    source = source_of(tmp_path, f"{HERE}:WithBranch")
    with pytest.raises(CheckFailedError, match=r"layer body\.strange"):
        FORMATS["pt2"].write(source, source.model, metadata_for(source, "pt2"))


@pytest.mark.parametrize("opset", [-1, 0, 12, 21, 1000])
def test_unknown_opset_is_refused(opset):
    with pytest.raises(UsageError, match="13 to 20"):
        check_opset(opset)


def test_too_large_for_one_onnx_file(tmp_path, monkeypatch):
    source = source_of(tmp_path)
    monkeypatch.setattr(onnx_format, "MAX_WEIGHT_BYTES", 1000)
    with pytest.raises(UsageError, match="pt2"):
        onnx_bytes(source, source.model, metadata_for(source, "onnx"))


def test_another_opset_than_asked_for_is_refused(tmp_path, monkeypatch):
    source = source_of(tmp_path)
    right = onnx_format._traced
    monkeypatch.setattr(onnx_format, "_traced", lambda source, model, opset: right(source, model, 18))
    with pytest.raises(CheckFailedError, match="asked for opset 13, the exporter wrote 18"):
        onnx_bytes(source, source.model, metadata_for(source, "onnx", 13))


def test_output_paths():
    assert output_paths(Path("m/a.bin"), ("onnx",)) == {"onnx": Path("m/a.bin")}
    several = {"onnx": Path("m/a.onnx"), "pt2": Path("m/a.pt2")}
    assert output_paths(Path("m/a"), ("onnx", "pt2")) == several
    assert output_paths(Path("m/a.pt"), ("onnx", "pt2")) == several
    assert output_paths(Path("m/a.v1"), ("onnx", "pt2"))["pt2"] == Path("m/a.v1.pt2")
    with pytest.raises(UsageError, match="twice"):
        output_paths(Path("m/a"), ("onnx", "onnx"))


def test_operator_in_message():
    assert operator_in("Exporting the operator 'aten::special_erfcx' to ONNX opset version 17") == "aten::special_erfcx"
    assert operator_in("nothing of the kind") is None
