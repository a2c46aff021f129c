"""One self-contained HTML page about a data set: what is wrong with it, and what it looks like."""

from ml_core.audit.page.render import render_audit

__all__ = ["render_audit"]
