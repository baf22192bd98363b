"""``notebook.html``: a page about whatever a notebook shows, which loads and runs nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from genokit.pipelines import html

HOSTILE = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=https://evil.example/x.js></SCRIPT>",
    "<img src=x onerror=alert(1)>",
    "<p ONCLICK=alert(1)>p</p>",
    "<details open ontoggle=alert(1)>d</details>",
    '<a href="javascript:alert(1)">a</a>',
    '<a href=" java&#115;\tcript:alert(1)">a</a>',
    '<a href="vbscript:x">a</a>',
    '<a href="data:text/html,<script>alert(1)</script>">a</a>',
    '<iframe src="https://evil.example"></iframe>',
    '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    "<svg onload=alert(1)><script>alert(1)</script><a xlink:href='javascript:alert(1)'>a</a></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<svg><foreignObject><iframe src=x></iframe></foreignObject><animate onbegin=alert(1) attributeName=x></svg>",
    "<math><mi xlink:href='javascript:alert(1)'>m</mi></math>",
    "<object data=x></object><embed src=x><applet code=x></applet>",
    '<meta http-equiv="refresh" content="0;url=https://evil.example">',
    "<base href=https://evil.example>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<form action=https://evil.example><button formaction=javascript:alert(1)>b</button></form>",
    '<img src="https://evil.example/pixel.png"><img srcset="https://evil.example/pixel.png 1x">',
    "<video src=x poster=https://evil.example/x onerror=alert(1)></video>",
    "<!--><img src=x onerror=alert(1)>-->",
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>"></noscript>',
    "<template><script>alert(1)</script></template>",
    "<xmp><p title='</xmp><script>alert(1)</script>'></xmp>",
    "</div></body></html><script>alert(1)</script>",
]
ADDRESS = re.compile(r"(?i)[\x00-\x20]*(?:j|v|data:(?!image/)|[a-z]*script)")


class Page(HTMLParser):
    """What is in a page that could act."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.metas: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "meta":
            self.metas.append(given.get("http-equiv") or given.get("name") or "charset")
        acts = tag in ("script", "iframe", "object", "embed", "base", "link", "form", "template", "applet", "video")
        for name, value in attrs:
            acts = acts or name.startswith("on") or name in ("srcdoc", "srcset", "action", "formaction", "poster")
            acts = acts or (name == "src" and not str(value).startswith("data:image/"))
            acts = acts or (name in ("href", "xlink:href") and ADDRESS.match(str(value)) is not None)
        if acts:
            self.found.append(self.get_starttag_text() or tag)


def shown(kind: str, content: str) -> NotebookNode:
    return new_code_cell("1", outputs=[new_output("display_data", data={kind: content})])


@pytest.mark.parametrize("bad", HOSTILE)
def test_nothing_in_a_page_can_act_whatever_the_notebook_holds(bad: str) -> None:
    kinds = ("text/html", "text/markdown", "image/svg+xml", "text/latex", "text/plain", "image/png", "image/jpeg")
    cells = [new_markdown_cell(bad), new_raw_cell(bad, metadata={"raw_mimetype": "text/html"}), new_code_cell(bad)]
    cells += [shown(kind, bad) for kind in kinds]
    cells.append(
        new_code_cell("1", outputs=[new_output("stream", text=bad)], metadata={"tags": [f'">{bad}'.replace(",", "")]})
    )
    cells.append(new_markdown_cell("[a](javascript:alert(1)) ![b](https://evil.example/pixel.png)"))
    page = html.export(new_notebook(cells=cells, metadata={"title": f"</title>{bad}"}), f"</title>{bad}")
    assert Page(page).found == []
    assert Page(page).metas == ["Content-Security-Policy", "charset", "viewport"]
    head = page.partition("</head>")[0]
    assert head.index("Content-Security-Policy") < head.index("<title")
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in head


def test_figures_tables_links_and_styles_still_show() -> None:
    svg = '<svg viewBox="0 0 9 9"><defs><path id="a" d="M0 0"/></defs><use href="#a"/></svg>'
    parts = [
        '<img alt="reads" class="gk-image" src="data:image/png;base64,iVBORw0KGgo=" width="9"/>',
        '<style>.t > td { color: red }</style><table class="t" style="width: 9em"><tr><td>1 &lt; 2</td></tr></table>',
        '<a href="../other.html#x">there</a><a href="https://example.org/a?b=c:d">away</a><a href="#here">here</a>',
    ]
    page = html.export(new_notebook(cells=[shown("text/html", part) for part in [*parts, svg]]), "x")
    for part in parts:
        assert part in page
    assert re.search(r'<svg viewbox="0 0 9 9"><defs><path d="M0 0" id="a">', page, re.IGNORECASE)
    picture = html.export(new_notebook(cells=[shown("image/svg+xml", svg), shown("image/jpeg", "/9j/4AA=")]), "x")
    assert 'src="data:image/svg+xml;base64,' in picture
    assert 'src="data:image/jpeg;base64,/9j/4AA="' in picture


def test_long_coloured_output_is_exported_quickly() -> None:
    text = "".join(f"\x1b[3{i % 8}m{i}\x1b[0m\n" for i in range(100_000))
    page = html.export(new_notebook(cells=[new_code_cell("1", outputs=[new_output("stream", text=text)])]), "x")
    assert "\n99999\n" in page
    assert "\x1b" not in page
