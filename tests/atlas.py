"""Cohort definitions as ATLAS exports them, in few words."""

from __future__ import annotations

from typing import Any

CELECOXIB, BLEEDING, SINUSITIS, ASPIRIN = 1118084, 192671, 40481087, 19059056
SETS = {"celecoxib": CELECOXIB, "bleeding": BLEEDING, "sinusitis": SINUSITIS, "aspirin": ASPIRIN}
NAMES = list(SETS)


def concepts(name: str, *ids: int, number: int = 0, **flags: bool) -> dict[str, Any]:
    items = [{"concept": {"CONCEPT_ID": one, "CONCEPT_NAME": f"concept {one}"}, **flags} for one in ids]
    return {"id": number, "name": name, "expression": {"items": items}}


def defined(*entry: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A definition as ATLAS exports it: all events that criteria find, and what else is said."""
    return {
        "ConceptSets": [concepts(name, one, number=i) for i, (name, one) in enumerate(SETS.items())],
        "PrimaryCriteria": {
            "CriteriaList": list(entry),
            "ObservationWindow": {"PriorDays": more.pop("prior", 0), "PostDays": 0},
            "PrimaryCriteriaLimit": {"Type": "All"},
        },
        "QualifiedLimit": {"Type": "All"},
        "ExpressionLimit": {"Type": "All"},
        "InclusionRules": [],
        **more,
    }


def of(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {kind: {"CodesetId": NAMES.index(name), **more}}


def days(number: int | None, other: int = -1) -> dict[str, Any]:
    return {"Days": None, "Coeff": other} if number is None else {"Days": abs(number), "Coeff": -1 if number < 0 else 1}


def near(
    criterion: dict[str, Any], low: int | None, high: int | None, *, least: int = 1, **more: Any
) -> dict[str, Any]:
    """At least so many, or with 0 none, from so many days after an event to so many."""
    occurrence = {"Type": 2 if least else 0, "Count": least, **more.pop("occurrence", {})}
    window = {"Start": days(low), "End": days(high, 1), **more.pop("window", {})}
    return {"Criteria": criterion, "StartWindow": window, "Occurrence": occurrence, **more}


def group(*criteria: dict[str, Any], kind: str = "ALL", **more: Any) -> dict[str, Any]:
    return {"Type": kind, "CriteriaList": list(criteria), "DemographicCriteriaList": [], "Groups": [], **more}


def rule(name: str, *criteria: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "expression": group(*criteria, **more)}


def end(offset: int, field: str = "StartDate") -> dict[str, Any]:
    return {"DateOffset": {"DateField": field, "Offset": offset}}


SINUS = of("ConditionOccurrence", "sinusitis")
