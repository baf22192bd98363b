"""The monitor in a real JupyterLab, in headless Chromium: what a person would see and press."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from browser.lab import ROOT, Opened
from embedded import Box

from genokit import Settings

pytestmark = pytest.mark.browser

SHOTS = ROOT / "runs" / "browser"
SMALL = [{"type": "VCPU", "value": "0.25"}, {"type": "MEMORY", "value": "32"}]
BEGIN = (
    "from collections import Counter\nfrom genokit import backends\nfrom genokit.batch.monitor.monitor import monitor\n"
    "clients, calls = backends.clients(), Counter()\n"
    "def count(model, **_):\n    calls[model.name] += 1\n"
    "clients.batch.meta.events.register('provide-client-params', count)\n"
)
LONG = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); sleep 0.05; done"


@pytest.fixture
def box(place):
    box = Box(Settings(home=place[0] / "account"))
    box.account.clean()
    yield box
    box.account.clean()


def counts(book: Opened) -> dict[str, int]:
    """The numbers by status as they stand on the page."""
    items = book.page.locator(".gk-monitor ul.gk-keys li").all_inner_texts()
    found = (re.fullmatch(r"([\d,]+) \S ([A-Z]+)", " ".join(item.split())) for item in items)
    return {one[2]: int(one[1].replace(",", "")) for one in found if one}


def until(holds: Any, within_s: float = 240) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def choose(book: Opened, name: str) -> None:
    book.page.get_by_role("radio", name=name).first.click()
    book.page.locator(".gk-chosen .gk-head", has_text=name[:20]).wait_for()


def press(book: Opened, name: str) -> None:
    book.page.locator(".gk-monitor").get_by_role("button", name=name).click()


def test_counts_change_while_an_array_of_200_runs(box, opened):
    book = opened(BEGIN + "monitor(clients)")
    book.run(0)
    book.page.get_by_text("No jobs yet").wait_for()
    task = box.define("sh", "-c", "sleep 0.2", resourceRequirements=SMALL)
    box.submit(task, arrayProperties={"size": 200})
    seen = []

    def is_done() -> bool:
        now = counts(book)
        if now.get("SUCCEEDED", 0) not in seen:
            seen.append(now.get("SUCCEEDED", 0))
        return seen[-1] == 200

    until(is_done)
    assert len(seen) > 3, "they grew before one's eyes"
    assert seen == sorted(seen)
    assert counts(book)["RUNNING"] == 0
    until(lambda: "200 of 200" in book.page.locator(".gk-jobs").inner_text())
    choose(book, "one")
    book.page.get_by_text("200 children: 200 SUCCEEDED").wait_for()


def test_a_job_is_cancelled_by_its_button_while_the_kernel_works(box, opened):
    holds = box.submit(box.define("sleep", "600"))
    waits = box.submit(box.define("true", name="waits"), dependsOn=[{"jobId": holds}])
    book = opened(BEGIN + "monitor(clients)", "import time; time.sleep(600); print('slept')")
    book.run(0)
    book.page.get_by_role("radio").first.wait_for()
    book.start(1)
    book.page.get_by_role("radio").first.click()  # the newest is the one that waits
    book.page.locator(".gk-chosen .gk-head", has_text="PENDING").wait_for()
    press(book, "Cancel")
    book.page.locator(".gk-confirm", has_text="Cancel job").wait_for()
    press(book, "Yes, cancel")
    until(lambda: box.describe(waits)["status"] == "FAILED")
    book.page.locator(".gk-chosen .gk-head", has_text="FAILED").wait_for()
    assert "slept" not in book.output(1), "all this while a cell ran"
    assert box.describe(waits)["statusReason"] == "Cancelled in the monitor"
    assert box.describe(holds)["status"] == "RUNNING"


def test_the_log_follows_its_job_and_stays_where_a_reader_scrolled(box, opened):
    job = box.submit(box.define("sh", "-c", LONG))
    box.wait(job, "RUNNING")
    book = opened(BEGIN + "monitor(clients)")
    book.run(0)
    choose(book, "one")
    pane = book.page.locator(".gk-logbox")
    shown = "pane => pane.innerText.trim().split('\\n').at(-1)"
    last = "pane => Math.abs(pane.scrollTop) < 5 && pane.scrollHeight > pane.clientHeight"
    until(lambda: pane.evaluate(last))
    first = pane.evaluate(shown)
    until(lambda: pane.evaluate(shown) != first)
    assert pane.evaluate(last), "the newest line is in sight"
    pane.hover()
    book.page.mouse.wheel(0, -400)
    until(lambda: pane.evaluate("pane => pane.scrollTop < -300"))
    there, text = pane.evaluate("pane => pane.scrollTop"), pane.evaluate(shown)
    until(lambda: pane.evaluate(shown) != text)
    # Counted from the end: what came since may lie between, and nothing has brought the reader nearer to it.
    assert pane.evaluate("pane => pane.scrollTop") <= there + 20, "it was not thrown back to the end"
    pane.focus()
    book.page.keyboard.press("End")
    until(lambda: pane.evaluate(last))


HOSTILE = (
    "<img src=x onerror='window.hacked=1;alert(1)'><script>window.hacked=1;alert(1)</script>\u202egpj.exe\n" + "x" * 900
)


def test_hostile_names_reasons_and_logs_are_only_text(box, opened):
    job = box.submit(box.define("sh", "-c", f"cat <<'END'\n{HOSTILE}\nEND\nsleep 60"))
    box.wait(job, "RUNNING")
    rename = (
        f"NAME = {HOSTILE!r}\n"
        "def renamed(parsed, **_):\n"
        "    for job in [*parsed.get('jobs', []), *parsed.get('jobSummaryList', [])]:\n"
        "        job.update(jobName=NAME, statusReason=NAME)\n"
        "clients.batch.meta.events.register('after-call.batch', renamed)\n"
    )
    book = opened(BEGIN + rename + "monitor(clients)")
    book.run(0)
    book.page.get_by_role("radio").first.click()
    pane = book.page.locator(".gk-logbox")
    until(lambda: "<script>window.hacked=1" in pane.inner_text())
    assert "<img src=x onerror" in book.page.locator(".gk-about").inner_text()
    assert "<img src=x onerror" in book.page.locator(".gk-monitor .gk-lanes").inner_text()
    book.page.get_by_role("textbox", name="Filter").fill("<img")
    press(book, "Explain")
    until(lambda: book.page.locator(".gk-about .gk-card").count() > 1)
    press(book, "Cancel")
    book.page.locator(".gk-confirm", has_text="<img src=x").wait_for()
    assert book.page.evaluate("() => window.hacked") is None
    assert book.page.locator(".gk-monitor script, .gk-monitor img[src=x]").count() == 0
    wide = "monitor => monitor.scrollWidth <= monitor.clientWidth + 1"
    assert book.page.locator(".gk-monitor").evaluate(wide), "a long name does not burst the view"


def test_an_array_of_ten_thousand_leaves_the_page_small_and_costs_no_listing(place, box, opened):
    task = box.define("sh", "-c", "sleep 1", resourceRequirements=SMALL)
    array = box.submit(task, arrayProperties={"size": 10_000})
    other = box.submit(box.define("sleep", "120", name="other"))
    works = "import os, time\nwhile not (os.path.exists('seen') and calls['DescribeJobs'] > 5): time.sleep(0.1)"
    calls = "print(calls['ListJobs'])"
    book = opened(BEGIN + f"monitor(clients, jobs=[{array!r}, {other!r}])", works, calls)
    book.run(0)
    book.page.get_by_role("radio").first.wait_for()
    book.start(1)  # the kernel is at work all the while
    for turn in range(6):
        book.page.get_by_role("radio").nth(turn % 2).click()
        book.page.get_by_text("10,000 children: ").wait_for(state="visible" if turn % 2 else "detached")
    assert book.page.locator(".gk-monitor *").count() < 1000
    (place[0] / "work" / "seen").touch()
    book.run(2)
    assert book.output(2).strip() == "0", "no child has failed"


def test_closing_it_stops_the_asking(box, opened):
    box.submit(box.define("sleep", "60"))
    still = (
        "import threading, time\nwhile 'genokit view' in [one.name for one in threading.enumerate()]: time.sleep(0.1)\n"
        "before = Counter(calls); time.sleep(2)\nprint(before == calls)"
    )
    book = opened(BEGIN + "monitor(clients)", still)
    book.run(0)
    book.page.get_by_role("radio").first.wait_for()
    press(book, "Close")
    book.page.locator(".gk-monitor", has_text="CLOSED").wait_for()
    book.run(1)
    assert "True" in book.output(1)


def test_light_and_dark_wide_and_narrow(box, opened):
    """Leaves pictures of it in runs/browser, to be looked at."""
    work = box.define("sh", "-c", "i=0; while [ $i -lt 900 ]; do echo chr$((i%22+1)): $((i*4321)) reads aligned; "
                      "i=$((i+1)); sleep 0.05; done", resourceRequirements=SMALL)  # fmt: skip
    breaks = box.define("sh", "-c", "sleep 1; echo 'no space left on device'; exit 28", resourceRequirements=SMALL)
    calls = box.define(
        "sh", "-c", "sleep 0.3; exit $((AWS_BATCH_JOB_ARRAY_INDEX % 41 == 7))", resourceRequirements=SMALL
    )
    box.batch.submit_job(jobName="fastqc", jobQueue="highPriority", jobDefinition=breaks)
    last = [box.batch.submit_job(jobName=f"align-NA{n}", jobQueue="highPriority", jobDefinition=work)["jobId"]
            for n in (12878, 12891)]  # fmt: skip
    box.batch.submit_job(jobName="call-variants", jobQueue="highPriority", jobDefinition=calls,
                         arrayProperties={"size": 1200})  # fmt: skip
    box.batch.submit_job(jobName="annotate", jobQueue="lowPriority", jobDefinition=work,
                         dependsOn=[{"jobId": job} for job in last])  # fmt: skip
    book = opened(BEGIN + "monitor(clients)")
    book.command("application:toggle-left-area")
    book.run(0)
    choose(book, "call-variants")
    book.page.get_by_text("1,200 children: ").wait_for()
    until(lambda: counts(book)["SUCCEEDED"] > 20)
    SHOTS.mkdir(parents=True, exist_ok=True)
    for theme in ("light", "dark"):
        book.theme(theme.title())
        for name, width in (("call-variants", 1280), ("align-NA12878", 1280), ("align-NA12878", 700)):
            book.page.set_viewport_size({"width": width, "height": 1200 if width > 1000 else 1500})
            choose(book, name)
            view = book.settled(".gk-monitor")
            view.screenshot(path=SHOTS / f"monitor-{theme}-{width}-{name}.png")
            assert view.evaluate("one => one.scrollWidth <= one.clientWidth + 1")
