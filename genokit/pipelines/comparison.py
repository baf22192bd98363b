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
from genokit.pipelines import crate, plan, values
from genokit.pipelines import notebook as notebooks
from genokit.pipelines.folder import RECORD, SOURCE, Run
from genokit.pipelines.plan import Input

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ["what", "a", "b", "equal", "absolute", "relative"]
Row = tuple[str, object, object, bool, float | None, float | None]


@dataclass(frozen=True)
class Comparison:
    """Two runs, side by side.

    Attributes
    ----------
    a, b : Run
        The runs.
    table : DataFrame
        One row each for the state, every parameter, output and figure, and the code: what, a, b, equal, and how far
        apart they are. Of numbers: ``absolute``, and ``relative`` to the one of a, the largest of several. Of figures:
        ``absolute``, the mean difference of their pixels from 0 to 1, and ``relative``, the share of pixels that
        differ. Of files their contents are compared.
    """

    a: Run
    b: Run
    table: DataFrame = field(repr=False)

    def _repr_html_(self) -> str:
        differ = ", ".join(self.table["what"][~self.table["equal"]]) or "nothing"
        rows = [("a", self.a.path), ("b", self.b.path), ("Different", differ)]
        pictures = [
            [display.image(one.png, one.heading or "figure", scale=one.scale) if one else None for one in pair]
            for pair in zip_longest(self.a.figures, self.b.figures)
        ]
        fold = {"All": display.table(self.table), "Figures": display.table(pictures, columns=["a", "b"])}
        return display.card(f"{self.a.name} and {self.b.name}", rows, fold=fold)


