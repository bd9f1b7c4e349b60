"""What goes to which stream, to the log, and to a real (pseudo) terminal."""

from __future__ import annotations

import errno
import io
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common.console import Console, format_bytes, format_count, format_duration

ROOT = Path(__file__).resolve().parents[2]
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def say_everything(console: Console) -> None:
    console.result("a result")
    console.info("a notice")
    console.detail("a detail")
    console.warning("careful")


@pytest.mark.parametrize(
    ("options", "out", "err"),
    [
        ({}, "a result\n", "a notice\nwarning: careful\n"),
        ({"verbose": True}, "a result\n", "a notice\na detail\nwarning: careful\n"),
        ({"quiet": True, "verbose": True}, "a result\n", ""),
        ({"as_json": True}, "", "a notice\nwarning: careful\n"),
    ],
)
def test_results_go_to_standard_output_and_the_rest_to_standard_error(capsys, options, out, err):
    say_everything(Console(**options))
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (out, err)


def test_the_log_has_everything_whatever_is_shown(tmp_path):
    path = tmp_path / "training.log"
    with Console(quiet=True, as_json=True, log_path=path) as console:
        say_everything(console)
        lines = path.read_text().splitlines()  # already there while the log is open
    assert [line.partition(" | ")[2] for line in lines] == ["a result", "a notice", "a detail", "warning: careful"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| .*", line) for line in lines)


def test_every_line_of_a_text_has_its_time(tmp_path):
    path = tmp_path / "training.log"
    with Console(quiet=True, log_path=path) as console:
        console.info("[EPOCH 1/20]\n  Train Loss: 1.234 | Train Acc: 68.7%\n  ✓ saved")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line[22:] for line in lines] == ["[EPOCH 1/20]", "  Train Loss: 1.234 | Train Acc: 68.7%", "  ✓ saved"]


def test_the_log_is_continued_and_a_torn_line_stays_alone(tmp_path):
    path = tmp_path / "training.log"
    path.write_text("2026-01-01 12:00:00 | first\n2026-01-01 12:00:01 | torn in the mid")
    with Console(quiet=True, log_path=path) as console:
        console.info("next")
    with Console(quiet=True, log_path=path) as console:
        console.info("last")
    lines = path.read_text().splitlines()
    assert lines[:2] == ["2026-01-01 12:00:00 | first", "2026-01-01 12:00:01 | torn in the mid"]
    assert [line[22:] for line in lines[2:]] == ["next", "last"]


def test_another_log_replaces_the_first(tmp_path, capsys):
    console = Console()
    console.info("before")
    console.attach_log(tmp_path / "a.log")
    console.info("one")
    console.attach_log(tmp_path / "b.log")
    console.info("two")
    console.close()
    console.info("after")
    assert (tmp_path / "a.log").read_text().endswith("| one\n")
    assert (tmp_path / "b.log").read_text().count("\n") == 1
    assert capsys.readouterr().err == "before\none\ntwo\nafter\n"


def test_names_from_foreign_files_cannot_move_the_cursor_or_forge_log_lines(tmp_path, capsys):
    with Console(log_path=tmp_path / "training.log") as console:
        console.info("class \x1b[2J\rname\x85\x00")
    safe = "class \\x1b[2J\\x0dname\\x85\\x00\n"
    assert capsys.readouterr().err == safe
    assert (tmp_path / "training.log").read_text().endswith(safe)


