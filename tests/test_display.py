"""What is shown: whatever it is called, it is escaped, well-formed and readable without colour.

To hold a noun of another room to the same, add a line to NOUNS: it makes one of a hostile text and a folder.
"""

from __future__ import annotations

import datetime
import re
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from genokit import display, live
from genokit.batch import resources
from genokit.batch.diagnose.explain import Explanation
from genokit.batch.diagnose.findings import Finding, Findings
from genokit.config import Settings
from genokit.display import Html, Log
from genokit.doctor import HealthCheck, HealthReport
from genokit.errors import GenokitError
from genokit.omop import Source, Vocabulary
from genokit.omop.cdm import Cdm
from genokit.omop.concepts import Concept, ConceptSet
from genokit.omop.quality.quality import Quality
from genokit.omop.queries import Query
from genokit.stacks import Change, Changes

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": "\" onerror='alert(1)' x=\"",
    "closing tags": "</td></table></style></pre></div>-->]]>",
    "entities": "&lt;b&gt; &amp;amp; &#0; &nosuch;",
    "control characters": "a\x00b\x07c\x1b[31mred\x1b[0m\x7f\x9b",
    "half a surrogate pair": "\ud800 and \udfff and \ufffe",
    "right to left": "\u202egpj.exe\u202c שלום",
    "new lines": "one\ntwo\r\nthree\rfour",
    "long": "x" * 5000,
    "braces": "{0} {{}} %s $HOME `id`",
    "empty": "",
}

NOUNS: dict[str, Callable[[str, Path], object]] = {
    "Log": lambda text, folder: Log(text),
    "Settings": lambda text, folder: Settings(home=folder, profile=text, mirrors=[text]),
    "ComputeEnvironment": lambda text, folder: environment(text),
    "JobQueue": lambda text, folder: resources.JobQueue(text, text, text, text, text, 1, text, (environment(text),)),
    "Explanation": lambda text, folder: Explanation(
        text, text, text, text, False, (Finding(text, text, text, "likely"),), (text,), (text,), (text,), text
    ),
    "Finding": lambda text, folder: Finding(text, text, text, about=text),
    "Findings": lambda text, folder: Findings([Finding(text, about=text)]),
    "Changes": lambda text, folder: Changes(text, (Change("replace", text, text, (text,)),)),
    "Source": lambda text, folder: Source(text),
    "Vocabulary": lambda text, folder: Vocabulary({"concept": Path(text, text)}),
    "Quality": lambda text, folder: Quality(checked(text)),
    "Cdm": lambda text, folder: Cdm(text),
    "Query": lambda text, folder: Query(text, (text,), 1, True, 1.0, 1, 0.1),
    "Concept": lambda text, folder: concept_of(text),
    "ConceptSet": lambda text, folder: ConceptSet(text).include(concept_of(text)).exclude(concept_of("other")),
    "doctor's report": lambda text, _: HealthReport((HealthCheck(text, "warning", text, text),), Settings(region=text)),
}

PIECES: dict[str, Callable[[str], Html]] = {
    "card": lambda text: display.card(text, {text: [text]}, status=text, fold={text: text, "rows": {text: text}}),
    "table of a frame": lambda text: display.table(frame_of(text)),
    "table of dicts": lambda text: display.table([{text: text}, {"other": text}]),
    "table of tuples": lambda text: display.table([(text, 1), (text, None)], columns=[text, "n"]),
    "log": lambda text: display.log(text),
    "image": lambda text: display.image(png(2, 1), text, caption=text),
    "link": lambda text: display.stack(display.link(text, text), display.link("https://x.org/" + text, text)),
    "noted": lambda text: display.stack(display.noted(text, text)),
    "bars": lambda text: live.view(live.panel(text, live.bars([(text, [1, 2])], [text, text]))),
    "grid": lambda text: live.view(live.grid([text], [(text,)])),
    "columns": lambda text: live.view(live.columns([1, 0, 2], [(0, text), (1, text)], text)),
    "download": lambda text: live.view(live.title(text), live.download(text, text, text)),
    "page": lambda text: display.page(text, [(text, display.log(text))] * 3, lead=text),
}  # fmt: skip


def environment(text: str) -> resources.ComputeEnvironment:
    texts = dict.fromkeys(("name", "arn", "type", "state", "status", "reason", "cluster"), text)
    numbers = {"min_vcpus": 0, "desired_vcpus": None, "max_vcpus": 2.5, "spot": False, "capacity": None}
    return resources.ComputeEnvironment(**texts, **numbers, instance_types=(text,), only_image=text)


def concept_of(text: str) -> Concept:
    return Concept(1, text, text, text, text, text, text, text)


def checked(text: str) -> pd.DataFrame:
    """The results of one check that failed, whatever the table is called."""
    text = text.encode(errors="replace").decode()  # pandas groups by texts of its own
    names = ("check_name", "cdm_table_name", "cdm_field_name", "concept_id", "severity", "category")
    numbers = {"num_violated_rows": 1, "num_denominator_rows": 2, "pct_violated_rows": 0.5, "threshold_value": 0}
    counts = {"passed": 0, "failed": 1, "not_applicable": 0}
    return pd.DataFrame([dict.fromkeys(names, text) | numbers | counts], dtype=object)


