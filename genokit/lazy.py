"""The public names of a package: its stub ``__init__.pyi`` lists them, and each loads its module on first use.

Type checkers and editors read the stub, so that no name has to be written twice.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # type checkers take it for true; typing's own would double the cost of `import genokit`

if TYPE_CHECKING:
    from collections.abc import Callable


def homes(package: str) -> dict[str, str]:
    """The module of each public name, from the stub's lines ``from MODULE import NAME as NAME``."""
    with open(f"{sys.modules[package].__file__}i", encoding="utf-8") as stub:
        lines = [line.split() for line in stub if line.startswith("from ")]
    return {name: module for _, module, _, name, *_ in lines}


def attach(package: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """What a package needs to load its public names on first use: ``__getattr__``, ``__dir__`` and ``__all__``."""
    public = homes(package)

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in public:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        if public[name] == package:
            return import_module(f"{package}.{name}")  # the import system binds the name
        value = getattr(import_module(public[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public})

    return __getattr__, __dir__, sorted(public)
