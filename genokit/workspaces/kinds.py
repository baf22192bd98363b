"""The kinds of entries in a workspace's log: their fields, and the roles that may write them.

This table is the schema that is checked when an entry is written and again when it is read, and it is the table of
rights: an action of a member is an entry, and nobody does what no entry of theirs could say.

A kind's fields are words ``name:type``; a ``?`` marks one that may be missing or null.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from genokit.workspaces.log import MEMBER

CUSTODIAN, ANALYST, MODELLER, VIEWER = ROLES = ("custodian", "analyst", "modeller", "viewer")
READERS = (CUSTODIAN, ANALYST)  # of data
STATES = ("SUCCEEDED", "FAILED", "REFUSED")  # of submissions
DECISIONS = ("RETURNED", "REJECTED", "APPROVED", "RELEASED")  # on requests to release results
AUTHORS = (CUSTODIAN, ANALYST, MODELLER)  # of runs
NAME, VERSION = r"[a-z0-9][a-z0-9._-]{0,63}", r"[0-9a-zA-Z][0-9a-zA-Z.+_-]{0,63}"
SHA256 = r"[0-9a-f]{64}"
IMAGE = rf"([a-z0-9][a-z0-9._:/-]*@)?sha256:{SHA256}"  # by its digest


class EntryKind(NamedTuple):
    """The fields of a kind of entry, and who may write it."""

    fields: str
    roles: tuple[str, ...] = (CUSTODIAN,)


class ReleasePolicy(NamedTuple):
    """When a count may be released: it is ``min_cell`` or more, and rounded to a multiple of ``round_to``."""

    min_cell: int
    round_to: int = 1


# The thresholds of the field: ACRO's; OpenSAFELY redacts 7 and fewer, then rounds to 5; DataSHIELD's nfilter.tab.
POLICIES = {"default": ReleasePolicy(10), "opensafely": ReleasePolicy(8, 5), "datashield": ReleasePolicy(3)}


@functools.cache
def duo() -> dict[str, str]:
    """The terms of the Data Use Ontology by their abbreviation: identifier and meaning."""
    return tomllib.loads(Path(__file__).with_name("duo.toml").read_text(encoding="utf-8"))


KINDS: dict[str, EntryKind] = {
    "created": EntryKind("name:name"),
    # Members
    "granted": EntryKind("who:member role:role principal:arn? expires:time?"),
    "revoked": EntryKind("who:member"),
    # Data sets: ``manifest`` is the hash of the datapackage.json, which has the hash of each file
    "published": EntryKind(
        "name:name version:version title:text licence:text? citation:text? duo:duo conditions:text? policy:policy "
        "folder:folder manifest:sha256 files:count bytes:count practice:folder? practice_manifest:sha256?"
    ),
    "accepted": EntryKind("dataset:ref expires:time", READERS),
    "fetched": EntryKind("dataset:ref", READERS),
    # Runs of notebooks: ``manifest`` is the hash of a file with the hash of each file of the crate, and a salt, because
    # the log is read by members who may not read the results, and a hash of few numbers can be guessed
    "shared": EntryKind(
        "run:id name:text notebook:text state:text outputs:texts folder:folder manifest:sha256", AUTHORS
    ),
    "reproduced": EntryKind("run:id equal:flag", AUTHORS),
    # The results of a run, the files of a request before or after its release, or a submission's log were read
    "opened": EntryKind("run:id? request:id? submission:id?", AUTHORS),
    # Model to data: ``truth`` and ``manifest`` are hashes of files that custodians alone can read
    "challenged": EntryKind(
        "name:name dataset:ref metric:text? outputs:object limits:object quota_per_day:count private_fraction:number "
        "deadline:time? folder:folder? truth:sha256?"
    ),
    "submitted": EntryKind("submission:id challenge:name command:texts code:sha256? image:image?", AUTHORS),
    "evaluated": EntryKind(
        "submission:id state:state reason:text? seconds:count score:score outputs:texts folder:folder manifest:sha256 "
        "genokit:version"
    ),
    "revealed": EntryKind("challenge:name scores:scores"),
    # Release of results: see review.py for the order
    "requested": EntryKind("request:id submission:id files:texts context:text controls:text", AUTHORS),
    "changed": EntryKind("request:id submission:id files:texts context:text controls:text", AUTHORS),
    "moved": EntryKind("request:id to:authors_move comment:text?", AUTHORS),
    "voted": EntryKind("request:id files:votes manifest:sha256 comment:text?"),
    "decided": EntryKind("request:id to:decision files:hashes? folder:folder? comment:text?"),
}


def _text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_score(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(one) in (int, float, type(None)) for one in value)


def _maps(value: Any, valid: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(isinstance(one, (str, list)) and valid(one) for one in value.values())


TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "member": (_text(MEMBER.pattern), "a member's name: lower-case letters, digits and . _ @ -, at most 64"),
    "role": (lambda value: value in ROLES, f"one of {', '.join(ROLES)}"),
    "name": (_text(NAME), "lower-case letters, digits and . _ -, at most 64"),
    "version": (_text(VERSION), "a version, such as 1.0.0"),
    "ref": (_text(f"{NAME}@{VERSION}"), "name@version"),
    "folder": (
        _text(r"(data|practice|runs|truth|results|released)(/[\w.@+-]*[\w@+-]){2,3}"),
        "a folder of the workspace",
    ),
    "duo": (
        lambda value: isinstance(value, list) and value != [] and {*value} <= {*duo()},
        "one or more terms of the Data Use Ontology, such as GRU, HMB or IRB (all: duo.toml beside this module)",
    ),
    "policy": (lambda value: value in POLICIES, f"one of {', '.join(POLICIES)}"),
    "state": (lambda value: value in STATES, f"one of {', '.join(STATES)}"),
    "authors_move": (lambda value: value in ("SUBMITTED", "WITHDRAWN"), "SUBMITTED or WITHDRAWN"),
    "decision": (lambda value: value in DECISIONS, f"one of {', '.join(DECISIONS)}"),
    "score": (_is_score, "a score and the ends of its interval, each a number or null"),
    "scores": (lambda value: _maps(value, _is_score), "scores by submission"),
    "votes": (lambda value: _maps(value, ("approve", "reject").__contains__), "approve or reject for each file"),
    "hashes": (lambda value: _maps(value, _text(SHA256)), "a SHA-256 for each file"),
    "id": (_text(r"[0-9a-f]{16}"), "an id of 16 hexadecimal digits"),
    "image": (_text(IMAGE), "an image by its digest: repository@sha256:..."),
    "sha256": (_text(SHA256), "a SHA-256 in hexadecimal"),
    "time": (_text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"), "a time in UTC, such as 2026-11-30T08:00:00.000000Z"),
    "text": (lambda value: isinstance(value, str) and 0 < len(value) <= 10_000, "a text of 1 to 10,000 letters"),
    "arn": (_text(r"arn:aws[a-z-]*:iam::\d{12}:(user|role)/[\w+=,.@/-]{1,512}"), "the ARN of a user or role"),
    "count": (lambda value: type(value) is int and value >= 0, "a whole number, 0 or more"),
    "number": (lambda value: type(value) in (int, float), "a number"),
    "flag": (lambda value: isinstance(value, bool), "true or false"),
    "object": (lambda value: isinstance(value, dict), "an object"),
    "texts": (lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of texts"),
}


def problem(kind: str, fields: Mapping[str, Any]) -> str:
    """What is wrong with the fields of an entry of this kind; "" if nothing is.

    >>> problem("granted", {"who": "anna", "role": "king"})
    "'granted' needs role: one of custodian, analyst, modeller, viewer; it is 'king'"
    >>> problem("granted", {"who": "anna", "role": "analyst", "expires": None})
    ''
    """
    if kind not in KINDS:
        return f"'{kind}' is not a kind of entry that this version of genokit knows"
    expected = dict(word.split(":") for word in KINDS[kind].fields.split())
    if unknown := sorted(fields.keys() - expected.keys()):
        return f"'{kind}' has no field '{unknown[0]}'"
    for name, word in expected.items():
        valid, words = TYPES[word.removesuffix("?")]
        value = fields.get(name)
        if not (valid(value) or (value is None and word.endswith("?"))):
            return f"'{kind}' needs {name}: {words}; it is {value!r}"
    return ""