def parsed(html: str) -> ElementTree.Element:
    """The HTML read by a strict parser, with nothing in it that could run."""
    html.encode()
    tree = ElementTree.fromstring(html if html.startswith("<!DOCTYPE") else f"<root>{html}</root>")
    for element in tree.iter():
        assert element.tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert name not in ("href", "src") or re.match(
                r"(#|https?:|file:|data:image/png|data:text/csv;base64,|[^:]*$)", value
            )
    return tree


def frame_of(text: str) -> pd.DataFrame:
    # As objects: pandas' own texts cannot hold half a surrogate pair.
    return pd.DataFrame(
        [[text, text], [None, "FAILED"]], columns=pd.Index([text, "status"], dtype=object), dtype=object
    )


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\x00" + b"\xff" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("make", NOUNS.values(), ids=NOUNS)
def test_a_noun_of_any_name_shows_itself(make, text, tmp_path):
    noun = make(text, tmp_path)
    str(noun)
    assert isinstance(noun, Log) or "\n" not in repr(noun)
    parsed(noun._repr_html_())


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("make", PIECES.values(), ids=PIECES)
def test_a_piece_made_of_any_text_is_well_formed_and_inert(make, text):
    parsed(make(text))


def test_text_comes_out_as_it_went_in():
    for text in (HOSTILE["script"], HOSTILE["entities"], HOSTILE["closing tags"], HOSTILE["braces"]):
        assert text in "".join(parsed(display.card("t", {"name": text})).itertext())
        assert text in "".join(parsed(display.log(text)).itertext())


def test_html_made_here_nests_without_a_second_escape_or_a_second_style():
    inner = display.table([{"a": 1}])
    for whole in (display.card("t", {"x": inner}, fold={"more": inner}), display.stack(inner, inner)):
        assert whole.count("<style>") == 1
        assert whole.count('gk-table">') == 2
    assert display.page("t", [("s", inner)]).count("<style>") == 1


def test_text_joined_to_html_is_not_taken_for_safe():
    joined = Html("<b>safe</b>") + "<i>not</i>"
    assert "&lt;i&gt;" in display.stack(joined)


def test_a_status_is_a_word_and_a_sign_never_a_colour_alone():
    for word in ("SUCCEEDED", "FAILED", "RUNNING", "RUNNABLE", "KERNEL_DIED", "EXITED_EARLY", "ok", "problem"):
        shown = "".join(parsed(display.pill(word)).itertext())
        assert re.fullmatch(rf"[✓✕!●○] {word}", shown)
    signs = {display.pill(word)[-20:] for word in ("FAILED", "SUCCEEDED", "RUNNING")}
    assert len(signs) == 3


def test_a_table_says_how_much_it_left_out():
    shown = display.table(pd.DataFrame({"n": range(1234)}), most=7)
    assert "The first 7 of 1,234 rows." in shown
    assert len(parsed(shown).findall(".//tbody/tr")) == 7
    assert "No rows." in display.table([])
    assert "No rows." in display.table(pd.DataFrame({"n": []}))


def cells(html: str) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in parsed(html).findall(".//tr")]


def test_numbers_are_short_and_missing_ones_a_dash():
    frame = pd.DataFrame(
        {"x": [0.98, 0.987, np.nan], "n": [1, 60000, 7], "big": [1e9, 2.5, np.inf], "who": ["a", None, pd.NA]}
    )
    assert cells(display.table(frame)) == [
        ["x", "n", "big", "who"],
        ["0.98", "1", "1e+09", "a"],
        ["0.987", "60000", "2.5", "–"],
        ["–", "7", "inf", "–"],
    ]


def test_an_index_that_is_more_than_counting_is_shown():
    frame = pd.DataFrame({"n": [1, 2]}, index=pd.Index(["a", "b"], name="name"))
    assert cells(display.table(frame)) == [["name", "n"], ["a", "1"], ["b", "2"]]
    assert cells(display.table(frame.T))[0] == ["index", "a", "b"]


def test_rows_with_holes_and_chosen_columns_make_a_table():
    assert cells(display.table([{"a": 1}, {"b": 2}])) == [["a", "b"], ["1", "–"], ["–", "2"]]
    assert cells(display.table([{"a": 1, "b": 2}], columns=["b"])) == [["b"], ["2"]]
    assert cells(display.table([(1, 2)], columns=["a", "b"])) == [["a", "b"], ["1", "2"]]


