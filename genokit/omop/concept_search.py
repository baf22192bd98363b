"""Search for concepts by name, synonym or code; misspelt words find similar ones."""

from __future__ import annotations

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
    return found.drop_duplicates("concept_id").head(most).reset_index(drop=True)


def _pieces(word: str) -> list[str]:
    """Substrings of a word that a misspelt one may share; shorter ones of a short word.

    >>> _pieces("asthma"), _pieces("metformin")[:3]
    (['as', 'st', 'th', 'hm', 'ma'], ['met', 'etf', 'tfo'])
    """
    size = 2 if len(word) < 8 else 3
    return [word[i : i + size] for i in range(max(1, len(word) - size + 1))]
