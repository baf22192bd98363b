"""Search for concepts by name, synonym or code; misspelt words find similar ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from pandas import DataFrame

from genokit.errors import InvalidParameters, NotFound, did_you_mean
from genokit.omop.concepts import lookup
from genokit.omop.connection import CdmConnection


def search(
    cdm: CdmConnection, words: str, *, domain: str | None, vocabulary: str | None, standard: bool | None, most: int
) -> DataFrame:
    """Concepts by name, synonym or code, the best match first; if none has all the words, those with similar ones.

    Raises NotFound, InvalidParameters.
    """
    parts = sorted(set(words.lower().split()))
    if not parts:
        raise InvalidParameters("There is nothing to search for. Give a name, as in concepts('metformin').")
    given = {"domain": domain, "vocabulary": vocabulary, "standard": standard}
    found = lookup(cdm, "search", pieces=parts, least=len(parts), **given)
    if found.empty:
        pieces = sorted({piece for part in parts for piece in _pieces(part)})
        found = lookup(cdm, "search", pieces=pieces, least=max(1, round(len(pieces) * 0.4)), **given)
    if found.empty:
        for column, value in (("domain_id", domain), ("vocabulary_id", vocabulary)):
            known = [] if value is None else lookup(cdm, "sorts")[column].unique().tolist()
            if value is not None and value.lower() not in map(str.lower, known):
                raise NotFound(f"The vocabulary has no {column} '{value}'. {did_you_mean(value, known)}")
    return _ranked(found, parts).head(most).reset_index(drop=True)


def _pieces(word: str) -> list[str]:
    """Substrings of a word that a misspelt one may share; shorter ones of a short word.

    >>> _pieces("asthma"), _pieces("metformin")[:3]
    (['as', 'st', 'th', 'hm', 'ma'], ['met', 'etf', 'tfo'])
    """
    size = 2 if len(word) < 8 else 3
    return [word[i : i + size] for i in range(max(1, len(word) - size + 1))]


def _ranked(found: DataFrame, parts: Sequence[str]) -> DataFrame:
    """Each concept once, with the score of its best name: how similar its words are, then how short it is."""
    alike: dict[tuple[str, str], float] = {}

    def near(part: str, word: str) -> float:
        if (part, word) not in alike:
            alike[part, word] = difflib.SequenceMatcher(None, part, word).ratio()
        return alike[part, word]

    whole = sum(map(len, parts)) + len(parts) - 1
    scores = []
    for name in found["name"]:
        words = re.findall(r"[^\s()\[\],;/]+", name) or [name]
        best = sum(max(near(part, word) for word in words) for part in parts) / len(parts)
        scores.append(round(0.8 * best + 0.2 * whole / max(whole, len(name)), 3))
    ranked = found.assign(score=scores, other=found["standard_concept"].ne("S").fillna(True)).query("score >= 0.5")
    ranked = ranked.sort_values(["score", "other", "concept_name"], ascending=[False, True, True])
    return ranked.drop_duplicates("concept_id").drop(columns=["name", "other"])