def compare(a: Run, b: Run) -> Comparison:
    """Compare the parameters, outputs, code and figures of two runs, and say how far apart they are.

    Parameters
    ----------
    a, b : Run
        The runs; ``Run.load(path)`` gives one by its folder.

    Returns
    -------
    Comparison
        A card; ``.table`` is a DataFrame.

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
    from genokit.frames import Frame

    rows: list[Row] = [("state", a.state, b.state, a.state == b.state, None, None)]
    for kind, one, other in (("parameter", a.parameters, b.parameters), ("output", a.outputs, b.outputs)):
        for name in {**one, **other}:
            rows.append(_values(f"{kind} {name}", one.get(name), other.get(name), (a, b)))
    code = [[notebooks.text(cell) for cell in notebooks.executed(notebooks.load(run.notebook))] for run in (a, b)]
    said = [f"{len(cells)} cells" for cells in code]
    rows.append(("code", said[0], said[1], code[0] == code[1], None, None))
    for number, pair in enumerate(zip_longest(a.figures, b.figures), 1):
        rows.append(_figures(f"figure {number}", *pair))
    return Comparison(a, b, Frame(rows, columns=COLUMNS).astype({"absolute": float, "relative": float}))


def _values(what: str, one: Any, other: Any, runs: tuple[Run, Run]) -> Row:
    contents = [_content(value, run) for value, run in zip((one, other), runs, strict=True)]
    same = contents[0] == contents[1] or values.source(contents[0]) == values.source(contents[1])  # NaN is not itself
    distances = list(_distances(*contents))
    absolute, relative = (max((one[i] for one in distances), default=None) for i in (0, 1))
    return what, one, other, same, absolute, relative


def _content(value: Any, run: Run) -> Any:
    """A value, with each file in it as the hash of its content when the run ended, or now."""
    if isinstance(value, list | tuple):
        return [_content(one, run) for one in value]
    if isinstance(value, dict):
        return {key: _content(one, run) for key, one in value.items()}
    if not isinstance(value, Path):
        return value
    path = run.source.parent / value
    return run.data.get(str(path)) or (sha256(path) if path.is_file() else value)


def _distances(one: Any, other: Any) -> Iterator[tuple[float, float]]:
    """How far apart the numbers in two values of the same form are: absolute, and relative to the first."""
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other)]
    if all(numbers):
        apart = 0.0 if one == other or (one != one and other != other) else abs(one - other)
        yield apart, apart / abs(one) if one and apart else math.inf if apart else 0.0
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for pair in zip(one, other, strict=True):
            yield from _distances(*pair)
    elif isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key, value in one.items():
            yield from _distances(value, other[key])


def _figures(what: str, one: notebooks.Figure | None, other: notebooks.Figure | None) -> Row:
    import numpy as np

    pixels = [_pixels(figure) for figure in (one, other)]
    sizes = ["" if one is None else f"{one.shape[1]} x {one.shape[0]}" for one in pixels]
    same = one is not None and other is not None and one.png == other.png
    if pixels[0] is None or pixels[1] is None:
        return what, sizes[0], sizes[1], same, None, None
    paper = np.zeros((2, *np.max([picture.shape for picture in pixels], axis=0)))  # around the smaller one
    for sheet, picture in zip(paper, pixels, strict=True):
        sheet[: picture.shape[0], : picture.shape[1]] = picture
    apart = abs(paper[0] - paper[1])
    relative = float((apart > 0).any(axis=2).mean())
    return what, sizes[0], sizes[1], relative == 0, float(apart.mean()), relative


def _pixels(figure: notebooks.Figure | None) -> Any:
    """The pixels of a PNG or JPEG with their opacity, from 0 to 1; None for any other picture."""
    import numpy as np
    from PIL import Image

    with contextlib.suppress(OSError, ValueError):
        if figure:
            with Image.open(io.BytesIO(figure.png)) as picture:
                return np.asarray(picture.convert("RGBA"), dtype=float) / 255
    return None


@dataclass(frozen=True)
class Reproduction:
    """A crate that was run again.

    Attributes
    ----------
    path : Path
        The crate's folder.
    comparisons : list of Comparison
        The recorded run (a) and the new one (b), for each notebook.
    packages : list of str
        Installed packages that differ: "- numpy==2.0" then, "+ numpy==2.1" now.
    """

    path: Path
    comparisons: list[Comparison]
    packages: list[str]

    @property
    def table(self) -> DataFrame:
        """One row per result: notebook, and the columns of a comparison."""
        import pandas as pd

        tables = [one.table.assign(notebook=one.a.name) for one in self.comparisons]
        whole = pd.concat(tables, ignore_index=True)[["notebook", *COLUMNS]]
        results = whole["what"].str.contains("^(?:state|output|figure)")
        return whole[results].reset_index(drop=True)

    @property
    def equal(self) -> bool:
        """Whether every result is equal."""
        return bool(self.table["equal"].all())

    def __repr__(self) -> str:
        table = self.table
        return f"<Reproduction of {self.path.name}: {table['equal'].sum()} of {len(table)} results are equal>"

    def _repr_html_(self) -> str:
        table = self.table
        rows: list[tuple[str, object]] = [("Crate", self.path)]
        rows.append(("Equal", f"{table['equal'].sum()} of {len(table)} results"))
        rows.append(("Packages", f"{len(self.packages)} lines differ" if self.packages else "the same"))
        fold: dict[str, object] = {"Results": display.table(table, most=500)}
        if self.packages:
            fold["Packages that differ"] = display.log("\n".join(self.packages))
        fold |= {f"{one.a.name} side by side": display.Html(one._repr_html_()) for one in self.comparisons}
        return display.card("Reproduction", rows, status="verified" if self.equal else "mismatch", fold=fold)


def reproduce(folder: str | Path, settings: Settings | None = None) -> Reproduction:
    """Run a crate again, from the notebooks and the parameters that it holds, and compare the results.

    The notebooks run in their own folders, if these still exist, with the packages that are installed now. In a
    pipeline, results that one notebook passed to another are passed anew.

    Parameters
    ----------
    folder : str or Path
        The folder of a run or of a pipeline.
    settings : Settings, optional
        Settings to run with. Default: ``Settings.load()``.

    Returns
    -------
    Reproduction
        A card; ``.table`` is a DataFrame, ``.equal`` says whether all results are equal.

    Raises
    ------
    NotFound
        The folder is no crate.
    GenokitError
        The crate has no run, or a notebook or an input has changed since; nothing was run.

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
    folder = Path(folder).expanduser().absolute()
    files = crate.verify(folder)
    changed = files["path"][(files["role"] == "used") & (files["state"] != "unchanged")]
    if len(changed):
        raise GenokitError(f"{folder} cannot be reproduced: {', '.join(changed)} changed or is missing since that run.")
    settings, old, inputs = settings or Settings.load(), dict[str, Run](), dict[str, Mapping[str, Input]]()
    if (folder / RECORD).is_file():
        old[folder.name] = Run.load(folder)
    else:
        todo = plan.read(folder / crate.workflow(folder))
        old = {name: Run.load(folder / name) for name in todo.needed if (folder / name / RECORD).is_file()}
        inputs = {name: todo[name].inputs for name in old}
    new, comparisons = dict[str, Run](), []
    for name, run in old.items():
        new[name] = _again(run, _passed(run, inputs.get(name, {}), old, new), settings)
        comparisons.append(compare(run, new[name]))
    if not comparisons:
        raise GenokitError(f"{folder} cannot be reproduced: no notebook has run.")
    return Reproduction(folder, comparisons, _packages(next(iter(old.values()))))


def _passed(run: Run, inputs: Mapping[str, Input], old: Mapping[str, Run], new: Mapping[str, Run]) -> dict[str, Any]:
    """The parameters of a run, with the new results of other notebooks where it was given their old ones."""
    given = dict(run.parameters)
    for parameter, (names, output, several) in inputs.items():
        pairs = [[runs[name].outputs.get(output) for name in names if name in runs] for runs in (old, new)]
        before, after = pairs if several else [values[0] if values else None for values in pairs]
        if given.get(parameter) == before and after is not None:
            given[parameter] = after
    return given


def _again(run: Run, parameters: Mapping[str, Any], settings: Settings) -> Run:
    """A new run of the notebook that a run has stored, in the folder of that notebook."""
    import genokit

    cwd = run.source.parent if run.source.parent.is_dir() else run.path
    try:
        again = genokit.run(run.path / SOURCE, parameters, name=run.name, settings=settings, cwd=cwd)
    except NotebookFailed as error:
        again = cast(Run, error.run)
    return replace(again, source=run.source)


def _packages(run: Run) -> list[str]:
    then, now = (run.path / crate.PACKAGES).read_text().splitlines(), crate.packages().splitlines()
    both = sorted({*then} ^ {*now}, key=lambda line: (line.partition("==")[0].casefold(), line in now))
    return [f"{'+' if line in now else '-'} {line}" for line in both]
