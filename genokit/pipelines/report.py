"""A run of a pipeline: its card, its table, its graph, and its folder with a report and a crate."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import __version__, display
from genokit.files import sha256, write_atomic
from genokit.pipelines import crate, lab
from genokit.pipelines.folders import Run, card, shown_outputs
from genokit.pipelines.plan import Plan
from genokit.pipelines.secret_values import redacted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

COLUMNS = ["notebook", "group", "file", "needs", "state", "restored", "ready", "started", "ended", "duration_s"]


@dataclass
class PipelineRun:
    """One run of a pipeline.

    Attributes
    ----------
    path : Path
        Its folder: the report and one run folder per notebook.
    plan : Plan
        The pipeline's file, with the parameters that were used.
    runs : dict of str to Run
        The runs by name of their notebook.
    problems : dict of str to tuple of str
        State and reason of the notebooks that have no run.
    duration_s : float
        Duration in seconds.
    earlier : dict of str to Run
        The last runs of notebooks that these ones need and that were not run again.
    """

    path: Path
    plan: Plan
    runs: dict[str, Run] = field(default_factory=dict)
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)
    duration_s: float = 0.0
    earlier: dict[str, Run] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """SUCCEEDED if every notebook succeeded, else FAILED."""
        return "SUCCEEDED" if {state for state, _ in self.outcomes.values()} == {"SUCCEEDED"} else "FAILED"

    @property
    def outcomes(self) -> dict[str, tuple[str, str]]:
        """State and reason of every notebook, in the pipeline's order; NOT_RUN if one that it needs failed."""
        ran = {name: (run.state, run.error or "") for name, run in dict(self.runs).items()}  # threads add to it
        never = ("NOT_RUN", "the pipeline was interrupted")
        return {step.name: (ran | self.problems).get(step.name, never) for step in self.plan.steps}

    @property
    def done(self) -> str:
        """How many notebooks succeeded, out of how many."""
        return f"{sum(state == 'SUCCEEDED' for state, _ in self.outcomes.values())} of {len(self.plan.steps)}"

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """What the notebooks recorded, by notebook and name."""
        return {name: dict(run.outputs) for name, run in self.runs.items()}

    @property
    def notebooks(self) -> DataFrame:
        """One row per notebook: notebook, group, file, needs, state, restored; ready, started, ended (UTC), duration_s.

        It was ready when the last of those that it needs had ended.
        """
        from genokit.frames import Frame

        begun = min((run.started for run in self.runs.values()), default=None)
        rows: list[tuple[object, ...]] = []
        for name, run in self.earlier.items():
            rows.append((name, name, run.source.name, [], run.state, True, *[None] * 4))
        for step in self.plan.steps:
            its = self.runs.get(step.name)
            before = [one.ended for need in step.needs if (one := self.runs.get(need)) and one.ended]
            what = (step.name, step.group, step.path.name, step.needs, self.outcomes[step.name][0])
            times = (its.started, its.ended, its.duration_s) if its else [None] * 3
            rows.append((*what, bool(its and its.cached_from), max(before, default=begun), *times))
        return Frame(rows, columns=COLUMNS)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the notebooks with what they need, their states and durations."""
        from genokit.plots.pipelines import graph

        return graph(self.notebooks, title=self.plan.title, ax=ax)

    @property
    def report(self) -> Path:
        """The page about this run: figures first, then each notebook."""
        return self.path / "report.html"

    def __repr__(self) -> str:
        took = display.seconds(self.duration_s)
        return f"<PipelineRun {self.plan.name} {self.state}, {self.done} notebooks, {took}, {self.path}>"

    def _repr_html_(self) -> str:
        rows = [*_summary(self), ("Report", lab.link(self.report))]
        return display.card(f"Pipeline {self.plan.title}", rows, status=self.state, fold={"Notebooks": _overview(self)})


def _summary(ended: PipelineRun, *, seen_from: Path | None = None) -> list[tuple[str, object]]:
    """How it went, and what was recorded; its links are relative to the folder ``seen_from``."""
    rows: list[tuple[str, object]] = [("Notebooks", f"{ended.done} succeeded")]
    rows.append(("Time", display.seconds(ended.duration_s)))
    rows += [(name, why) for name, (state, why) in ended.outcomes.items() if state != "SUCCEEDED"]
    for name, run in ended.runs.items():
        rows += [(f"{name}.{key}", value) for key, value in shown_outputs(run, seen_from).items()]
    return rows


def _overview(ended: PipelineRun) -> display.Html:
    """A table of the notebooks, whose links are relative to the folder of the run."""
    rows = []
    for step in ended.plan.steps:
        run = ended.runs.get(step.name)
        took = ("restored" if run.cached_from else display.seconds(run.duration_s or 0)) if run else None
        file: object = step.path.name
        if run and run.html:
            file = display.link(run.html.relative_to(ended.path), step.path.name)
        rows.append((step.name, ended.outcomes[step.name][0], took, file, step.needs))
    return display.table(rows, columns=["notebook", "state", "time", "file", "after"])


def write(ended: PipelineRun) -> None:
    """Write the report, the pipeline's file and the crate into the run's folder, whose links are relative."""
    made = crate.Crate(ended.path)
    actions = {name: crate.described(made, run, ended.plan[name].inputs) for name, run in ended.runs.items()}
    pictures = []
    for name, run in ended.runs.items():
        for figure in run.figures:
            caption = f"{name}: {figure.heading}" if figure.heading else name
            pictures.append(display.image(figure.png, caption, caption=caption, scale=figure.scale))
    sections = [("Figures", display.stack(*pictures))] if pictures else []
    if not all(run.cached_from for run in ended.runs.values()):  # else it ended in less time than drawing takes
        sections.append(("How it ran", _drawn(ended)))
    sections.append(("Notebooks", _overview(ended)))
    for name, (state, why) in ended.outcomes.items():
        one = ended.runs.get(name)
        shown = card(one, seen_from=ended.path) if one else display.card("No run", {"Why": why}, status=state)
        sections.append((name, shown))
    sections.append(("Provenance", _provenance(ended, made, actions)))
    rows = [*_summary(ended, seen_from=ended.path), ("Folder", ended.path.name)]
    lead = display.card("Run", rows, status=ended.state)
    write_atomic(ended.report, redacted(display.page(ended.plan.title, sections, lead=lead)), private=True)
    write_atomic(ended.path / ended.plan.file.name, redacted(ended.plan.file.read_bytes()), private=True)
    _write_crate(ended, made, actions)


def _drawn(ended: PipelineRun) -> display.Html:
    """The graph and the timeline."""
    from genokit.plots.pipelines import graph, timeline

    table = ended.notebooks
    parts = {"Which notebook needs which": graph, "When each notebook waited (pale) and ran": timeline}
    return display.stack(*(display.drawn(draw(table), words, caption=words) for words, draw in parts.items()))


def _provenance(ended: PipelineRun, made: crate.Crate, actions: Mapping[str, crate.Reference]) -> display.Html:
    """Who ran what, when and where, every file with its hash, and how to check it."""
    rows: list[tuple[str, object]] = [("Crate", ended.path)]
    files: list[tuple[str, str, str, str]] = []
    others = [entity for entity in made.entities.values() if entity["@type"] != "CreateAction"]
    for name, run in ended.runs.items():
        action, packages = made.entities[actions[name]["@id"]], run.path / crate.PACKAGES
        if not files and packages.is_file():
            agent, source = (made.entities[action[member]["@id"]] for member in ("agent", "instrument"))
            who, orcid = agent["name"], agent["@id"]
            rows.append(("Run by", display.link(orcid, f"{who} {orcid}") if orcid.startswith("https:") else who))
            commit = source["version"] if source["version"] != run.source_sha256 else "not in a git repository"
            words = f"{len(packages.read_text().splitlines())} packages with Python {run.versions['python']}"
            rows += [("Start", run.started), ("Commit", commit)]
            rows.append(("Environment", display.link(packages.relative_to(ended.path), words)))
            rows.append(("Machine", f"{platform.platform()}, {os.cpu_count()} CPUs"))
        files += [(name, role, path, number) for path, role, number in crate.files([action, *others]) if role]
    how = [f"genokit verify {ended.path}     # is every file as recorded?"]
    how += [f"genokit reproduce {ended.path}  # run it again: are the results equal?"]
    table = display.table(files, columns=["notebook", "role", "file", "sha256"], most=1000)
    return display.stack(display.card("Provenance", rows, fold={"Files": table}), display.log("\n".join(how)))


def _write_crate(ended: PipelineRun, made: crate.Crate, actions: Mapping[str, crate.Reference]) -> None:
    """Describe a pipeline's folder with its runs: the file as a workflow, each notebook as one of its steps."""
    runs, kit = list(ended.runs.values()), crate.PACKAGE.format("genokit", __version__)
    controls, steps, tools = [], [], []
    for position, (name, action) in enumerate(actions.items(), 1):
        tools.append(made.entities[action["@id"]]["instrument"])
        steps.append(made.add(f"#step-{name}", "HowToStep", name=name, position=str(position), workExample=tools[-1]))
        control = {"name": f"Start {name}", "instrument": steps[-1], "object": action}
        controls.append(made.add(f"#control-{name}", "ControlAction", **control))
    main = made.file(
        ended.path / ended.plan.file.name,
        ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
        name=ended.plan.title,
        version=made.commit(ended.plan.file.parent) or sha256(ended.plan.file),
        programmingLanguage=made.add("#pipeline-file", "ComputerLanguage", name="genokit pipeline", url=kit),
        hasPart=tools,
        step=steps,
    )
    about = f"One run of the pipeline {ended.plan.title}: {ended.done} notebooks succeeded."
    bad = [f"{name} {state}: {why}" for name, (state, why) in ended.outcomes.items() if state != "SUCCEEDED"]
    whole = made.action(
        f"#{ended.path.name}",
        "; ".join(bad),
        name=f"Run of the pipeline {ended.plan.name}",
        description=about,
        instrument=main,
        result=made.file(ended.report),
        startTime=min((run.started for run in runs), default=None),
        endTime=max((run.ended for run in runs if run.ended), default=None),
    )
    engine = made.add(kit, "SoftwareApplication", name="genokit", version=__version__, url=kit)
    made.add("#engine", "OrganizeAction", name="Run notebooks", instrument=engine, object=controls, result=whole)
    profiles = [*(crate.PROFILE.format(one) for one in ("process", "workflow", "provenance")), crate.WORKFLOW_PROFILE]
    done = [whole, *actions.values()]
    made.save(runs, profiles, f"Pipeline {ended.plan.name}", about, mainEntity=main, mentions=done)