def test_a_stream_without_the_character_shows_an_escape(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with Console(log_path=tmp_path / "training.log") as console:
        console.result("Loadable: ✓ \udcff")
    assert stream.buffer.getvalue() == b"Loadable: \\u2713 \\udcff\n"
    assert (tmp_path / "training.log").read_text(encoding="utf-8").endswith("Loadable: ✓ \\udcff\n")


def test_where_there_is_no_terminal_there_is_no_bar(capsys):
    console = Console()
    with console.progress(3, "epoch 1") as bar:
        bar.advance(2)
        console.info("a line")
    assert capsys.readouterr().err == "a line\n"


class Terminal:
    """A pseudo terminal in place of standard error; ``seen`` is all that came out of it, after ``close``."""

    def __init__(self) -> None:
        self._outer, inner = pty.openpty()
        self.stream = open(inner, "w", encoding="utf-8")  # noqa: SIM115
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while part := os.read(self._outer, 65536):
                self._parts.append(part)
        except OSError as error:  # Linux says so when the inner end is closed
            if error.errno != errno.EIO:
                raise

    def close(self) -> str:
        self.stream.close()
        self._reader.join()
        os.close(self._outer)
        return b"".join(self._parts).decode("utf-8")


@pytest.fixture
def plug_in_terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal()

    def plug_in() -> Terminal:
        # In the test itself: between setup and test pytest puts its own stream there.
        monkeypatch.setattr(sys, "stderr", terminal.stream)
        return terminal

    return plug_in


def without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_shows_a_bar_with_the_count(plug_in_terminal, monkeypatch):
    terminal = plug_in_terminal()
    monkeypatch.setattr("common.console.REDRAW_INTERVAL_S", 0.0)
    with Console().progress(40, "epoch [1/20]") as bar:
        for _ in range(40):
            bar.advance()
    seen = terminal.close()
    text = without_escapes(seen)
    assert "epoch [1/20]" in text
    assert "40/40" in text
    assert re.search(r"\d/s", text)
    assert seen.count(HIDE_CURSOR) == seen.count(SHOW_CURSOR) == 1
    assert seen.rindex(SHOW_CURSOR) > seen.rindex("40/40")


def test_redraws_are_rare_however_many_steps_there_are(plug_in_terminal, monkeypatch):
    terminal = plug_in_terminal()
    monkeypatch.setattr("common.console.REDRAW_INTERVAL_S", 3600.0)
    with Console().progress(1000, "epoch") as bar:
        for _ in range(1000):
            bar.advance()
    assert 1 <= without_escapes(terminal.close()).count("epoch") <= 3  # at the start, the first step, the end


def test_lines_printed_meanwhile_stay_whole(plug_in_terminal, capsys):
    terminal = plug_in_terminal()
    console = Console()
    with console.progress(2, "epoch") as bar:
        bar.advance()
        console.info("a notice " + "x" * 300)
        console.result("a result")
        bar.advance()
    text = without_escapes(terminal.close()).replace("\r", "\n")
    assert "a notice " + "x" * 300 in text.split("\n")
    assert capsys.readouterr().out == "a result\n"


def test_ctrl_c_leaves_the_cursor_visible_and_the_console_usable(plug_in_terminal):
    terminal = plug_in_terminal()
    console = Console()
    with pytest.raises(KeyboardInterrupt), console.progress(2, "epoch") as bar:
        bar.advance()
        raise KeyboardInterrupt
    console.info("stopped")
    with console.progress(2, "again") as bar:
        bar.advance()
    seen = terminal.close()
    assert seen.rindex(SHOW_CURSOR) > seen.rindex(HIDE_CURSOR)
    assert "stopped" in seen and "again" in seen


def test_a_bar_within_a_bar_is_left_out(plug_in_terminal):
    terminal = plug_in_terminal()
    console = Console()
    with console.progress(2, "outer") as outer, console.progress(5, "inner") as inner:
        inner.advance()
        outer.advance()
    text = without_escapes(terminal.close())
    assert "outer" in text and "inner" not in text


def test_quiet_shows_no_bar(plug_in_terminal):
    terminal = plug_in_terminal()
    with Console(quiet=True).progress(2, "epoch") as bar:
        bar.advance()
    assert terminal.close() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00s"),
        (0.451, "0.45s"),
        (0.999, "1.0s"),
        (12.34, "12.3s"),
        (59.94, "59.9s"),
        (59.96, "1m 0s"),
        (130, "2m 10s"),
        (3599.4, "59m 59s"),
        (3599.6, "1h 0m"),
        (3720, "1h 2m"),
        (86_399, "1d 0h"),
        (273_600, "3d 4h"),
        (-130, "-2m 10s"),
        (None, "n/a"),
        (float("nan"), "n/a"),
        (float("inf"), "n/a"),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (44_700_000, "44.7 MB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1_200_000_000, "1.2 GB"),
        (3e12, "3.0 TB"),
        (5e18, "5000.0 PB"),
    ],
)
def test_sizes(num_bytes, text):
    assert format_bytes(num_bytes) == text


def test_counts():
    assert format_count(11_689_512) == "11,689,512"
    assert format_count(999) == "999"


def test_importing_loads_nothing_heavy():
    code = (
        "import sys; from common.console import Console; Console().info('x')\n"
        "assert not {'rich', 'logging', 'numpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
