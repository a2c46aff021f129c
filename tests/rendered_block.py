"""One block of the report by itself, for tests that need no whole page."""

from ml_core.page import text
from ml_core.page.template import load_template

FILTERS = (
    text.decimal, text.signed, text.count, text.percent, text.duration, text.moment,
    text.short_hash, text.plain,
)  # fmt: skip


def render_block(template: str, macro: str, part) -> str:
    """Return what `macro` of `template` makes of `part` at heading level 2."""
    environment = load_template("ml_core.evaluation.report", template, FILTERS).environment
    imported = f'{{% from "{template}" import {macro} %}}{{{{ {macro}(part, 2) }}}}'
    return environment.from_string(imported).render(part=part)
