"""Progress bars: a line in a terminal, HTML in a notebook that survives saving, and few lines in a log."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

from tqdm import tqdm

from genokit import live
from genokit.display import plain

LOG_S = 10.0  # time between two lines of a bar in a log
FORM = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class Bar(tqdm):  # type: ignore[misc]
    """A progress bar with tqdm's arguments, drawn as fits the place.

    In a notebook it is not a widget: a widget is lost with its kernel, and JupyterLab says "Error displaying widget".
    In a file or a pipe, where a line cannot be overwritten, it prints a new line every ten seconds at most.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        self._shown: Any = None
        self._in_notebook = hasattr(shell, "kernel")
        self._drawn = 0.0
        if self._in_notebook:
            options["file"] = io.StringIO()  # discards what tqdm writes itself
        self.in_log = not self._in_notebook and not sys.stderr.isatty()
        super().__init__(*args, **{"mininterval": LOG_S if self.in_log else 0.2} | options)

    def refresh(self, *args: Any, **options: Any) -> None:
        """Draw again; in a log only if the last line is ten seconds old."""
        if not self.in_log or time.monotonic() - self._drawn >= LOG_S:
            super().refresh(*args, **options)

    @classmethod
    def write(cls, s: str, *args: Any, **options: Any) -> None:
        """Print a line of plain text above the bars."""
        super().write(plain(s), *args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw."""
        self._drawn = time.monotonic()
        if not self._in_notebook:
            super().display(plain(str(self)) if msg is None else msg, pos)
            return
        from IPython.display import display

        now = self.format_dict
        form = now["bar_format"] or FORM
        words = self.format_meter(**now | {"bar_format": form.replace("|{bar}|", "") if self.total else None})
        data = {"text/plain": words, "text/html": live.progress(words, self.n, self.total)}
        if self._shown is None:
            self._shown = display(data, raw=True, display_id=True)
        else:
            self._shown.update({"text/plain": "", "text/html": ""} if msg == "" else data, raw=True)
