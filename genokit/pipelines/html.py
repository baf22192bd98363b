"""An executed notebook as one HTML file that needs no network: nbconvert's page, without what it would load."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from genokit.pipelines import notebook as notebooks

# A static page shows no widget and runs no script.
_KINDS = ["text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain"]
_WIDGET = "application/vnd.jupyter.widget-view+json"


def export(node: Any, title: str) -> str:
    """The notebook as an HTML document, right in light and dark; formulas stay as they are written."""
    from nbconvert.exporters import HTMLExporter
    from traitlets.config import Config

    template = Path(__file__).with_name("notebook.html.j2").read_text(encoding="utf-8")
    node = copy.deepcopy(node)
    node.metadata.pop("widgets", None)
    for cell in node.cells:
        if cell.cell_type == "code":  # without its script a progress bar would stand at 0% for ever
            cell.outputs = [output for output in cell.outputs if _WIDGET not in (output.get("data") or {})]
    config = Config({"NbConvertBase": {"display_data_priority": _KINDS}})
    exporter = HTMLExporter(config=config, log=notebooks.quiet, raw_template=template, embed_images=True)
    body, _ = exporter.from_notebook_node(node, resources={"metadata": {"name": title}})
    return str(body)
