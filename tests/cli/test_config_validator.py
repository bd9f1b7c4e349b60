"""config_validator.py as a shell user meets it: codes, output, formats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import config_validator

ROOT = Path(__file__).resolve().parents[2]
GOOD = ROOT / "configs" / "training_config.yaml"
BAD_TEXT = """\
model:
  architecture: simple_cnn
  dropout: 0.1
optimizer: {type: adam, learning_rate: 1e-3, weight_decay: 0}
training:
  batchsize: 128
  epochs: 2.5
  device: auto
early_stopping: {enabled: true, patience: 10, metric: val_loss}
reproducibility: {seed: random, deterministic: true}
"""


@pytest.fixture
def bad(tmp_path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD_TEXT)
    return path


@pytest.fixture
def doubtful(tmp_path) -> Path:
    path = tmp_path / "doubtful.yaml"
    path.write_text(GOOD.read_text(encoding="utf-8").replace("deterministic: true", "deterministic: false"))
    return path


def check(*arguments: object) -> int:
    return config_validator.main([str(argument) for argument in arguments])


def test_a_valid_config(capsys) -> None:
    assert check("--config", GOOD) == 0
    assert capsys.readouterr() == ("✓ Config valid\n", "")


def test_an_invalid_config_shows_every_error_at_once(capsys, bad) -> None:
    assert check("--config", bad) == 1
    output, errors = capsys.readouterr()
    assert errors == ""
    assert (
        output
        == f"""\
{bad}:6:3: error[unknown-key]: training.batchsize: unknown key `batchsize`
  |
6 |   batchsize: 128
  |   ^^^^^^^^^
  = help: did you mean `batch_size`?

{bad}:7:11: error[type]: training.epochs: expected a whole number from 1 to 1000000, found 2.5
  |
7 |   epochs: 2.5
  |           ^^^

{bad}:10:25: error[seed]: reproducibility.seed: expected a fixed whole number from 0 to 4294967295, \
found the text `random`
   |
10 | reproducibility: {{seed: random, deterministic: true}}
   |                         ^^^^^^
   = help: write a number, such as `seed: 42`

