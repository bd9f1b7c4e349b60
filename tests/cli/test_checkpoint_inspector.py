"""checkpoint_inspector.py as its users call it: output, exit codes, JSON."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import checkpoint_inspector
from common.manifest import ManifestEntry, sha256_of_file, write_manifest
from tests.checkpoint_samples import MODEL_SPEC, RunsCode, checkpoint, flip, save, save_without_checksums

ROOT = Path(__file__).resolve().parents[2]


def inspect(capsys, *arguments):
    """The exit code, the lines of standard output, and standard error."""
    code = checkpoint_inspector.main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return code, shown.out.splitlines(), shown.err


@pytest.fixture
def best(tmp_path):
    folder = tmp_path / "checkpoints" / "baseline"
    folder.mkdir(parents=True)
    spec = {**MODEL_SPEC, "num_parameters": 11_689_512}
    return save(checkpoint(model_spec=spec), folder / "best_model.pt")


def test_the_documented_block_stands_first_and_exactly(best, capsys, monkeypatch):
    monkeypatch.chdir(best.parents[2])
    code, lines, error = inspect(capsys, "--checkpoint", "checkpoints/baseline/best_model.pt")
    assert code == 0 and error == ""
    assert lines[:7] == [
        "Checkpoint: checkpoints/baseline/best_model.pt",
        "Epoch: 5",
        "Val Loss: 0.745",
        "Val Acc: 78.9%",
        "Model params: 11,689,512",
        "Optimizer state: present",
        "Loadable: ✓",
    ]
    assert lines[7].startswith("Integrity: ok (") and "no manifest" in lines[7]
    assert any(line.startswith("Contents: schema_version, epoch, step, model_state_dict") for line in lines)
    assert "Metrics: val_f1 0.781, val_loss 0.745, lr 1e-05" in lines


def test_quiet_prints_the_block_alone(best, capsys):
    code, lines, _ = inspect(capsys, "--checkpoint", best, "--quiet")
    assert code == 0 and len(lines) == 7


def test_verbose_lists_every_tensor(best, capsys):
    code, lines, _ = inspect(capsys, "--checkpoint", best, "--verbose")
    assert code == 0
    row = next(line for line in lines if line.startswith("model_state_dict/0.weight"))
    assert row.split() == ["model_state_dict/0.weight", "float32", "3×4", "48", "B"]
    assert any(line.startswith("- optimizer_state_dict: ") for line in lines)


def test_what_is_not_there_is_not_made_up(tmp_path, capsys):
    path = save({"w": torch.tensor([1.0, 2.0])}, tmp_path / "bare.pt")
    code, lines, _ = inspect(capsys, "--checkpoint", path, "--quiet")
    assert code == 0
    assert lines[1:] == [
        "Epoch: n/a",
        "Val Loss: n/a",
        "Val Acc: n/a",
        "Model params: 2",
        "Optimizer state: absent",
        "Loadable: ✓",
    ]


def test_a_damaged_checkpoint_names_the_tensor_and_exits_1(best, capsys):
    content = best.read_bytes()
    flip(best, content.index(torch.load(best)["model_state_dict"]["0.weight"].numpy().tobytes()))
    code, lines, _ = inspect(capsys, "--checkpoint", best)
    assert code == 1
    assert "Loadable: ✗ (damaged)" in lines
    assert any(line.startswith("Damage: ") and "model_state_dict/0.weight" in line for line in lines)
    assert inspect(capsys, "--checkpoint", best, "--no-verify")[0] == 0


def test_without_verification_nothing_is_called_ok(best, capsys):
    code, lines, _ = inspect(capsys, "--checkpoint", best, "--no-verify")
    assert code == 0
    assert any(line.startswith("Integrity: not verified") for line in lines)


def test_a_truncated_checkpoint_exits_1(best, capsys):
    best.write_bytes(best.read_bytes()[:3000])
    code, lines, _ = inspect(capsys, "--checkpoint", best)
    assert code == 1
    assert "Epoch: 5" in lines
    assert any("truncated" in line for line in lines) and any("cut off" in line for line in lines)


def test_a_file_without_checksums_is_unverifiable(tmp_path, capsys):
    path = save_without_checksums(checkpoint(), tmp_path / "file.pt")
    code, lines, _ = inspect(capsys, "--checkpoint", path)
    assert code == 0
    assert "Integrity: unverifiable (it has no checksums inside; no manifest)" in lines


def test_the_manifest_is_consulted(best, capsys):
    entry = ManifestEntry(sha256_of_file(best), best.stat().st_size, 5, 50)
    write_manifest(best.parent, {best.name: entry})
    _, lines, _ = inspect(capsys, "--checkpoint", best)
    assert any("its SHA-256 is the manifest's" in line for line in lines)
    save(checkpoint(val_acc=1.0), best)
    code, lines, _ = inspect(capsys, "--checkpoint", best)
    assert code == 1 and any("its SHA-256 is not the manifest's" in line for line in lines)
    (best.parent / "manifest.json").write_text("{}")
    code, lines, _ = inspect(capsys, "--checkpoint", best)
    assert code == 0 and any("the manifest is damaged" in line for line in lines)


def test_a_listed_checkpoint_that_is_empty_now_is_damaged(best, capsys):
    write_manifest(best.parent, {best.name: ManifestEntry("0" * 64, 100, 1, 1)})
    best.write_bytes(b"")
    code, _, error = inspect(capsys, "--checkpoint", best)
    assert code == 1 and "damaged" in error


def test_a_malicious_checkpoint_has_no_effect_and_exits_1(tmp_path, capsys):
    marker = tmp_path / "ran"
    path = save(checkpoint(extra=RunsCode(f"touch {marker}")), tmp_path / "file.pt")
    code, lines, _ = inspect(capsys, "--checkpoint", path, "--load", "--quiet")
    assert code == 1
    assert f"Unsafe global: {os.system.__module__}.system" in lines
    assert any(line.startswith("Loadable: ✗ (unsafe: ") for line in lines)
    assert not marker.exists()


def test_nan_weights_are_shown_and_exit_1(tmp_path, capsys):
    path = save({"model_state_dict": {"w": torch.tensor([math.nan, 1.0])}}, tmp_path / "file.pt")
    code, lines, _ = inspect(capsys, "--checkpoint", path, "--quiet")
    assert code == 1
    assert "Problem: model_state_dict/w: nan (1 values)" in lines


def test_zero_weights_are_shown_and_pass(tmp_path, capsys):
    path = save({"model_state_dict": {"w": torch.zeros(4)}}, tmp_path / "file.pt")
    code, lines, _ = inspect(capsys, "--checkpoint", path)
    assert code == 0
    assert "Problem: model_state_dict/w: all zero (4 values)" in lines


def test_what_is_no_checkpoint_exits_3(tmp_path, capsys):
    code, lines, error = inspect(capsys, "--checkpoint", tmp_path / "missing.pt")
    assert (code, lines) == (3, []) and "no such file" in error
    (tmp_path / "empty.pt").touch()
    code, _, error = inspect(capsys, "--checkpoint", tmp_path / "empty.pt")
    assert code == 3 and "empty" in error
    code, _, error = inspect(capsys, "--checkpoint", tmp_path / "nothing" / "..")
    assert code == 3


def test_a_folder_shows_all_its_checkpoints_and_the_worst_code(best, capsys):
    other = save(checkpoint(epoch=9), best.with_name("last_model.pt"))
    code, lines, _ = inspect(capsys, "--checkpoint", best.parent)
    assert code == 0
    assert [line for line in lines if line.startswith("Checkpoint: ")] == [
        f"Checkpoint: {best}",
        f"Checkpoint: {other}",
    ]
    assert lines.count("") == 1
    flip(best, 1000)
    assert inspect(capsys, "--checkpoint", best.parent, best.parent / "missing.pt")[0] == 1
    assert inspect(capsys, "--checkpoint", other, best.parent / "missing.pt")[0] == 3


def test_a_run_folder_means_its_checkpoints(best, capsys):
    best.rename(best.parent.parent / best.name)
    code, lines, _ = inspect(capsys, "--checkpoint", best.parents[2])
    assert code == 0 and lines[0].endswith("best_model.pt")


def test_an_empty_folder_exits_3(tmp_path, capsys):
    code, _, error = inspect(capsys, "--checkpoint", tmp_path)
    assert code == 3 and "no checkpoints" in error


def test_json_has_all_of_it(best, capsys):
    code = checkpoint_inspector.main(["--checkpoint", str(best), str(best.parent / "missing.pt"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == document["exit_code"] == 3
    sound, missing = document["checkpoints"]
    assert missing["exit_code"] == 3 and missing["error"]["message"] == "no such file"
    assert sound["exit_code"] == 0 and sound["loadable"] is True
    assert (sound["epoch"], sound["step"], sound["val_loss"], sound["val_acc"]) == (5, 50, 0.745, 78.9)
    assert sound["integrity"]["status"] == "ok" and sound["integrity"]["manifest"] == "missing"
    weight = {"name": "model_state_dict/0.weight", "dtype": "float32", "shape": [3, 4], "is_parameter": False}
    assert weight in sound["tensors"]
    assert sound["load"] is None and sound["unsafe_globals"] == []


def test_json_stays_strict_with_non_finite_metrics(tmp_path, capsys):
    path = save(checkpoint(val_loss=math.nan, metrics={"val_f1": math.inf}), tmp_path / "file.pt")
    checkpoint_inspector.main(["--checkpoint", str(path), "--json"])
    (report,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["checkpoints"]
    assert report["val_loss"] is None and report["metrics"]["val_f1"] is None


def test_latest_good_passes_over_damage_and_nan(tmp_path, capsys):
    for step in (10, 20, 30, 40):
        save(checkpoint(epoch=step // 10, step=step), tmp_path / f"checkpoint_epoch_{step // 10}.pt")
    save(checkpoint(step=30, model_state_dict={"w": torch.tensor([math.nan])}), tmp_path / "checkpoint_epoch_3.pt")
    flip(tmp_path / "checkpoint_epoch_4.pt", 2000)
    code, lines, error = inspect(capsys, "--latest-good", tmp_path)
    assert code == 0 and lines[0] == f"Checkpoint: {tmp_path / 'checkpoint_epoch_2.pt'}"
    assert "checkpoint_epoch_3.pt" in error
    assert inspect(capsys, "--latest-good", tmp_path, "--quiet")[1] == [str(tmp_path / "checkpoint_epoch_2.pt")]


def test_latest_good_without_any_exits_1(tmp_path, capsys):
    flip(save(checkpoint(), tmp_path / "last_model.pt"), 2000)
    code, lines, error = inspect(capsys, "--latest-good", tmp_path)
    assert (code, lines) == (1, []) and "none of its 1 checkpoints is sound" in error
    assert inspect(capsys, "--latest-good", tmp_path / "nowhere")[0] == 3


def test_load_builds_the_model_in_a_child(tmp_path, capsys):
    from common.checkpoints import build_from_spec

    model = build_from_spec(MODEL_SPEC)
    spec = {**MODEL_SPEC, "num_parameters": sum(parameter.numel() for parameter in model.parameters())}
    sound = save(checkpoint(model, model_spec=spec), tmp_path / "sound.pt")
    code, lines, _ = inspect(capsys, "--checkpoint", sound, "--load")
    assert code == 0
    assert "Loaded: yes, in a process of its own; simple_mlp takes its weights" in lines
    assert "Loadable: ✓" in lines


def test_load_finds_weights_that_do_not_fit_the_model(tmp_path, capsys):
    path = save(checkpoint(model_spec={**MODEL_SPEC, "hidden_dims": [7]}), tmp_path / "file.pt")
    code, lines, _ = inspect(capsys, "--checkpoint", path, "--load", "--quiet")
    assert code == 1
    assert any(line.startswith("Loadable: ✗ (its model cannot be built") for line in lines)


def test_load_never_runs_code_that_the_checkpoint_names(tmp_path, capsys, monkeypatch):
    (tmp_path / "their_nets.py").write_text("open('ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    path = save(checkpoint(model_spec={**MODEL_SPEC, "architecture": "their_nets:build"}), tmp_path / "file.pt")
    code, lines, _ = inspect(capsys, "--checkpoint", path, "--load")
    assert code == 0
    assert any("their_nets:build" in line and "not run" in line for line in lines)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["--checkpoint"], ["--checkpoint", "a.pt", "--latest-good", "b"], ["--verfy"]]
)
def test_wrong_usage_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        checkpoint_inspector.main(arguments)
    assert stopped.value.code == 2
    assert "usage: " in capsys.readouterr().err


def test_as_a_shell_user_types_it(best):
    done = subprocess.run(
        [sys.executable, "checkpoint_inspector.py", "--checkpoint", str(best)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"Checkpoint: {best}\nEpoch: 5\n")
