"""The templates of the kit, and their parameters as keywords."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit.errors import InvalidParameters, NotFound, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).parent


def text(name: str) -> str:
    """A template of the kit by its name, or one's own by its path. Raises NotFound."""
    own = {name: Path(name)} if name.endswith((".yaml", ".yml")) and Path(name).is_file() else {}
    return _read("template", name, {one.stem: one for one in HERE.glob("*.yaml")} | own)


def policy(name: str) -> str:
    """An IAM policy of the kit. Raises NotFound."""
    return _read("policy", name, {one.stem: one for one in (HERE / "policies").glob("*.json")})


def _read(kind: str, name: str, files: Mapping[str, Path]) -> str:
    if name not in files:
        raise NotFound(f"There is no {kind} '{name}'. {did_you_mean(name, files)}")
    return files[name].read_text(encoding="utf-8")


def declared(name: str) -> dict[str, dict[str, Any]]:
    """The parameters that a template declares."""
    import yaml

    # All scalars are texts, and functions are left out: parameters hold none.
    return dict((yaml.load(text(name), Loader=yaml.BaseLoader) or {}).get("Parameters") or {})


def table(parameters: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each parameter."""
    from genokit.frames import Frame

    rows = {
        keyword(name): {
            "parameter": name,
            "default": one.get("Default"),
            "description": " ".join(str(one.get("Description", "")).split()),
        }
        for name, one in parameters.items()
    }
    columns = ["parameter", "default", "description"]
    return Frame.from_dict(rows, orient="index", columns=columns).rename_axis("keyword")


def given(name: str, parameters: Mapping[str, object], previous: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The parameters as CloudFormation asks for them; those not given keep their previous value, where there is one."""
    known = declared(name)
    names = {_folded(one): one for one in known}
    if unknown := [one for one in parameters if _folded(one) not in names]:
        listed = ", ".join(map(keyword, known))
        raise InvalidParameters(
            f"The template '{name}' has no parameter '{unknown[0]}'. {did_you_mean(unknown[0], map(keyword, known))} "
            f"It has: {listed}."
        )
    values = {names[_folded(one)]: value for one, value in parameters.items() if value is not None}
    kept = [one["ParameterKey"] for one in (previous or {}).get("Parameters", [])]
    return [{"ParameterKey": one, "ParameterValue": plain(value)} for one, value in values.items()] + [
        {"ParameterKey": one, "UsePreviousValue": True} for one in kept if one in known and one not in values
    ]


def keyword(parameter: str) -> str:
    """A parameter's name as a keyword.

    >>> keyword("SpotMaxvCpus"), keyword("VpcId")
    ('spot_max_vcpus', 'vpc_id')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", parameter.replace("vCpu", "Vcpu")).lower()


def _folded(name: str) -> str:
    return name.replace("_", "").casefold()


def plain(value: object) -> str:
    """A value as CloudFormation takes it.

    >>> plain(True), plain(64), plain(["g4dn", "g5"])
    ('true', '64', 'g4dn,g5')
    """
    if isinstance(value, (list, tuple)):
        return ",".join(map(plain, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
