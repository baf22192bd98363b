"""What the documents, the Makefile and the locks say about one another must be true."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

import genokit

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "environments/*.md", "notebooks/*.ipynb")
    for path in ROOT.glob(pattern)
)
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; ([^\\\n]+?))?(?: \\)?\n((?:    --hash=.*\n?)*)", re.MULTILINE)
PYTHONS = ("3.11", "3.12", "3.13")


def prose(path: Path) -> str:
    """A document's Markdown; of a notebook, that of its Markdown cells."""
    if path.suffix == ".md":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchors(path: Path) -> set[str]:
    """The fragments that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", prose(path), re.MULTILINE | re.DOTALL)


def locked(name: str) -> list[tuple[Requirement, str, bool]]:
    """Each pin of a lock: the requirement, its version, and whether it has hashes."""
    found = PINNED.findall((ROOT / "environments" / f"{name}.lock").read_text())
    return [
        (Requirement(f"{pin}=={v}" + (f" ; {marker}" if marker else "")), v, bool(h)) for pin, v, marker, h in found
    ]


def here(python: str) -> dict[str, str]:
    """The environment of markers on 64-bit Linux, where all of the kit works."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def applies(marker: Marker | None, python: str) -> bool:
    return marker is None or marker.evaluate({**here(python), "extra": ""})


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(<?([^)\s>]+)>?\)", re.sub(r"```.*?```", "", prose(path), flags=re.DOTALL)):
        if re.match(r"[a-z]+:", link):
            continue  # the tests need no network
        target, _, fragment = link.partition("#")
        file = (path.parent / target) if target else path
        if not file.exists() or (fragment and file.suffix == ".md" and fragment not in anchors(file)):
            dead.append(link)
    assert not dead


def test_every_public_name_is_in_the_documents() -> None:
    text = "\n".join(prose(path) for path in DOCUMENTS if path.suffix == ".md")
    assert [name for name in genokit.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_every_code_sample_is_valid_python() -> None:
    samples = [(path, block) for path in DOCUMENTS if path.suffix == ".md" for block in blocks(path, "python")]
    assert samples
    for path, sample in samples:
        compile(sample, str(path), "exec")


def test_every_make_command_in_the_documents_is_a_target() -> None:
    for path in DOCUMENTS:
        shell = "\n".join(blocks(path, "sh") + re.findall(r"`([^`\n]+)`", prose(path)))
        commands = re.findall(r"^make ([a-z][a-z-]*)", shell, re.MULTILINE)
        assert set(commands) <= targets(), path


def test_make_alone_prints_every_target_that_people_use() -> None:
    printed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    described = set(re.findall(r"^  ([a-z-]+) ", printed, re.MULTILINE))
    assert described == targets() - {"help", "kit", "dev"}
    assert {"demo", "test", "check", "bench", "lab", "notebooks", "clean"} <= described


def test_what_the_ci_chooses_tests_by_is_there() -> None:
    versions = [line for line in (ROOT / ".ci" / "versions").read_text().splitlines() if line[:1] != "#"]
    assert [pattern for pattern in versions if not list(ROOT.glob(pattern))] == []
    for line in (ROOT / ".ci" / "when").read_text().splitlines():
        target, *patterns = line.split()
        if target != "#":
            assert target in {"all", *targets()}
            for pattern in patterns:
                command = ["git", "ls-files", "--", pattern]
                assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout, line


def test_results_of_a_run_are_not_in_the_project_only_text_and_pictures() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]
    assert len(files) > 500
    assert {path.suffix for path in files if b"\0" in path.read_bytes()} == {".png"}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("lock", "extras"), [("kit", ["lab", "genomics"]), ("dev", ["lab", "genomics", "dev"])])
def test_the_locks_hold_what_pyproject_asks_for(lock: str, extras: list[str], python: str) -> None:
    pins = {pin.name.lower(): version for pin, version, _ in locked(lock) if applies(pin.marker, python)}
    asked = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    for requirement in map(Requirement, [*asked, "hatchling>=1.27", "editables", "pip"]):
        if applies(requirement.marker, python):
            version = pins.get(requirement.name.lower())
            assert version is not None, f"{lock}.lock lacks {requirement}: run make lock"
            assert requirement.specifier.contains(version), (
                f"{lock}.lock has {version}, not {requirement}: run make lock"
            )


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", ["kit", "dev"])
def test_a_lock_pins_each_package_once_with_hashes(lock: str, python: str) -> None:
    pins = [(pin.name, hashed) for pin, _, hashed in locked(lock) if applies(pin.marker, python)]
    assert len({name for name, _ in pins}) == len(pins)
    assert all(hashed for _, hashed in pins)


def test_the_development_lock_holds_all_of_the_kits() -> None:
    kit, dev = ({str(pin) for pin, _, _ in locked(name)} for name in ("kit", "dev"))
    assert kit
    # What the kit needs on Windows alone, a tool of development may need everywhere.
    assert {pin for pin in kit - dev if pin.partition(";")[0] not in dev} == set()


def test_the_locks_name_no_index() -> None:
    for name in ("kit", "dev"):
        assert "://" not in (ROOT / "environments" / f"{name}.lock").read_text()


def test_binder_has_the_environment_of_environments() -> None:
    def lines(folder: str) -> list[str]:
        return [line for line in (ROOT / folder / "environment.yml").read_text().splitlines() if line[:1] != "#"]

    assert lines("binder") == lines("environments")
    assert "environments/kit.lock" in (ROOT / "binder" / "postBuild").read_text()


def test_the_version_is_the_same_everywhere() -> None:
    assert genokit.__version__ == PROJECT["version"]
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()
