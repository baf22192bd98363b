"""DataFrames whose texts are shown whole."""

from __future__ import annotations

from typing import Any

import pandas as pd


class Frame(pd.DataFrame):
    """A DataFrame that shows texts whole; pandas would cut them after 50 letters, often where a reason begins."""

    @property
    def _constructor(self) -> Any:
        return Frame

    def __repr__(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return super().__repr__()

    def _repr_html_(self) -> str | None:
        with pd.option_context("display.max_colwidth", None):
            html: str | None = super()._repr_html_()  # type: ignore[misc]
            return html