def test_values_are_shown_for_people():
    rows = {
        "when": datetime.datetime(2026, 11, 22, 13, 4, 5, 999),
        "there": datetime.datetime(2026, 11, 22, 13, 4, 5, tzinfo=datetime.UTC),
        "long": datetime.timedelta(seconds=131),
        "loss": np.float32(0.1) + 0,
        "none": None,
        "nan": float("nan"),
        "yes": True,
        "list": ["a", 1],
        "dict": {"a": 1},
    }
    shown = dict(cells(display.card("t", rows)))
    assert shown == {
        "when": "2026-11-22 13:04:05",
        "there": "2026-11-22 13:04:05 UTC",
        "long": "2 min 11 s",
        "loss": "0.1",
        "none": "–",
        "nan": "–",
        "yes": "True",
        "list": "a, 1",
        "dict": "a = 1",
    }


def test_a_log_is_plain_in_a_terminal_and_a_block_in_a_notebook():
    log = Log("0%\r100%\n\x1b[1;32mdone\x1b[0m\n")
    assert repr(log) == str(log)
    assert "".join(parsed(log._repr_html_()).find(".//pre").itertext()) == "100%\ndone\n"


def test_no_text_commands_a_terminal_and_long_ones_take_linear_time():
    for sequence in (
        *("\x1b]52;c;eA==\x07", "\x1b]0;title\x1b\\", "\x9d52;c;eA==\x9c", "\x1b[2J", "\x9b2J", "\x1bP1$r\x1b\\"),
        *("\x1b_x\x1b\\", "\x1b^x\x1b\\", "\x1bXx\x1b\\", "\x1b(0", "\x1bc", "\x1b[?1049h"),
    ):
        assert display.plain(f"a{sequence}b") == "ab"
    assert display.plain("a\x1b]52;c;eA==") == "a52;c;eA=="  # never ended
    assert display.plain("a\x08\x07\x1b\tb\n") == "a␈␇␛\tb\n"
    assert str(GenokitError("no queue 'a\x1b[2Jb'")) == "no queue 'ab'"
    for turned in "\u202a\u202b\u202d\u202e\u2066\u2067\u2068":  # shows what follows in another order
        assert display.plain(f"not {turned}approved") == display.escape(f"not {turned}approved") == "not \ufffdapproved"
    began = time.process_time()
    for start in ("\x1b]", "\x90", "\x1b[", "\x9d", "\x1b", "\x9b", "\x1b "):
        display.plain(start * 200_000)
    assert time.process_time() - began < 5


def test_a_link_leads_to_pages_and_files_only():
    assert 'href="runs/a.html"' in display.link("runs/a.html", "a")
    assert 'href="https://x.org/?a=1&amp;b=2"' in display.link("https://x.org/?a=1&b=2", "a")
    assert 'href="/runs/a%20%23%3A1.html"' in display.link(Path("/runs/a #:1.html"), "a")
    for address in (
        "javascript:alert(1)",
        " JavaScript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "java\nscript:alert(1)",
        "\x01javascript:x",
    ):
        assert "href" not in display.link(address, "a")


def test_a_figure_is_an_image_of_its_own_size_and_the_same_each_time():
    fig = Figure(figsize=(4, 2))
    fig.subplots().plot([1, 2, 3])
    with mpl.rc_context({"savefig.dpi": 300}):
        first = display.figure(fig, "a line")
    assert first == display.figure(fig, "a line")
    image = parsed(first).find(".//img")
    assert image.get("alt") == "a line"
    assert 250 < int(image.get("width")) < 500


def test_a_page_is_whole_loads_nothing_and_leads_to_its_sections():
    page = display.page("Title", [(name, display.stack(name)) for name in "abc"], lead="What it is.")
    tree = parsed(page)
    assert tree.find("head/title").text == "Title"
    assert [a.get("href") for a in tree.findall(".//nav//a")] == ["#s1", "#s2", "#s3"]
    assert [section.get("id") for section in tree.findall(".//section")] == ["s1", "s2", "s3"]
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"url\(|@import|<link|http://", page)
    assert "default-src 'none'" in page


def test_a_page_opens_with_a_sentence_or_with_a_card():
    assert '<p class="gk-lead">1 &lt; 2</p>' in display.page("t", [], lead="1 < 2")
    assert parsed(display.page("t", [], lead=display.card("c", {}))).find(".//header//strong").text == "c"


def test_the_shape_of_html_needs_neither_pandas_nor_matplotlib():
    import subprocess

    code = (
        "import sys; from genokit import display as d; d.card('t', {'a': 1}); d.table([{'a': 1.5}]); d.page('t', []); "
    )
    code += "print([m for m in ('pandas', 'numpy', 'matplotlib', 'IPython') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout == "[]\n", done.stderr


def test_a_table_of_jobs_shows_reasons_whole_where_pandas_would_cut_them():
    import pandas as pd

    from genokit.frames import Frame

    reason = "Host EC2 (instance i-0123456789abcdef0) terminated."
    frame = Frame({"name": ["align"], "reason": [reason]})
    for one in (frame, frame[frame["name"] == "align"], frame.rename(columns={"name": "job"}), frame.head(1)):
        assert reason in one._repr_html_()
        assert reason in repr(one)
    assert reason not in pd.DataFrame(frame)._repr_html_()
    assert not Frame({"reason": ["<b>"]})._repr_html_().count("<b>")
