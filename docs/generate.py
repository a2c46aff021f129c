"""Write docs/cli.md, docs/config.md, docs/reliability.md and the JSON Schema; --check compares.

python docs/generate.py [--check]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from reliability_table import render_reliability

from ml_core import config
from ml_core.config_problems import section_variants

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Written by docs/generate.py; `make docs` writes it anew. -->\n\n"


def render_cli() -> str:
    """Return the reference of every command, as typer prints it."""
    command = [sys.executable, "-m", "typer", "ml_core.cli", "utils", "docs", "--name", "ml-core"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return NOTE + done.stdout.rstrip() + "\n"


def render_config() -> str:
    """Return a table of every configuration key: what it means, its default, what is allowed."""
    lines = [
        "# Configuration\n",
        "One YAML file holds everything that decides a result. An unknown key, a repeated key or a",
        "wrong value is an error that names the key, what is allowed and the nearest valid key.",
        "Relative paths in the file are relative to the file; those given with `--set` to where",
        "you type. `ml-core config show CONFIG` prints the resolved configuration.\n",
        "Editors that know YAML schemas complete and check the keys, if the first line names it:",
        "`# yaml-language-server: $schema=PATH/src/ml_core/config.schema.json`.\n",
        "The course's spellings `training.learning_rate` and `training.save_dir` are read as",
        "`optimizer.lr` and `output_dir`.\n",
    ]
    lines += _table("The file", config.Config)
    for name, field in config.Config.model_fields.items():
        variants = section_variants(field.annotation)
        for variant, section in variants.items():
            title = f"`{name}`" if len(variants) == 1 else f"`{name}` with `name: {variant}`"
            lines += _table(title, section, prefix=f"{name}.")
            for inner_name, inner in section.model_fields.items():
                if value_section := _section_of_values(inner):
                    prefix = f"{name}.{inner_name}.KEY"
                    lines += _table(f"`{prefix}`", value_section, prefix=f"{prefix}.")
                inners = section_variants(inner.annotation)
                for inner_variant, inner_section in inners.items():
                    prefix = f"{name}.{inner_name}"
                    with_name = f" with `name: {inner_variant}`" if len(inners) > 1 else ""
                    lines += _table(f"`{prefix}`{with_name}", inner_section, prefix=f"{prefix}.")
    return NOTE + "\n".join(lines).rstrip() + "\n"


def _section_of_values(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that every value of a mapping is, as those of `search.space` are."""
    arguments = get_args(field.annotation)
    is_mapping = get_origin(field.annotation) is dict
    value = arguments[1] if is_mapping else None
    return value if isinstance(value, type) and issubclass(value, BaseModel) else None


def _table(title: str, section: type[BaseModel], prefix: str = "") -> list[str]:
    doc = (section.__doc__ or "").strip().splitlines()[0]
    rows = [
        f"| `{prefix}{name}` | {_describe(field)} | {_allowed(field)} | {_default(field)} |"
        for name, field in section.model_fields.items()
    ]
    head = ["| key | meaning | allowed | default |", "|---|---|---|---|"]
    return [f"## {title}\n", f"{doc}\n", *head, *rows, ""]


def _describe(field: FieldInfo) -> str:
    if field.description:
        return field.description
    variants = section_variants(field.annotation)
    names = ", ".join(variants) if len(variants) > 1 else "its keys are below"
    return f"section: {names}"


def _allowed(field: FieldInfo) -> str:
    if section_variants(field.annotation):
        return ""
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str | int)]
    if choices and not isinstance(choices[0], type):
        return ", ".join(f"`{choice}`" for choice in choices)
    limits = [_limit(constraint) for constraint in field.metadata]
    return ", ".join(limit for limit in limits if limit)


def _limit(constraint: Any) -> str:
    signs = {"ge": "&ge;", "gt": "&gt;", "le": "&le;", "lt": "&lt;"}
    for name, sign in signs.items():
        if (value := getattr(constraint, name, None)) is not None:
            return f"{sign} {value}" if value != 2**63 else f"{sign} 2^63"
    if pattern := getattr(constraint, "pattern", None):
        return config.PATTERNS[pattern]
    return ""


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "**required**"
    if isinstance(field.default, BaseModel):
        return ""
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{json.dumps(value, default=str)}`".replace('"', "")


def main() -> int:
    """Write or compare; return the exit code."""
    files = {
        ROOT / "docs" / "cli.md": render_cli(),
        ROOT / "docs" / "config.md": render_config(),
        ROOT / "docs" / "reliability.md": NOTE
        + render_reliability(ROOT / "docs" / "fault-record.json"),
        ROOT / "src" / "ml_core" / "config.schema.json": json.dumps(
            config.config_schema(), indent=1
        )
        + "\n",
    }
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what the code says. Run: make docs")
        return 1 if stale else 0
    for path in stale:
        path.write_text(files[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
