"""Who may import whom, and what may stand where: ARCHITECTURE.md, held by walking the source."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import genokit
from genokit import lazy

PACKAGE = Path(genokit.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
PUBLIC = lazy.homes("genokit") | {name: f"genokit.{name}" for name in ("genomics", "omop", "train")}

LEAVES = {
    "bars",
    "config",
    "disclosure",
    "display",
    "errors",
    "files",
    "frames",
    "lazy",
    "live",
    "plots",
    "refusals",
    "secret_kinds",
}
SERVICES = {"batch", "data", "stacks"}
APPLICATIONS = {"genomics", "omop", "pipelines", "train"}

# A room may import itself and these; services and applications never their own kind.
MAY = {
    **dict.fromkeys(LEAVES, LEAVES),
    "local": LEAVES,
    "databases": LEAVES,
    "backends": LEAVES | {"databases", "local"},
    "storage": LEAVES | {"backends"},
    **dict.fromkeys(SERVICES, LEAVES | {"backends", "storage"}),
    **dict.fromkeys(APPLICATIONS, LEAVES | {"backends", "databases", "storage"} | SERVICES),
    "workspaces": LEAVES | {"backends", "databases", "storage"} | SERVICES | APPLICATIONS,
    "doctor": LEAVES | {"backends"} | SERVICES | APPLICATIONS,
    "__main__": LEAVES | {"backends", "doctor"} | SERVICES | APPLICATIONS,
    "__init__": LEAVES | SERVICES | APPLICATIONS | {"workspaces"},
}

# Small words, so that <Job align RUNNING> in a repr is no tag.
TAG = re.compile(
    r"</?(?:a|b|i|p|h[1-6]|br|hr|em|ul|ol|li|dl|dt|dd|td|th|tr|div|img|pre|svg|code|span|body|head|html|link|main|meta|"
    r"strong|style|table|tbody|thead|script|section|details|summary|iframe|button|input|form)(?:\s[^<>]*)?/?>"
)


def parsed(file: Path) -> ast.AST:
    """A module, with the imports of its stub if it has one."""
    stub = file.with_suffix(".pyi")
    return ast.parse(file.read_text() + (stub.read_text() if stub.exists() else ""))


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, *, at_import: bool = False) -> Iterator[tuple[str, int]]:
    """Every module that is imported, lazily and for types only too, with its line; or only what import itself loads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (home_of(alias.name) if node.module == "genokit" else whole), node.lineno
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        in_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if not (at_import and (for_types or in_function)):
            yield from imports(node, at_import=at_import)


def home_of(name: str) -> str:
    """The module behind ``from genokit import name``."""
    return "genokit.__init__" if name == "__version__" else PUBLIC.get(name, f"genokit.{name}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_lead_downwards_only(file):
    here = room(file)
    assert here in MAY, f"a new room '{here}': give it a place in MAY and in ARCHITECTURE.md"
    for name, line in imports(parsed(file)):
        top, _, rest = name.partition(".")
        if top == "genokit" and rest and not rest.startswith("__init__"):
            there = rest.split(".")[0]
            assert there == here or there in MAY[here], f"{file}:{line}: {here} must not import {there}"


def test_no_imports_go_round_in_a_circle():
    """Of any kind: lazy and type-only ones too. ``genokit/__init__`` gives names on first use, and is no edge."""
    modules = {".".join(("genokit", *file.relative_to(PACKAGE).with_suffix("").parts)): file for file in FILES}
    modules = {name.removesuffix(".__init__"): file for name, file in modules.items() if name != "genokit.__init__"}
    edges = {}
    for module, file in modules.items():
        names = (name for name, _ in imports(parsed(file)))
        leads = (name if name in modules else name.rpartition(".")[0] for name in names)
        edges[module] = {one for one in leads if one in modules and one != module}
    assert circles(edges) == []


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """The sets of nodes each of which can reach all others of its set."""
    reach: dict[str, set[str]] = {}
    for start in edges:
        reach[start], todo = set(), [start]
        while todo:
            new = edges.get(todo.pop(), set()) - reach[start]
            reach[start] |= new
            todo += new
    left = {node for node in edges if node in reach[node]}
    found = []
    while left:
        node = left.pop()
        found.append({one for one in reach[node] if node in reach[one]})
        left -= found[-1]
    return found


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [{"b", "c"}]


def test_no_class_name_stands_twice():
    where: dict[str, list[str]] = {}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(f"{file.relative_to(PACKAGE)}:{node.lineno}")
    assert not {name: places for name, places in where.items() if len(places) > 1}


def test_the_architecture_names_every_room():
    page = (PACKAGE.parent / "ARCHITECTURE.md").read_text()
    diagram = page.partition("## The way down")[2].split("```")[1]
    table = "\n".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))
    for name in sorted({room(file) for file in FILES} - {"__init__"}):
        assert re.search(rf"\b{name}\b", diagram), f"'{name}' is not in the diagram"
        assert f"`{name}`" in table, f"'{name}' is not in the table of rooms"


@pytest.mark.parametrize(
    "file", [f for f in FILES if room(f) in LEAVES - {"bars", "disclosure", "frames"}], ids=lambda file: file.name
)
def test_leaves_load_the_standard_library_only(file):
    for name, line in imports(ast.parse(file.read_text()), at_import=True):
        assert name.split(".")[0] in {*sys.stdlib_module_names, "genokit"}, f"{file}:{line}: {name}"


def test_the_switch_reaches_either_side_inside_functions_only():
    names = {name for name, _ in imports(ast.parse((PACKAGE / "backends.py").read_text()), at_import=True)}
    assert not [name for name in names if name.startswith(("genokit.local", "boto3", "botocore"))]


def test_mxnet_is_loaded_behind_its_door_only():
    for file in FILES:
        if not (room(file) == "train" and file.name.startswith("mxnet")):
            names = [name for name, _ in imports(ast.parse(file.read_text())) if name.split(".")[0] == "mxnet"]
            assert not names, file


def test_html_is_made_in_display_only():
    for file in FILES:
        if room(file) in ("display", "live"):
            continue
        tree = ast.parse(file.read_text())
        docstrings = {id(node.body[0].value) for node in ast.walk(tree) if _has_docstring(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                assert not TAG.search(node.value), f"{file}:{node.lineno}: {TAG.search(node.value)[0]}"


def _has_docstring(node: ast.AST) -> bool:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, documented) and ast.get_docstring(node) is not None


def test_only_the_switch_asks_which_backend():
    for file in FILES:
        if room(file) == "backends":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare):
                asked = [
                    part for part in (node.left, *node.comparators) if ast.unparse(part).split(".")[-1] == "backend"
                ]
                assert not asked, f"{file}:{node.lineno}: {ast.unparse(node)}"


def test_modules_have_names_that_say_something_and_a_size_for_one_sitting():
    for file in FILES:
        assert file.stem not in ("utils", "helpers", "common", "misc", "manager", "handlers", "base")
        assert len(file.read_text().splitlines()) <= 450, f"{file} is too long to read in one sitting"


def test_every_module_says_what_it_is():
    for file in FILES:
        assert ast.get_docstring(ast.parse(file.read_text())), file
