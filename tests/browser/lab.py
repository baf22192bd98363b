"""A JupyterLab of its own in a folder of its own, and a page of headless Chromium in which a notebook is open."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
# Chromium as root in a container, and without its own errands on the network.
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a screen."""
    from playwright.sync_api import sync_playwright  # takes a while, and conftest.py is read by every run of pytest

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=SWITCHES)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def jupyterlab(folder: Path, account: Path) -> Iterator[str]:
    """The address of a JupyterLab whose kernels use the embedded account in ``account``."""
    for name in ("work", "home", "config/labconfig"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (folder / "config/labconfig/page_config.json").write_text(json.dumps(quiet))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environ = {
        **os.environ,
        "HOME": str(folder / "home"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "GENOKIT_HOME": str(account),
        "PYTHONPATH": str(ROOT),
    }
    options = [f"--ServerApp.root_dir={folder / 'work'}", f"--port={port}", "--no-browser", "--allow-root",
               f"--IdentityProvider.token={token}", "--expose-app-in-browser"]  # fmt: skip
    with (folder / "lab.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environ, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 240
        while not answers(f"{address}/api/status?token={token}"):
            assert time.monotonic() < deadline, (folder / "lab.log").read_text()
            assert server.poll() is None, (folder / "lab.log").read_text()
            time.sleep(0.1)
        yield f"{address}/lab?token={token}"
    finally:
        server.terminate()
        server.wait(30)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except (urllib.error.URLError, TimeoutError):
        return False


def notebook(folder: Path, name: str, *cells: str) -> None:
    """A notebook in JupyterLab's folder."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata={"kernelspec": kernel}
    )
    nbformat.write(made, folder / "work" / name)


class Opened:
    """A notebook open in a page: run its cells, and look at their outputs."""

    def __init__(self, page: Page, address: str, name: str) -> None:
        self.page = page
        self.dialogs: list[str] = []
        self.errors: list[str] = []
        page.set_default_timeout(240_000)  # a loaded machine needs long
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address.replace("/lab?", f"/lab/tree/{name}?reset&"))
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function(
            "() => { const one = window.jupyterapp?.shell.currentWidget;"
            " return one?.context?.sessionContext?.session?.kernel?.status === 'idle'; }"
        )
        self.command("application:set-mode", mode="single-document")
        self.theme("Light")
        page.keyboard.press("Escape")

    def _dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def command(self, name: str, **arguments: Any) -> None:
        self.page.evaluate("([name, given]) => window.jupyterapp.commands.execute(name, given)", [name, arguments])

    def start(self, cell: int) -> None:
        """Run a cell, and do not wait for it."""
        self.page.evaluate(
            "cell => { const book = window.jupyterapp.shell.currentWidget.content; book.activeCellIndex = cell;"
            " book.deselectAll(); window.jupyterapp.commands.execute('notebook:run-cell'); }",
            cell,
        )

    def run(self, cell: int) -> None:
        """Run a cell to its end."""
        self.start(cell)
        self.page.wait_for_function(
            "cell => { const one = window.jupyterapp.shell.currentWidget.content.widgets[cell];"
            " return one.model.executionCount && one.promptNode.textContent.indexOf('*') < 0; }",
            arg=cell,
        )

    def output(self, cell: int) -> str:
        """A cell's output as text."""
        return str(
            self.page.evaluate(
                "cell => window.jupyterapp.shell.currentWidget.content.widgets[cell].outputArea.node.textContent", cell
            )
        )

    def settled(self, selector: str) -> Any:
        """A part of the page, once nothing in it has changed for half a second."""
        part = self.page.locator(selector).first
        part.evaluate(
            "part => new Promise(done => { let timer = setTimeout(done, 500);"
            " new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(done, 500); })"
            ".observe(part, {subtree: true, childList: true, attributes: true, characterData: true}); })"
        )
        return part

    def shut(self) -> None:
        """End the kernel, and leave without saving."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
        self.page.close()

    def theme(self, name: str) -> None:
        """JupyterLab's theme, "Light" or "Dark"; it is kept for the next page."""
        self.command("apputils:change-theme", theme=f"JupyterLab {name}")
        is_light = str(name == "Light").lower()
        self.page.wait_for_function("wanted => document.body.dataset.jpThemeLight === wanted", arg=is_light)
