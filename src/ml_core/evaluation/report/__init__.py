"""One self-contained HTML page about one run, or about several runs that belong together."""

from ml_core.evaluation.report.render import render_report

__all__ = ["render_report"]
