"""Devices, determinism, threads and precision: what is chosen and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from common import device as device_module
from common.device import autocast_for, available_cpus, configure_determinism, select_device, set_num_threads
from common.exits import EnvironmentLackError, Exit, UsageError

CPU = torch.device("cpu")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")


@pytest.fixture(autouse=True)
def settings_as_before(monkeypatch):
    """These functions set process-wide switches: put them back."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"))
    algorithms = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(algorithms)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
    torch.set_num_threads(threads)


def test_cpu_is_always_there():
    assert select_device("cpu") == CPU


@without_gpu
def test_auto_falls_back_to_the_cpu():
    assert select_device("auto") == CPU


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_without_a_gpu_says_what_to_do(name):
    with pytest.raises(EnvironmentLackError, match=r"there is no GPU: .+; use auto or cpu") as caught:
        select_device(name)
    assert caught.value.exit == Exit.ENVIRONMENT
    assert caught.value.field == "training.device"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "mps", ""])
def test_other_names_are_no_device(name):
    with pytest.raises(UsageError, match=f"`{name}` is no device; use auto, cpu, cuda or cuda:N"):
        select_device(name)


def test_determinism_sets_every_switch_and_says_so(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    lines = configure_determinism(True, benchmark=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert lines == [
        "Deterministic algorithms: on",
        "cuDNN benchmark: off (benchmark has no effect while deterministic)",
    ]


def test_determinism_keeps_the_users_workspace(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    configure_determinism(True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_determinism_can_be_off(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    lines = configure_determinism(False, benchmark=True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert lines == ["Deterministic algorithms: off", "cuDNN benchmark: on"]


def test_threads_can_be_fixed():
    assert set_num_threads(2) == 2
    assert torch.get_num_threads() == 2
    with pytest.raises(UsageError, match=r"training\.num_threads: must be at least 1, not 0"):
        set_num_threads(0)


@pytest.mark.parametrize(("environment", "expected"), [({"OMP_NUM_THREADS": "1"}, "1"), ({}, None)])
def test_threads_follow_the_environment(environment, expected):
    # In a process of its own: PyTorch reads these variables when it is imported.
    variables = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    code = "from common.device import set_num_threads as s; import torch; print(s(None), torch.get_num_threads())"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(device_module.__file__).parents[1],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    returned, in_force = result.stdout.split()
    assert returned == in_force
    assert returned == expected if expected else 1 <= int(returned) <= available_cpus()


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("150000 100000", 2), ("100000 100000", 1), ("5000 100000", 1), ("max 100000", 8), ("nonsense", 8), (None, 8)],
)
def test_the_quota_of_a_container_counts(monkeypatch, tmp_path, quota, expected):
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(f"{quota}\n")
    monkeypatch.setattr(device_module, "_CPU_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert available_cpus() == expected


def output_dtype(precision: str) -> torch.dtype:
    with autocast_for(CPU, precision).context():
        return nn.Linear(2, 2)(torch.zeros(1, 2)).dtype


def test_precision_is_that_of_the_forward_pass():
    assert output_dtype("fp32") == torch.float32
    assert output_dtype("bf16") == torch.bfloat16
    assert not autocast_for(CPU, "fp32").needs_grad_scaler
    assert not autocast_for(CPU, "bf16").needs_grad_scaler


def test_contexts_nest_and_repeat():
    autocast = autocast_for(CPU, "bf16")
    layer, batch = nn.Linear(2, 2), torch.zeros(1, 2)
    for _ in range(2):
        with autocast.context(), autocast.context():
            assert layer(batch).dtype == torch.bfloat16
        assert layer(batch).dtype == torch.float32


def test_fp16_on_a_cpu_is_refused_with_the_way_out():
    with pytest.raises(EnvironmentLackError, match="CPUs do not train in fp16; use bf16"):
        autocast_for(CPU, "fp16")
    with pytest.raises(UsageError, match="`fp8` is no precision; use fp32, bf16 or fp16"):
        autocast_for(CPU, "fp8")
