from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from common import command
from common.exits import (
    CheckFailedError,
    EnvironmentLackError,
    Exit,
    InputFileError,
    RunFailedError,
    StoppedError,
    UsageError,
)

ROOT = Path(__file__).resolve().parents[2]


def run(program, *argv: str) -> int:
    return command.run(program, command.new_parser("Does it.", "  python it.py"), argv)


def raising(error: BaseException):
    def program(args):
        raise error

    return program


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckFailedError("no"), 1),
        (UsageError("no"), 2),
        (InputFileError("no"), 3),
        (EnvironmentLackError("no"), 4),
        (RunFailedError("no"), 5),
        (StoppedError("no", exit=Exit.TERMINATED), 143),
        (ZeroDivisionError("no"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_has_its_exit_code(error, code, capsys):
    assert run(raising(error)) == code
    assert capsys.readouterr().out == ""


def test_a_users_error_is_one_sentence_without_traceback(capsys):
    error = InputFileError("is not valid", path="runs/a.json", field="epochs", hint="run it again")
    run(raising(error))
    said = capsys.readouterr().err
    assert said.endswith("error: runs/a.json: epochs: is not valid; run it again\n")
    assert said.count("\n") == 1


def test_a_bug_keeps_its_traceback(capsys):
    run(raising(ZeroDivisionError("oops")))
    assert "Traceback" in (said := capsys.readouterr().err) and "this is a bug" in said


@pytest.mark.parametrize(("name", "code"), [("no_such_package.part", 4), ("common.no_such_module", 70)])
def test_a_missing_package_is_the_machines_lack_and_a_missing_module_our_bug(name, code, capsys):
    assert run(lambda args: __import__(name)) == code
    assert ("no_such_package is not installed" in capsys.readouterr().err) is (code == 4)


def test_json_error_is_an_object_on_standard_output(capsys):
    assert run(raising(UsageError("no", field="--mode")), "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error == {"message": "no", "path": None, "field": "--mode", "hint": None, "exit_code": 2}


def test_wrong_flags_exit_with_2(capsys):
    with pytest.raises(SystemExit) as end:
        run(lambda args: Exit.DONE, "--no-such-flag")
    assert end.value.code == 2


def test_a_closed_pipe_is_no_error():
    code = (
        "import sys; from common import command\n"
        "def program(args):\n    for i in range(100_000): print(i)\n    return command.Exit.DONE\n"
        "sys.exit(command.run(program, command.new_parser('', ''), []))"
    )
    shell = f"set -o pipefail; {sys.executable} -c {shlex.quote(code)} | head -n 1"
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
