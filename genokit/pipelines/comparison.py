"""Two runs side by side, and a crate run again: which results are equal, and how far apart the others are."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from genokit import display
from genokit.config import Settings
from genokit.errors import GenokitError, NotebookFailed
from genokit.files import sha256
from genokit.pipelines import crate, notebooks, plan, values
from genokit.pipelines.folders import RECORD, SOURCE, Run, working_folder
from genokit.pipelines.plan import Input

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ["notebook", "what", "a", "b", "equal", "absolute", "relative"]
Row = tuple[object, ...]
Distance = tuple[float | None, float | None]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side: two, or the runs of a crate and new runs of the same notebooks.

    Attributes
    ----------
    runs : list of tuple of Run
        Each two runs, a and b.
    table : DataFrame
        One row for each thing compared: notebook, what, a, b, equal, and how far apart a and b are. Of numbers:
        ``absolute``, and ``relative`` to the one of a, the largest of several. Of figures: ``absolute``, the mean
        difference of their pixels from 0 to 1, and ``relative``, the share of pixels that differ. Files are compared
        by their content.
    """

    runs: list[tuple[Run, Run]]
    table: DataFrame = field(repr=False)

    @property
    def equal(self) -> bool:
        """Whether everything in the table is equal."""
        return bool(self.table["equal"].all())

    @property
    def packages(self) -> list[str]:
        """Installed packages that differ: "- numpy==2.0" in a, "+ numpy==2.1" in b."""
        before, after = ((run.path / crate.PACKAGES).read_text().splitlines() for run in self.runs[0])
        differ = sorted({*before} ^ {*after}, key=lambda line: (line.partition("==")[0].casefold(), line in after))
        return [f"{'+' if line in after else '-'} {line}" for line in differ]

    def __repr__(self) -> str:
        names = ", ".join(a.name for a, _ in self.runs)
        return f"<Comparison of {names}: {self.table['equal'].sum()} of {len(self.table)} are equal>"

    def _repr_html_(self) -> str:
        differ = ", ".join(self.table["what"][~self.table["equal"]]) or "nothing"
        pictures = [
            [a.name, *(one and display.image(one.png, one.heading or "figure", scale=one.scale) for one in pair)]
            for a, b in self.runs
            for pair in zip_longest(a.figures, b.figures)
        ]
        fold = {
            "All": display.table(self.table, most=500),
            "Figures": display.table(pictures, columns=["notebook", "a", "b"]),
            "Folders": display.table([(a.name, a.path, b.path) for a, b in self.runs], columns=["notebook", "a", "b"]),
            "Packages that differ": display.log("\n".join(self.packages) or "none"),
        }
        rows = {"Equal": f"{self.table['equal'].sum()} of {len(self.table)}", "Different": differ}
        return display.card("Comparison", rows, status="verified" if self.equal else "mismatch", fold=fold)


def compare(a: Run, b: Run) -> Comparison:
    """Compare the parameters, outputs, code and figures of two runs, and say how far apart they are.

    Parameters
    ----------
    a, b : Run
        The runs; ``Run.load(path)`` gives one by its folder.

    Returns
    -------
    Comparison
        A card; ``.table`` is a DataFrame, ``.packages`` the installed packages that differ.

    Raises
    ------
    NotFound, InvalidNotebook
        An executed notebook is missing or damaged.

    Examples
    --------
    >>> import nbformat, tempfile
    >>> from genokit import Settings, run
    >>> folder = Path(tempfile.mkdtemp())
    >>> cells = [nbformat.v4.new_code_cell("epochs: int = 1", metadata={"tags": ["parameters"]})]
    >>> nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "train.ipynb")
    >>> settings = Settings(home=folder / "kit")
    >>> short = run(folder / "train.ipynb", settings=settings, progress=False)
    >>> compare(short, short.rerun(settings, epochs=20)).table[["what", "a", "b", "equal"]]
                   what          a          b  equal
    0             state  SUCCEEDED  SUCCEEDED   True
    1  parameter epochs          1         20  False
    2              code    1 cells    1 cells   True
    """
    return _compared([(a, b)])


def _compared(runs: list[tuple[Run, Run]]) -> Comparison:
    from genokit.frames import Frame

    rows = [(a.name, *row) for a, b in runs for row in _rows(a, b)]
    return Comparison(runs, Frame(rows, columns=COLUMNS).astype({"absolute": float, "relative": float}))


def _rows(a: Run, b: Run) -> Iterator[Row]:
    yield "state", a.state, b.state, a.state == b.state, None, None
    for kind, one, other in (("parameter", a.parameters, b.parameters), ("output", a.outputs, b.outputs)):
        for name in {**one, **other}:
            pair = one.get(name), other.get(name)
            contents = [_content(value, run) for value, run in zip(pair, (a, b), strict=True)]
            # NaN is not equal to itself, but its source is.
            same = contents[0] == contents[1] or values.source(contents[0]) == values.source(contents[1])
            yield f"{kind} {name}", *pair, same, *_distance(*contents)
    code = [[notebooks.text(cell) for cell in notebooks.executed(notebooks.load(run.notebook))] for run in (a, b)]
    yield "code", f"{len(code[0])} cells", f"{len(code[1])} cells", code[0] == code[1], None, None
    for number, figures in enumerate(zip_longest(a.figures, b.figures), 1):
        yield f"figure {number}", *_compared_figures(*figures)


