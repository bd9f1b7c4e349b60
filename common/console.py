"""What people see: results on standard output, the rest on standard error, and all of it in ``training.log``."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

REDRAW_INTERVAL_S = 0.1
# Texts may carry names from files that others wrote: what would move the cursor or forge a log line is made visible.
_VISIBLE_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


class Console:
    """One tool's output.

    Every text goes to the log, where one is attached, whatever is shown on the screen.

    Args:
        quiet: show results only.
        as_json: standard output belongs to the tool's JSON, so ``result`` shows nothing there.
        log_path: attached at once, see ``attach_log``.
        verbose: show details too.
    """

    def __init__(
        self, quiet: bool = False, as_json: bool = False, log_path: str | Path | None = None, verbose: bool = False
    ) -> None:
        self._quiet = quiet
        self._as_json = as_json
        self._verbose = verbose
        self._log: TextIO | None = None
        self._bar: Progress | None = None
        if log_path is not None:
            self.attach_log(log_path)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def attach_log(self, path: str | Path) -> None:
        """Append every text from now on to ``path``, each line as ``2026-01-01 12:00:00 | text`` with the time in UTC.

        A line is in the file when the call that wrote it returns. A log attached before is closed.

        Raises:
            OSError: the file cannot be written.
        """
        self.close()
        torn = _ends_within_line(Path(path))
        self._log = open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
        if torn:  # by a power cut or a full disk: what comes next stands on a line of its own
            self._log.write("\n")

    def close(self) -> None:
        """Close the log; the screen stays usable."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def result(self, text: str) -> None:
        """What the tool was run for: standard output, also when quiet."""
        text = self._record(text)
        if self._as_json:
            return
        with self._without_bar():
            _print(text, sys.stdout)

    def info(self, text: str) -> None:
        """Progress and notices: standard error."""
        self._tell(text, shown=not self._quiet)

    def detail(self, text: str) -> None:
        """What only a closer look needs: standard error when verbose."""
        self._tell(text, shown=self._verbose and not self._quiet)

    def show(self, text: str) -> None:
        """For the screen only, where the log says the same in another form: standard error."""
        if not self._quiet:
            self._show(text.translate(_VISIBLE_CONTROLS))

    def warning(self, text: str) -> None:
        """Something that the user should know and may want to change: standard error, marked as a warning."""
        self._tell(f"warning: {text}", shown=not self._quiet)

    @contextlib.contextmanager
    def progress(self, total: int, description: str, *, rate: bool = True) -> Iterator[ProgressBar]:
        """A bar with rate and time left while the block runs, on a terminal; nothing elsewhere or when quiet.

        The bar is erased at the end, also by an exception or Ctrl-C, so the cursor is never left hidden.

        Args:
            total: number of steps, >= 0.
            description: stands before the bar.
            rate: False leaves rate and time left to the description: steps that take minutes have no steady rate.
        """
        if self._quiet or self._bar is not None or not sys.stderr.isatty():
            yield ProgressBar(None, total, description)
            return
        self._bar = _new_bar(rate)
        try:
            self._bar.start()
            yield ProgressBar(self._bar, total, description)
        finally:
            bar, self._bar = self._bar, None
            bar.stop()

    def _tell(self, text: str, *, shown: bool) -> None:
        text = self._record(text)
        if shown:
            self._show(text)

    def _show(self, text: str) -> None:
        try:
            with self._without_bar():
                _print(text, sys.stderr)
        except OSError:
            # The reader has gone (`2>&1 | head`, a closed terminal). A training does not end for want of a watcher.
            self._quiet = True

    def _record(self, text: str) -> str:
        text = text.translate(_VISIBLE_CONTROLS)
        if self._log is not None:
            now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
            self._log.write("".join(f"{now} | {line}\n" for line in text.split("\n")))
        return text

    @contextlib.contextmanager
    def _without_bar(self) -> Iterator[None]:
        """Take the bar off the screen for as long as a text is being printed."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()


class ProgressBar:
    """Counts steps; redraws at most ten times a second, so a step costs well under a microsecond."""

    def __init__(self, bar: Progress | None, total: int, description: str) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task(description, total=total)
        self._done = 0
        self._redraw_at_s = 0.0

    def advance(self, steps: int = 1) -> None:
        """Say that ``steps`` more are done."""
        if self._bar is None or self._task is None:
            return
        self._done += steps
        now_s = time.monotonic()
        if now_s >= self._redraw_at_s:
            self._redraw_at_s = now_s + REDRAW_INTERVAL_S
            with contextlib.suppress(OSError):  # nobody looks any more
                self._bar.update(self._task, completed=self._done, refresh=True)

    def describe(self, description: str) -> None:
        """Change what stands before the bar."""
        if self._bar is not None and self._task is not None:
            with contextlib.suppress(OSError):
                self._bar.update(self._task, description=description, completed=self._done, refresh=True)


def format_duration(seconds: float | None) -> str:
    """``0.45s``, ``12.3s``, ``2m 10s``, ``1h 2m``, ``3d 4h``; ``n/a`` for None and what is not finite."""
    if seconds is None or not math.isfinite(seconds):
        return "n/a"
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if round(seconds, 1) < 60:
        return f"{seconds:.2f}s" if round(seconds, 2) < 1 else f"{seconds:.1f}s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest_s}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 24:
        return f"{hours}h {minutes}m"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days}d {hours}h"


def format_bytes(num_bytes: float) -> str:
    """``512 B``, ``44.7 MB``, ``1.2 GB``: powers of 1000, as disks and the documentation count."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        digits = 0 if unit == "B" else 1
        if round(abs(size), digits) < 1000:
            return f"{size:.{digits}f} {unit}"
        size /= 1000
    return f"{size:.1f} PB"


def format_count(count: int) -> str:
    """``11,689,512``."""
    return f"{count:,}"


def _ends_within_line(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as log:
        log.seek(-1, os.SEEK_END)
        return log.read() != b"\n"


def _print(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:  # a terminal of the days before UTF-8: show what it lacks as escapes
        encoding = stream.encoding or "ascii"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def _new_bar(rate: bool) -> Progress:
    from rich.console import Console as Screen
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        *([_rate_column(), TimeRemainingColumn(compact=True)] if rate else []),
    ]
    # No thread of rich's own: it would draw at its own times, and hold the lock while a signal handler prints.
    return Progress(
        *columns,
        console=Screen(stderr=True),
        auto_refresh=False,
        transient=True,
        expand=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _rate_column() -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """Steps per second, over the last half minute."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")

    return RateColumn()
