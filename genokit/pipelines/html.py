"""An executed notebook as one HTML file that needs no network: nbconvert's page, without what it would load."""

from __future__ import annotations

from typing import Any

# JupyterLab's look, dark where the reader's system is. The blocks left empty would fetch scripts and run them.
_TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
{{ resources.include_css("static/theme-dark.css")
   | replace("<style", "<style media='screen and (prefers-color-scheme: dark)'") }}
<style>body.jp-Notebook {max-width: 60rem; margin: 0 auto} .jp-OutputArea-output img {max-width: 100%}</style>
{%- endblock -%}
"""

# A static page shows no widget and runs no script.
_KINDS = [
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "text/latex",
    "image/png",
    "image/jpeg",
    "text/plain",
]


def export(node: Any, title: str) -> str:
    """The notebook as an HTML document; formulas stay as they are written."""
    from nbconvert.exporters import HTMLExporter
    from traitlets.config import Config

    config = Config({"NbConvertBase": {"display_data_priority": _KINDS}})
    exporter = HTMLExporter(config=config, raw_template=_TEMPLATE, embed_images=True)
    body, _ = exporter.from_notebook_node(node, resources={"metadata": {"name": title}})
    return str(body)
