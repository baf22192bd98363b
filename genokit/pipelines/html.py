"""An executed notebook as one inert HTML file: nbconvert's page without anything that loads or runs."""

from __future__ import annotations

import copy
import functools
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import display
from genokit.pipelines import notebooks

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

# A static page shows no widgets and runs no scripts.
_KINDS = ["text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain"]
_WIDGET = "application/vnd.jupyter.widget-view+json"
_ONE_AT_A_TIME = threading.Lock()
_LONG = 100_000  # characters; the time for nbconvert's colours grows with the square
# Elements that run or load something, or whose content parsers disagree about.
_OUT = re.compile(
    "script|i?frame|frameset|object|embed|applet|portal|base|link|form|template|noscript|noembed|noframes|xmp|plaintext"
    "|textarea|listing|title|meta|math|video|audio|source|track|foreignobject|set|animate.*",
    re.IGNORECASE,
)
_ACTS = re.compile("on.*|src(doc|set)|(form)?action|ping|background|poster|data|http-equiv|manifest", re.IGNORECASE)
_PICTURE = re.compile(r"data:image/[\w.+-]+[;,]", re.IGNORECASE)
_HARMLESS = re.compile(r"(?:https?:|mailto:|#|[^:]*$|[^:/?#]*[/?#])", re.IGNORECASE)


def export(node: Any, title: str) -> str:
    """The notebook as an HTML document for light and dark themes; formulas stay as written."""
    from bs4 import BeautifulSoup

    node = copy.deepcopy(node)
    node.metadata.pop("widgets", None)
    for cell in node.cells:
        if cell.cell_type == "code":  # without its script a progress bar would stay at 0%
            cell.outputs = [output for output in cell.outputs if _WIDGET not in (output.get("data") or {})]
            for output in cell.outputs:
                if len(output.get("text", "")) > _LONG:
                    output.text = display.plain(output.text)
    with _ONE_AT_A_TIME:
        body, _ = exporter().from_notebook_node(node, resources={"metadata": {"name": title}, "policy": display.POLICY})
    soup: Any = BeautifulSoup(body, features="html.parser")
    head = soup.html.head.extract()
    _clean(soup)
    soup.html.insert(0, head)
    return str(soup)


@functools.cache
def exporter() -> Any:
    """nbconvert's exporter, made once: its templates take longer to compile than most notebooks to be exported."""
    from nbconvert.exporters import HTMLExporter
    from traitlets.config import Config

    template = Path(__file__).with_name("notebook.html.j2").read_text(encoding="utf-8")
    config = Config({"NbConvertBase": {"display_data_priority": _KINDS}})
    exporter = HTMLExporter(config=config, log=notebooks.quiet, raw_template=template, embed_images=True)
    exporter.register_filter("clean_html", lambda part: part)  # the whole page is cleaned later
    return exporter


def _clean(page: BeautifulSoup) -> None:
    """Remove everything from a page that runs, loads or redirects."""
    from bs4.element import Doctype, PreformattedString

    for text in page.find_all(string=lambda text: isinstance(text, PreformattedString)):
        if not isinstance(text, Doctype):
            text.extract()  # comments and the like: parsers disagree about where they end
    for element in page.find_all(True):
        if _OUT.fullmatch(element.name):
            element.extract()
            continue
        for name, value in list(element.attrs.items()):
            address, key = re.sub(r"[\x00-\x20]", "", str(value)), name.lower()
            if key in ("href", "xlink:href", "cite"):
                bad = not _HARMLESS.match(address) and not (element.name == "image" and _PICTURE.match(address))
            else:
                bad = bool(_ACTS.fullmatch(key)) or (key == "src" and not _PICTURE.match(address))
            if bad:
                del element[name]
        if element.name == "style":
            element.string = element.get_text().replace("<", "\\3c ")
