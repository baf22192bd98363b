"""Progress bars where they are drawn: a notebook, a log."""

from __future__ import annotations

import subprocess
import sys

import nbformat
from nbclient import NotebookClient

from genokit.bars import Bar

BUSY = """
from genokit.bars import Bar
with Bar(total=500, desc="busy", unit="job") as bar:
    for step in range(500):
        bar.set_postfix_str(f"step {step}")
        bar.update()
"""


def test_a_bar_in_a_log_writes_few_lines_and_its_end():
    done = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, check=True)
    lines = done.stderr.replace("\r", "\n").split("\n")
    assert len([line for line in lines if line]) <= 3
    assert "busy: 100%" in done.stderr
    assert done.stdout == ""


def test_a_bar_in_a_notebook_is_html_and_no_widget_and_may_leave_nothing():
    codes = (BUSY, BUSY.replace("total=500", "total=500, leave=False"))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    NotebookClient(book, kernel_name="python3").execute()
    [output] = book.cells[0].outputs
    assert set(output.data) == {"text/plain", "text/html"}
    assert '<progress value="500" max="500">' in output.data["text/html"]
    assert output.data["text/plain"].startswith("busy: 100% 500/500")
    assert [output.data["text/html"] for output in book.cells[1].outputs] == [""]


def test_a_bar_passes_no_escape_sequence_to_the_terminal(capsys):
    with Bar(total=1, desc="a\x1b]52;c;eA==\x07b") as bar:
        bar.set_postfix_str("c\x1b[2Jd")
        bar.update()
        Bar.write("e\x1b[2Jf")
    said = capsys.readouterr()
    assert "ab" in said.err
    assert "ef" in said.out
    assert "\x1b" not in (said.err + said.out).replace("\x1b[A", "")  # tqdm's own, between the lines of several bars
