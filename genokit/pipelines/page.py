"""The report of a pipeline's run: one page with the figures first, then how it ran, each notebook, and provenance."""

from __future__ import annotations

import contextlib
import os
import platform

from genokit import display
from genokit.errors import GenokitError
from genokit.files import write_atomic
from genokit.pipelines import crate
from genokit.pipelines import folder as folders
from genokit.pipelines.report import PipelineRun, overview, picture, summary
from genokit.pipelines.secret_values import redacted


def write(ended: PipelineRun) -> None:
    """Write the report into the run's folder; its links are relative, so the folder can be moved."""
    pictures = []
    for name, run in ended.runs.items():
        for figure in run.figures:
            caption = f"{name}: {figure.heading}" if figure.heading else name
            pictures.append(display.image(figure.png, caption, caption=caption, scale=figure.scale))
    sections = [("Figures", display.stack(*pictures))] if pictures else []
    if not all(run.cached_from for run in ended.runs.values()):  # else it ended in less time than drawing takes
        sections.append(("How it ran", _drawn(ended)))
    sections.append(("Notebooks", overview(ended)))
    for name, (state, why) in ended.outcomes.items():
        one = ended.runs.get(name)
        shown = folders.card(one, seen_from=ended.path) if one else display.card("No run", {"Why": why}, status=state)
        sections.append((name, shown))
    sections.append(("Provenance", _provenance(ended)))
    lead = display.card("Run", [*summary(ended, seen_from=ended.path), ("Folder", ended.path.name)], status=ended.state)
    write_atomic(ended.report, redacted(display.page(ended.plan.title, sections, lead=lead)), private=True)


def _drawn(ended: PipelineRun) -> display.Html:
    """The graph and the timeline."""
    from genokit.plots.pipelines import graph, timeline

    table = ended.notebooks
    parts = {"Which notebook needs which": graph, "When each notebook waited (pale) and ran": timeline}
    return display.stack(*(picture(draw(table), words, caption=words) for words, draw in parts.items()))


def _provenance(ended: PipelineRun) -> display.Html:
    """Who ran what, when and where, every file with its hash, and how to check it."""
    rows: list[tuple[str, object]] = [("Crate", ended.path)]
    files: list[tuple[str, str, str, str]] = []
    for name, run in ended.runs.items():
        with contextlib.suppress(GenokitError, LookupError):  # a run that was interrupted may have no crate
            found = {entity["@id"]: entity for entity in crate.read(run.path)}
            action = found[f"#{run.path.name}"]
            agent, source = (found[action[member]["@id"]] for member in ("agent", "instrument"))
            if not files:
                identity = agent["@id"] if agent["@id"].startswith("https:") else ""
                rows += [
                    ("Run by", display.link(identity, f"{agent['name']} {identity}") if identity else agent["name"])
                ]
                commit = source["version"] if source["version"] != run.source_sha256 else "not in a git repository"
                rows += [("Start", run.started), ("Commit", commit)]
                count = len((run.path / crate.PACKAGES).read_text().splitlines())
                words = f"{count} packages with Python {run.versions['python']}"
                rows.append(("Environment", display.link((run.path / crate.PACKAGES).relative_to(ended.path), words)))
                rows.append(("Machine", f"{platform.platform()}, {os.cpu_count()} CPUs"))
            files += [(name, role, path, number) for path, role, number in crate.files(run.path) if role]
    how = [f"genokit verify {ended.path}     # is every file as recorded?"]
    how += [f"genokit reproduce {ended.path}  # run it again: are the results equal?"]
    table = display.table(files, columns=["notebook", "role", "file", "sha256"], most=1000)
    return display.stack(display.card("Provenance", rows, fold={"Files": table}), display.log("\n".join(how)))