✗ Config not valid: {bad} (3 errors)
"""
    )


def test_warnings_do_not_fail_unless_strict(capsys, doubtful) -> None:
    assert check("--config", doubtful) == 0
    output = capsys.readouterr().out
    assert "warning[conflict]: reproducibility.deterministic" in output
    assert output.endswith("✓ Config valid (1 warning)\n")
    assert check("--config", doubtful, "--strict") == 1
    assert capsys.readouterr().out.endswith(f"✗ Config not valid: {doubtful} (1 warning, with --strict)\n")


def test_quiet_shows_errors_and_the_verdict(capsys, doubtful, bad) -> None:
    assert check("--config", doubtful, "--quiet") == 0
    assert capsys.readouterr().out == "✓ Config valid (1 warning)\n"
    assert check("--config", bad, "--quiet") == 1
    assert capsys.readouterr().out.count("error[") == 3


def test_the_mode_is_part_of_the_check(capsys) -> None:
    assert check("--config", GOOD, "--mode", "baseline", "--strict") == 0
    assert check("--config", GOOD, "--mode", "production", "--strict") == 1
    assert "training.epochs: 20 (the production mode means 100)" in capsys.readouterr().out


def test_several_configs_are_checked_each(capsys, bad, doubtful) -> None:
    assert check("--config", GOOD, bad, "--config", doubtful) == 1
    output = capsys.readouterr().out
    assert f"✓ Config valid: {GOOD}\n" in output
    assert f"✗ Config not valid: {bad} (3 errors)\n" in output
    assert output.endswith(f"✓ Config valid: {doubtful} (1 warning)\n")


def test_json_for_programs(capsys, bad) -> None:
    assert check("--config", GOOD, bad, "--json") == 1
    by_flag = capsys.readouterr().out
    assert check("--config", GOOD, bad, "--format", "json") == 1
    assert capsys.readouterr().out == by_flag
    report = json.loads(by_flag)
    assert report["valid"] is False
    assert [(file["path"], file["valid"], file["num_errors"]) for file in report["files"]] == [
        (str(GOOD), True, 0),
        (str(bad), False, 3),
    ]
    assert report["files"][1]["problems"][0] == {
        "path": str(bad),
        "code": "unknown-key",
        "message": "unknown key `batchsize`",
        "severity": "error",
        "key": "training.batchsize",
        "line": 6,
        "column": 3,
        "end_column": 12,
        "expected": None,
        "found": None,
        "hint": "did you mean `batch_size`?",
        "excerpt": "  batchsize: 128",
    }


def test_annotations_for_github(capsys, bad, doubtful) -> None:
    assert check("--config", doubtful, bad, "--format", "github") == 1
    lines = capsys.readouterr().out.split("\n")
    assert lines[0] == (
        f"::error file={bad},line=6,col=3,endColumn=12,title=unknown-key::"
        "training.batchsize: unknown key `batchsize`; did you mean `batch_size`?"
    )
    assert [line.split(" ")[0] for line in lines[:4]] == ["::error", "::error", "::error", "::warning"]


def test_annotations_escape_what_would_end_them(capsys, tmp_path) -> None:
    path = tmp_path / "a,b:c%.yaml"
    path.write_text("- 1\n")
    assert check("--config", path, "--format", "github") == 1
    assert f"file={tmp_path}/a%2Cb%3Ac%25.yaml,line=1" in capsys.readouterr().out


def test_more_annotations_than_github_shows_are_announced(capsys, tmp_path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("".join(f"x{n}: 1\n" for n in range(11)))
    check("--config", path, "--format", "github")
    assert "GitHub shows 10" in capsys.readouterr().out


def test_files_that_cannot_be_read(capsys, tmp_path, bad) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: \xe9\n")
    for path, reason in [(tmp_path, "a folder"), (tmp_path / "none.yaml", "no such file"), (latin, "not UTF-8")]:
        assert check("--config", path) == 3
        assert f"{path}: error[unreadable]: {reason}" in capsys.readouterr().out
    assert check("--config", bad, latin) == 3
    assert "3 errors" in capsys.readouterr().out


def test_a_file_without_permission_cannot_be_read(as_anyone, bad) -> None:
    bad.chmod(0)
    command = [*as_anyone, sys.executable, ROOT / "config_validator.py", "--config", bad]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert answer.returncode == 3 and "no permission" in answer.stdout, answer.stderr


@pytest.mark.parametrize(
    "text",
    ["", "- 1", "5", "[" * 200_000, "a: &a [*a]", "a: !!python/object/apply:os.system [ls]", "a: 1\na: 2", "\ta: 1",
     "a: 1\n---\nb: 2", "\x00", "'", "a: \u202e", "? {}\n: 1", "%", "&a", "*a", "model: {<<: 1}"],
)  # fmt: skip
def test_hostile_files_are_answered(capsys, tmp_path, text: str) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    assert check("--config", path) == 1
    output, errors = capsys.readouterr()
    assert f"{path}:" in output and "error[" in output
    assert errors == ""


def test_the_schema_and_the_reference_are_printed(capsys) -> None:
    assert check("--print-schema") == 0
    assert capsys.readouterr().out == (ROOT / "configs" / "schema.json").read_text(encoding="utf-8")
    assert check("--print-reference") == 0
    assert capsys.readouterr().out == (ROOT / "configs" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments",
    [[], ["--config"], ["--config", "a", "--mode", "fast"], ["--config", "a", "--print-schema"], ["a.yaml"]],
)
def test_wrong_usage(capsys, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        config_validator.main(arguments)
    assert raised.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_empty_file_name_is_wrong_usage(capsys) -> None:
    assert check("--config", "") == 2
    assert "empty file name" in capsys.readouterr().err


def test_a_file_name_that_is_not_unicode(tmp_path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.yaml"
    Path(os.fsdecode(path)).write_text("- 1\n")
    for form in ("text", "json"):
        command = [sys.executable, "config_validator.py", "--config", path, "--format", form]
        done = subprocess.run(command, cwd=ROOT, capture_output=True)
        assert done.returncode == 1, done.stderr
        assert b"expected a mapping of sections" in done.stdout


def test_a_terminal_without_unicode_gets_escapes() -> None:
    done = subprocess.run(
        [sys.executable, "config_validator.py", "--config", str(GOOD)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "\\u2713 Config valid\n")


def _modules_after(arguments: list[str]) -> set[str]:
    """What the process has imported when it ends."""
    program = (
        "import sys, config_validator\n"
        "try: config_validator.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stderr.split("\n"))


def test_start_up_stays_light() -> None:
    assert not {"torch", "numpy", "yaml", "pydantic", "rich"} & _modules_after(["--help"])
    validating = _modules_after(["--config", str(GOOD), "--mode", "baseline"])
    assert "pydantic" in validating
    assert not {"torch", "numpy", "rich", "matplotlib", "sklearn"} & validating
