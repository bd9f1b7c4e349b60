"""What only a GPU can show: models answer there as on the CPU, and the driver counts their memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.exits import EnvironmentLackError
from common.inference.engines import open_model
from common.inference.resources import Resources, measure_resources
from tests import inference_samples as samples

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]

WRITERS = [samples.write_checkpoint, samples.write_torchscript, samples.write_exported, samples.write_onnx]


def require_cuda_runtime(writer) -> None:
    if writer is samples.write_onnx:
        onnxruntime = pytest.importorskip("onnxruntime")
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("ONNX Runtime is installed without CUDA")


@pytest.mark.parametrize("writer", WRITERS)
def test_a_model_answers_on_the_gpu_as_on_the_cpu(writer, tmp_path):
    require_cuda_runtime(writer)
    path = writer(tmp_path / "model.pt2")
    inputs = samples.normalized().numpy()
    on_gpu, on_cpu = open_model(path, "cuda", 1), open_model(path, "cpu", 1)
    assert on_gpu.device == "cuda:0" and on_gpu.on_gpu
    np.testing.assert_allclose(on_gpu(inputs), on_cpu(inputs), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("writer", WRITERS)
def test_the_driver_counts_the_memory_of_a_fresh_process(writer, tmp_path):
    require_cuda_runtime(writer)
    found = measure_resources(open_model(writer(tmp_path / "model.pt2"), "cuda", 1), 4)
    assert isinstance(found, Resources) and found.gpu is not None
    assert found.gpu.used_bytes is None or found.gpu.used_bytes > 50_000_000  # CUDA's own part alone is larger
    assert found.gpu.used_bytes is not None or found.gpu.note
    if writer is samples.write_onnx:
        assert found.nodes_by_provider and found.cpu_nodes_pct is not None and found.cpu_nodes_pct < 100


def test_onnx_on_cuda_is_refused_where_the_runtime_has_none(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime has CUDA")
    with pytest.raises(EnvironmentLackError, match="without CUDA"):
        open_model(samples.write_onnx(tmp_path / "model.onnx"), "cuda", 1)
