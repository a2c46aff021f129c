"""How a page's template is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2


def load_template(
    package: str, name: str, filters: tuple[Callable[..., Any], ...]
) -> jinja2.Template:
    """Return the template `name` of `package`; each of `filters` goes by its own name there.

    What is filled in is escaped, and a name that is not filled in is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in filters:
        environment.filters[function.__name__] = function
    return environment.get_template(name)