def _content(value: Any, run: Run) -> Any:
    """The value, with each file's path replaced by a hash of its content, taken when the run ended or else now."""

    def content(path: Path) -> object:
        place = working_folder(run) / path
        return run.data.get(str(place)) or (sha256(place) if place.is_file() else path)

    return values.mapped(value, content)


def _distance(one: Any, other: Any) -> Distance:
    """How far apart the numbers in two values of the same form are: absolute, and relative to the first."""
    before, after = dict(_numbers(one)), dict(_numbers(other))
    if not before or before.keys() != after.keys():
        return None, None
    pairs = [(n, after[place]) for place, n in before.items()]
    absolute = [0.0 if n == m or (math.isnan(n) and math.isnan(m)) else abs(n - m) for n, m in pairs]
    relative = [apart and (apart / abs(n) if n else math.inf) for apart, (n, _) in zip(absolute, pairs, strict=True)]
    return max(absolute), max(relative)


def _numbers(value: Any, place: tuple[object, ...] = ()) -> Iterator[tuple[object, Any]]:
    """The numbers in a value, each with its place."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(item, (*place, key))


def _compared_figures(one: notebooks.Figure | None, other: notebooks.Figure | None) -> Row:
    import numpy as np
    from PIL import ImageChops

    pictures = [_picture(figure) for figure in (one, other)]
    sizes = [f"{picture.width} x {picture.height}" if picture else "" for picture in pictures]
    if None in pictures:
        return *sizes, bool(one and other and one.png == other.png), None, None
    whole = (0, 0, *np.max([picture.size for picture in pictures], axis=0))
    apart = np.asarray(ImageChops.difference(*(picture.crop(whole) for picture in pictures)))
    share = float(apart.any(axis=2).mean())
    return *sizes, share == 0, float(apart.mean()) / 255, share


def _picture(figure: notebooks.Figure | None) -> Any:
    """A PNG or JPEG with its opacity; None for any other picture."""
    from PIL import Image

    with contextlib.suppress(OSError, ValueError):
        return figure and Image.open(io.BytesIO(figure.png)).convert("RGBA")
    return None


def reproduce(folder: str | Path, settings: Settings | None = None) -> Comparison:
    """Run a crate again, from the notebooks and the parameters that it holds, and compare the results.

    Each notebook runs in the working folder that its run had, if that still exists, with the packages that are
    installed now. In a pipeline, a notebook gets the new results of those before it.

    Parameters
    ----------
    folder : str or Path
        The folder of a run or of a pipeline.
    settings : Settings, optional
        Settings to run with. Default: ``Settings.load()``.

    Returns
    -------
    Comparison
        A card with the recorded runs (a) and the new ones (b); ``.table`` has a row for each state, output and figure,
        ``.equal`` says whether all are equal.

    Raises
    ------
    NotFound
        The folder is not an RO-Crate.
    GenokitError
        The crate holds no run, or a notebook or an input file has changed since; nothing was run.

    Examples
    --------
    >>> import nbformat, tempfile
    >>> from genokit import run
    >>> place = Path(tempfile.mkdtemp())
    >>> cells = [nbformat.v4.new_code_cell("import genokit; genokit.record('answer', 42)")]
    >>> nbformat.write(nbformat.v4.new_notebook(cells=cells), place / "think.ipynb")
    >>> settings = Settings(home=place / "kit")
    >>> again = reproduce(run(place / "think.ipynb", settings=settings, progress=False).path, settings)
    >>> again.equal, list(again.table["what"])
    (True, ['state', 'output answer'])
    """
    import genokit

    folder = Path(folder).expanduser().absolute()
    files = crate.verify(folder)
    changed = files["path"][(files["role"] == "used") & (files["state"] != "unchanged")]
    if len(changed):
        raise GenokitError(
            f"{folder} cannot be reproduced. These files have changed or are missing since that run: "
            f"{', '.join(changed)}. Restore them, or run the notebook again."
        )
    old, inputs, new = dict[str, Run](), dict[str, Mapping[str, Input]](), dict[str, Run]()
    if (folder / RECORD).is_file():
        old[folder.name] = Run.load(folder)
    for file in folder.glob("*.toml"):  # the folder of a pipeline has one
        todo = plan.read(file)
        old |= {name: Run.load(folder / name) for name in todo.needed if (folder / name / RECORD).is_file()}
        inputs |= {name: todo[name].inputs for name in old}
    for name, run in old.items():
        given = dict(run.parameters)
        for parameter, source in inputs.get(name, {}).items():
            with contextlib.suppress(GenokitError, KeyError):  # that notebook is not in the crate, or failed now
                if given.get(parameter) == source.value(old):
                    given[parameter] = source.value(new)
        cwd = next(place for place in (working_folder(run), run.path) if place.is_dir())
        try:
            new[name] = genokit.run(run.path / SOURCE, given, name=run.name, settings=settings, cwd=cwd)
        except NotebookFailed as error:
            new[name] = cast(Run, error.run)
    if not new:
        raise GenokitError(f"{folder} cannot be reproduced: it holds no run of a notebook.")
    found = _compared([(old[name], new[name]) for name in old])
    results = found.table["what"].str.contains("^(?:state|output|figure)")
    return replace(found, table=found.table[results].reset_index(drop=True))
