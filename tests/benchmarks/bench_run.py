"""What ``genokit.run`` costs beside plain papermill, on notebooks that do nothing.

    python tests/benchmarks/bench_run.py [repeats]

Both in one warm process, imports done, each with a kernel of its own. genokit.run also checks the parameters, keeps a
run folder and writes the HTML; the last column leaves that export out.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill

from genokit import Pipeline, Settings, run
from genokit.pipelines import html


def notebook(path: Path, cells: int) -> Path:
    sources = [nbformat.v4.new_code_cell(f"x = {i}") for i in range(cells)]
    sources[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}  # papermill wants to be told
    nbformat.write(nbformat.v4.new_notebook(cells=sources, metadata={"kernelspec": kernel}), path)
    return path


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(path: Path, settings: Settings, repeats: int) -> tuple[float, float, float]:
    """Median seconds of papermill, of run(), and of run() less its export to HTML."""
    out = str(path.with_suffix(".out.ipynb"))

    def plain() -> None:
        papermill.execute_notebook(str(path), out, {"x": 1}, kernel_name="python3", progress_bar=False)

    def ours() -> None:
        run(path, {"x": 1}, settings=settings, progress=False)

    ended = nbformat.read(run(path, settings=settings, progress=False).notebook, as_version=4)  # and the imports
    times = [(timed(plain), timed(ours), timed(lambda: html.export(ended, "x"))) for _ in range(repeats)]
    first, second, export = (statistics.median(column) for column in zip(*times, strict=True))
    return first, second, second - export


def unchanged(folder: Path, notebooks: int) -> tuple[float, float]:
    """Seconds to check a pipeline in which nothing changed, and to restore all of it."""
    toml = 'name = "many"\n'
    for i in range(notebooks):
        toml += f'[[notebook]]\nname = "n{i}"\npath = "{notebook(folder / f"n{i}.ipynb", 3).name}"\n'
    (folder / "many.toml").write_text(toml)
    pipeline = Pipeline(folder / "many.toml", settings=Settings(home=folder / "home"))
    pipeline.run(progress=False)
    pipeline.run(dry_run=True)  # imports pandas
    return timed(lambda: pipeline.run(dry_run=True)), timed(lambda: pipeline.run(progress=False))


def main(repeats: int) -> None:
    print("cells  papermill      run()  run() without HTML  (median s)")
    with tempfile.TemporaryDirectory() as folder:
        for cells in (1, 20, 100):
            path = notebook(Path(folder) / f"{cells}.ipynb", cells)
            first, second, third = measure(path, Settings(home=folder), repeats)
            print(f"{cells:5}  {first:9.2f}  {second:9.2f}  {third:18.2f}")
    with tempfile.TemporaryDirectory() as folder:
        check, restore = unchanged(Path(folder), 20)
        print(f"an unchanged pipeline of 20 notebooks: {check:.2f} s to check, {restore:.2f} s to restore")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
