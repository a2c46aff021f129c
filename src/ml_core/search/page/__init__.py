"""The page of a study: the verdict, what to know before believing it, figures, every trial."""

from ml_core.search.page.render import render_study

__all__ = ["render_study"]
