"""What is wrong with a configuration, in words: where, what was given, what is allowed."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ml_core.errors import did_you_mean

PASSWORD = re.compile(r"(://[^/\s:@]*):[^/\s@]*@")  # in an address; messages end up in logs
CourseKeys = Mapping[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Words:
    """What the sections cannot say themselves: patterns in words, other spellings of keys."""

    patterns: Mapping[str, str]
    course_keys: CourseKeys


def explain(error: ValidationError, what: str, root: type[BaseModel], words: Words) -> str:
    """Return one line per problem of `what`: where, what was given, what is allowed."""
    lines = []
    for problem in error.errors():
        section, loc = _walk(root, tuple(str(part) for part in problem["loc"]))
        where = ".".join(loc) or "config"
        given = shown(problem.get("input"))
        kind = problem["type"]
        keys = list(section.model_fields) if section else []
        if kind == "extra_forbidden":
            near = _nearest_key(root, loc, keys, words.course_keys)
            lines.append(f"{where}: unknown key.{near} Allowed: {', '.join(keys)}.")
        elif kind == "missing":
            lines.append(f"{where}: missing; it must be given.")
        elif kind == "model_type":
            lines.append(f"{where}: {given}; it must hold keys and values: {', '.join(keys)}.")
        elif kind == "union_tag_invalid":
            tag, allowed = str(problem["ctx"]["tag"]), problem["ctx"]["expected_tags"]
            near = did_you_mean(tag, re.findall(r"'(.*?)'", allowed))
            lines.append(f"{where}.name: '{tag}' is not known.{near} Allowed: {allowed}.")
        elif kind == "literal_error":
            allowed = problem["ctx"]["expected"]
            near = did_you_mean(str(problem["input"]), re.findall(r"'(.*?)'", allowed))
            lines.append(f"{where}: {given}.{near} Allowed: {allowed}.")
        elif kind == "path_type":
            lines.append(f"{where}: {given}. Allowed: the path of a file or folder, as text.")
        elif kind == "string_pattern_mismatch":
            lines.append(f"{where}: {given}. Allowed: {words.patterns[problem['ctx']['pattern']]}.")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            ending = "" if kind == "value_error" and not loc else f" (given: {given})"
            lines.append(f"{where}: {message}{ending}.")
    head = f"{what} is not a valid configuration:"
    return "\n".join([head, *(f"  {line}" for line in lines)])


def shown(value: Any) -> str:
    """Return `value` for a message; of a collection the start, since YAML's may be endless."""
    text = reprlib.repr(value) if isinstance(value, list | dict) else repr(value)
    return PASSWORD.sub(r"\1:***@", text)


def _nearest_key(
    root: type[BaseModel], loc: list[str], keys: list[str], course_keys: CourseKeys
) -> str:
    """Return the hint for the unknown key at `loc`: one like it here, or the same elsewhere."""
    *parents, wrong = loc
    of_course = [key for *section, key in course_keys if section == parents]
    if near := did_you_mean(wrong, keys + of_course):
        return near
    elsewhere = [wrong] if parents and wrong in root.model_fields else []
    elsewhere += [
        f"{name}.{wrong}"
        for name, field in root.model_fields.items()
        for section in section_variants(field.annotation).values()
        if name not in parents and (wrong in section.model_fields or (name, wrong) in course_keys)
    ]
    return f" Did you mean '{elsewhere[0]}'?" if elsewhere else ""


def _walk(root: type[BaseModel], loc: tuple[str, ...]) -> tuple[type[BaseModel] | None, list[str]]:
    """Follow `loc` through the sections; return the last one and `loc` without union tags."""
    section: type[BaseModel] | None = root
    variants: dict[str, type[BaseModel]] = {}
    clean: list[str] = []
    for part in loc:
        if part in variants:
            section, variants = variants[part], {}
            continue
        clean.append(part)
        field = section.model_fields.get(part) if section else None
        if field is not None:
            found = section_variants(field.annotation)
            if len(found) == 1:
                section, variants = next(iter(found.values())), {}
            elif found:
                variants = found
    return section, clean


def section_variants(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return the sections an annotation may hold, by their `name` (or class name)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation.__name__: annotation}
    if get_origin(annotation) in (Union, UnionType, Annotated):
        found: dict[str, type[BaseModel]] = {}
        for member in get_args(annotation):
            for section in section_variants(member).values():
                name = section.model_fields.get("name")
                tag = get_args(name.annotation)[0] if name else section.__name__
                found[tag] = section
        return found
    return {}
