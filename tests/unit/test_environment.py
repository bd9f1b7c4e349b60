"""What environment.json says, and what of it decides whether a run can be repeated exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common import environment, nvml
from common.environment import (
    collect_environment,
    differing_fields,
    exactness_fingerprint,
    fingerprint_differences,
    git_state,
)

ROOT = Path(__file__).resolve().parents[2]


def collect(**changes):
    arguments = {
        "device": "cpu",
        "command_line": ["training_orchestrator.py", "--mode", "baseline"],
        "dataset_fingerprint": "d1g1t5",
        "num_threads": 2,
        "deterministic": True,
        "precision": "fp32",
    }
    return collect_environment(**{**arguments, **changes})


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    answer = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, env=clean, check=True, capture_output=True, text=True
    )
    return answer.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "--quiet", "--initial-branch=trunk")
    (tmp_path / "a b.txt").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_is_strict_json_and_names_the_run():
    collected = collect()
    assert json.loads(json.dumps(collected, allow_nan=False)) == collected
    assert collected["command_line"] == ["training_orchestrator.py", "--mode", "baseline"]
    assert collected["run"] == {
        "device": "cpu",
        "num_threads": 2,
        "world_size": 1,
        "deterministic": True,
        "precision": "fp32",
        "compiled": False,
        "dataset_fingerprint": "d1g1t5",
    }
    age = datetime.now(timezone.utc) - datetime.fromisoformat(collected["collected_at"])
    assert 0 <= age.total_seconds() < 3600
    assert collected["working_directory"] == os.getcwd()


def test_names_the_packages_with_their_versions():
    collected = collect()
    assert collected["packages"]["numpy"] == collected["versions"]["numpy"] == np.__version__
    assert collected["packages"]["scikit-learn"]
    assert list(collected["packages"]) == sorted(collected["packages"])


def test_describes_the_processor():
    cpu = collect()["cpu"]
    assert cpu["model"]
    assert 1 <= cpu["usable_cores"] <= cpu["logical_cores"]
    assert set(cpu["flags"]) <= environment.RELEVANT_CPU_FLAGS
    assert collect()["memory_bytes"] > 2**20


def test_tells_processors_of_one_name_apart(monkeypatch):
    fields = {"model name": "AMD EPYC", "cpu family": "25", "model": "17", "stepping": "1", "flags": "fpu avx avx2"}
    monkeypatch.setattr(environment, "_cpuinfo_fields", lambda: fields)
    cpu = environment.cpu_description()
    assert cpu["model"] == "AMD EPYC (family 25, model 17, stepping 1)"
    assert cpu["flags"] == ["avx", "avx2"]


def test_a_machine_without_cpuinfo_has_a_processor_all_the_same(monkeypatch):
    monkeypatch.setattr(environment, "_cpuinfo_fields", dict)
    cpu = environment.cpu_description()
    assert cpu["model"] and cpu["flags"] == []


def test_names_the_gpu_in_use(monkeypatch):
    from fake_nvml import FakeDevice, FakeNvml

    library = FakeNvml(FakeDevice("GPU-1", counters={"memory": 1}), FakeDevice("GPU-2"))
    library.nvmlSystemGetDriverVersion = lambda: "570.1"
    monkeypatch.setattr(nvml, "_load_library", lambda: library)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    gpu = collect(device="cuda:0")["gpu"]
    assert (gpu["driver"], gpu["name"]) == ("570.1", "Fake H100")
    assert gpu["devices"][0] == {"name": "Fake H100", "uuid": "GPU-1", "memory_bytes": 80_000_000_000}
    assert collect(device="cuda:5")["gpu"]["name"] is None  # not among the visible ones
    assert collect(device="cpu")["gpu"]["name"] is None


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert collect(device="cuda")["gpu"] is None


def test_reads_torch_only_where_it_is_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    without = collect()
    assert (without["torch_build"], without["cpu"]["torch_capability"]) == (None, None)
    assert "torch" not in sys.modules
    backends = SimpleNamespace(
        cudnn=SimpleNamespace(version=lambda: 91002), cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX512")
    )
    version = SimpleNamespace(cuda="12.8", git_version="abc")
    cuda = SimpleNamespace(is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(backends=backends, version=version, cuda=cuda))
    loaded = collect()
    assert loaded["torch_build"] == {"cuda": "12.8", "cudnn": 91002, "commit": "abc"}
    assert loaded["cpu"]["torch_capability"] == "AVX512"


def test_git_names_the_commit_and_whether_files_differ_from_it(repository):
    clean = git_state(repository)
    assert clean == {"commit": git(repository, "rev-parse", "HEAD"), "branch": "trunk", "dirty": False}
    (repository / "new result.md").write_text("a run writes such files")
    assert git_state(repository) == clean
    (repository / "a b.txt").write_text("2")
    assert git_state(repository) == {**clean, "dirty": True}


def test_git_in_a_repository_without_a_commit(tmp_path):
    git(tmp_path, "init", "--quiet", "--initial-branch=trunk")
    assert git_state(tmp_path) == {"commit": None, "branch": "trunk", "dirty": False}


def test_a_hook_that_starts_us_does_not_lend_its_repository(repository, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(elsewhere.parent))
    assert git_state(elsewhere) is None


def test_without_git_the_state_is_unknown(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(repository) is None


def test_a_fingerprint_agrees_with_itself():
    fingerprint = exactness_fingerprint(collect())
    again = exactness_fingerprint(json.loads(json.dumps(collect())))
    assert fingerprint_differences(fingerprint, again) == []
    assert fingerprint["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert fingerprint["numpy"] == np.__version__


def test_what_does_not_change_bits_is_no_difference():
    then, now = collect(), collect(command_line=["other"])
    now.update(hostname="elsewhere", working_directory="/", git=None, memory_bytes=1)
    now["packages"]["rich"] = "0"
    assert fingerprint_differences(exactness_fingerprint(then), exactness_fingerprint(now)) == []


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"num_threads": 1}, "threads: 2 then, 1 now"),
        ({"precision": "bf16"}, "precision: fp32 then, bf16 now"),
        ({"deterministic": False}, "deterministic operations: yes then, no now"),
        ({"compiled": True}, "compiled model: no then, yes now"),
        ({"world_size": 4}, "processes: 1 then, 4 now"),
        ({"dataset_fingerprint": None}, "dataset: d1g1t5 then, none now"),
    ],
)
def test_each_difference_is_named(changes, difference):
    then, now = exactness_fingerprint(collect()), exactness_fingerprint(collect(**changes))
    assert fingerprint_differences(then, now) == [difference]


def test_the_fields_in_which_several_differ_are_named_with_the_value_of_each():
    found = differing_fields([{"python": "3.11", "deterministic": True}, {"python": "3.11", "deterministic": True},
                              {"python": "3.11", "num_threads": 2, "deterministic": False}])  # fmt: skip
    assert found == {"deterministic operations": ["yes", "yes", "no"], "threads": ["none", "none", "2"]}


def test_another_version_or_machine_is_a_difference():
    then, now = collect(), collect()
    now["packages"]["torch"] = "9.9"
    now["cpu"]["model"] = "Other CPU"
    found = fingerprint_differences(exactness_fingerprint(then), exactness_fingerprint(now))
    assert found == [
        f"torch: {then['packages']['torch']} then, 9.9 now",
        f"device: {then['cpu']['model']} then, Other CPU now",
    ]


def test_on_a_gpu_its_model_counts_and_the_processor_does_not():
    then, now = collect(device="cuda:0"), collect(device="cuda:1")
    for one, name in ((then, "H100"), (now, "T4")):
        one["gpu"] = {"driver": "1", "devices": [], "name": name}
        one["torch_build"] = {"cuda": "12.8", "cudnn": 91002, "commit": "abc"}
    now["cpu"]["model"] = "Other CPU"
    now["torch_build"]["cudnn"] = 91300
    found = fingerprint_differences(exactness_fingerprint(then), exactness_fingerprint(now))
    assert found == ["device: H100 then, T4 now", "cuDNN: 91002 then, 91300 now"]


@pytest.mark.parametrize("damaged", [{}, {"run": None, "cpu": 3, "python": [], "packages": "x"}])
def test_an_incomplete_file_counts_as_unknown(damaged):
    fingerprint = exactness_fingerprint(damaged)
    assert set(fingerprint.values()) == {None}
    assert "threads: none then, 2 now" in fingerprint_differences(fingerprint, exactness_fingerprint(collect()))
    assert fingerprint_differences({"gone": 1}, {}) == ["gone: 1 then, none now"]


def test_importing_loads_nothing_heavy():
    code = (
        "import sys; from common import environment\n"
        "environment.collect_environment('cpu', [], None, 1, True, 'fp32')\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
