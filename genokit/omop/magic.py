"""``%%omop``: a cell of SQL, run over a CDM, with ``$name`` taken from the notebook's variables.

After ``%load_ext genokit`` a cell may be ``%%omop -o births`` and, below it, ``select year_of_birth, count(*) as n from
person where year_of_birth > $year group by 1``. Tab completes tables and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from genokit.errors import InvalidParameters, did_you_mean
from genokit.omop.cdm import Cdm
from genokit.omop.parameters import names

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """What ``%load_ext genokit`` loads: the cell magic, and completion of tables and columns in its cells."""
    from IPython.core import completer, magic_arguments

    sample = Cdm()

    def omop(line: str, cell: str) -> object:
        """Query a CDM: the cell is SQL, and $name in it a variable of the notebook."""
        request = magic_arguments.parse_argstring(magic, line)
        cdm = _cdm(shell.user_ns, request.cdm, sample)
        frame = cdm.query(cell, **_values(cell, cdm, shell.user_ns))
        if request.output is None:
            return frame
        if not request.output.isidentifier():
            raise InvalidParameters(f"'{request.output}' cannot be the name of a variable. Give one, as in -o births.")
        shell.user_ns[request.output] = frame
        return cdm.last

    def complete(context: Any) -> dict[str, Any]:
        first, _, cell = context.full_text.partition("\n")
        if not first.startswith("%%omop") or context.cursor_line == 0:
            return {"completions": []}
        cdm = _cdm(shell.user_ns, first.split()[-1] if len(first.split()) > 1 else None, sample, lenient=True)
        found = [completer.SimpleCompletion(word, type="field") for word in completions(cdm, cell, context.token)]
        return {"completions": found, "suppress": bool(found)}

    words = (
        magic_arguments.argument("-o", "--output", metavar="NAME", help="keep the rows as the variable NAME"),
        magic_arguments.argument("cdm", nargs="?", help="the variable with the CDM (default: cdm, else the sample)"),
    )
    magic = magic_arguments.magic_arguments()(words[0](words[1](omop)))
    shell.register_magic_function(magic, "cell", "omop")
    shell.Completer.custom_matchers.append(completer.context_matcher(identifier="genokit.omop")(complete))


def completions(cdm: Cdm, sql: str, begun: str) -> list[str]:
    """The completions of a word: tables, and columns of the tables in the SQL; ``p.per`` keeps its ``p.``.

    >>> completions(Cdm(), "select year from person", "year")
    ['year_of_birth']
    """
    before, dot, start = begun.rpartition(".")
    schema = cdm.columns()
    named = [table for table in schema if table in sql.lower()]
    known = [] if dot else cdm.tables()
    known += dict.fromkeys(column for table in named for column in schema[table])
    return [f"{before}{dot}{word}" for word in known if word.startswith(start.lower())]


def _cdm(variables: Mapping[str, Any], name: str | None, sample: Cdm, *, lenient: bool = False) -> Cdm:
    """The notebook's CDM: the variable of that name, else ``cdm``, else the sample. Raises InvalidParameters."""
    held = variables.get(name or "cdm")
    if isinstance(held, Cdm):
        return held
    if name is None or lenient:
        return _cdm(variables, None, sample) if name else sample
    known = [each for each, value in variables.items() if isinstance(value, Cdm)]
    raise InvalidParameters(f"The notebook has no Cdm '{name}'. {did_you_mean(name, known)}")


def _values(sql: str, cdm: Cdm, variables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: variables[name] for name in names(sql, cdm.database.dialect) if name in variables}
