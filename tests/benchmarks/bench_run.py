"""What running notebooks with genokit costs, on notebooks that do nothing, beside papermill and nbclient.

    python tests/benchmarks/bench_run.py [repeats]

Each comparison is made in turns, in one process that has imported everything; the table has the medians and the limits
that must hold.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill
from nbclient import NotebookClient

from genokit import Pipeline, Settings, run


def notebook(path: Path, cells: int) -> Path:
    sources = [nbformat.v4.new_code_cell(f"x = {i}") for i in range(cells)]
    sources[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}  # papermill wants to be told
    nbformat.write(nbformat.v4.new_notebook(cells=sources, metadata={"kernelspec": kernel}), path)
    return path


def pipeline(folder: Path, notebooks: int, cells: int) -> Pipeline:
    folder.mkdir()
    names = [notebook(folder / f"n{i}.ipynb", cells).stem for i in range(notebooks)]
    tables = "".join(f'[[notebook]]\nname = "{name}"\npath = "{name}.ipynb"\n' for name in names)
    (folder / "many.toml").write_text('name = "many"\n' + tables)
    return Pipeline(folder / "many.toml", settings=Settings(home=folder / "home"))


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def in_turns(repeats: int, *works: Callable[[], object]) -> list[float]:
    """Median seconds of each work, after one round that imports."""
    rounds = [[timed(work) for work in works] for _ in range(repeats + 1)][1:]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def by_papermill(path: Path) -> None:
    out = str(path.with_suffix(".out.ipynb"))
    papermill.execute_notebook(str(path), out, {"x": 1}, kernel_name="python3", progress_bar=False)


def eight(folder: Path, repeats: int) -> tuple[float, float, float]:
    """Seconds for 8 notebooks of one cell: papermill in two processes, a pipeline, a pipeline with cold kernels."""
    ours, paths = pipeline(folder, 8, 1), sorted(folder.glob("n?.ipynb"))
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as pool:
        found = in_turns(
            repeats,
            lambda: list(pool.map(by_papermill, paths)),
            lambda: ours.run(progress=False, fresh=True),
            lambda: ours.run(progress=False, fresh=True, warm=False),
        )
    return found[0], found[1], found[2]


def twenty_cells(folder: Path, repeats: int) -> tuple[float, float]:
    """Seconds for a notebook of 20 cells: bare nbclient, and run()."""
    path = notebook(folder / "twenty.ipynb", 20)
    settings = Settings(home=folder / "home")
    bare, ours = in_turns(
        repeats,
        lambda: NotebookClient(nbformat.read(path, as_version=4), kernel_name="python3").execute(),
        lambda: run(path, settings=settings, progress=False),
    )
    return bare, ours


def unchanged(folder: Path, repeats: int) -> tuple[float, float]:
    """Seconds to check a pipeline of 20 notebooks in which nothing changed, and to restore all of it."""
    many = pipeline(folder, 20, 3)
    many.run(progress=False)
    check, restore = in_turns(repeats, lambda: many.run(dry_run=True), lambda: many.run(progress=False))
    return check, restore


def starting(repeats: int) -> tuple[float, float]:
    """Seconds of ``genokit run --help`` and of ``import genokit``, each in a new process."""
    commands = (["-m", "genokit", "run", "--help"], ["-c", "import genokit"])
    first, second = in_turns(
        repeats,
        *(lambda c=c: subprocess.run([sys.executable, *c], stdout=subprocess.DEVNULL, check=True) for c in commands),
    )
    return first, second


def main(repeats: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        papermills, warm, cold = eight(folder / "eight", repeats)
        bare, ours = twenty_cells(folder, repeats)
        check, restore = unchanged(folder / "unchanged", repeats)
        shown, imported = starting(repeats)
    rows = [
        ("8 notebooks of 1 cell: papermill in 2 processes", f"{papermills:.2f} s", ""),
        ("  a pipeline", f"{warm:.2f} s, {warm / papermills:.2f} x papermill", "0.70 x"),
        ("  a pipeline with cold kernels", f"{cold:.2f} s, {cold / papermills:.2f} x papermill", ""),
        ("1 notebook of 20 cells: nbclient", f"{bare:.2f} s", ""),
        ("  run()", f"{ours:.2f} s, {100 * (ours / bare - 1):+.0f} %", "+10 %"),
        ("an unchanged pipeline of 20 notebooks: check", f"{check:.2f} s", "0.50 s"),
        ("  restore", f"{restore:.2f} s", ""),
        ("genokit run --help", f"{shown:.2f} s", "0.40 s"),
        ("  import genokit", f"{imported:.2f} s", ""),
    ]
    for row in rows:
        print("{:50} {:26} {}".format(*row).rstrip())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
