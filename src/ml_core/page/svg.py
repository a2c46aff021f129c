"""A matplotlib Figure as SVG for the inside of a page: themed by its CSS, with text as text."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from ml_core.page import figure_style

# Every colour of the house style becomes a variable, so that one figure serves light and dark.
_CSS_COLORS = {
    figure_style.INK: "var(--ink)",
    figure_style.MUTED: "var(--muted)",
    figure_style.GRID: "var(--grid)",
    figure_style.PAPER: "var(--paper)",
    figure_style.BLUE: "var(--blue)",
    figure_style.VERMILLION: "var(--vermillion)",
    figure_style.GREEN: "var(--green)",
    figure_style.PURPLE: "var(--purple)",
    figure_style.ORANGE: "var(--orange)",
    figure_style.SKY: "var(--sky)",
}


def figure_to_svg(figure: Figure, name: str, description: str) -> Markup:
    """Return `figure` as an <svg> element whose ids start with `name` and are those of no other.

    `description` is what a screen reader says. The same figure gives the same text: the metadata,
    which hold a date, are cut out, and ids follow from `name`.
    """
    buffer = io.StringIO()
    with mpl.rc_context({**figure_style.STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<=\bid=")|(?<=href="#)|(?<=url\(#)', f"{name}-", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    for color, variable in _CSS_COLORS.items():
        text = text.replace(color, variable)
    view_box = re.search(r'viewBox="([^"]+)"', text)
    assert view_box is not None, "matplotlib writes a viewBox"
    label = escape(description)
    opening = f'<svg viewBox="{view_box[1]}" role="img" aria-label="{label}">'
    return Markup(opening + text[text.index(">") + 1 :].strip())
