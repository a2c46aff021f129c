"""Every package that is missing or of another version than was tested, all at once."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ml_core.preflight.check import Check, error, listed, ok, warning
from ml_core.preflight.python import JobPython, Package
from ml_core.preflight.versions import (
    Requirement,
    is_same,
    is_within,
    normalised,
    parse_requirement,
)

PACKAGE = Path(__file__).resolve().parents[1]
LOCK_NAME = "requirements.lock"


def check_packages(python: JobPython, package: Path = PACKAGE) -> list[Check]:
    """Return what is wrong with the packages of the job's Python, or one line that nothing is.

    Wanted is what the checkout's pyproject.toml asks for, else what the installed ml-core says of
    itself; tested were the versions of the checkout's requirements.lock, where it has one.
    `package` is the folder of the ml_core that runs this.
    """
    if python.ml_core is None:
        install = f"uv pip install --python {python.path} -e {package.parents[1]}"
        told = f"ml-core is not installed for {python.path}."
        return [error("packages", told, f"Install it: {install}")]
    installed = {normalised(name): each for name, each in python.packages.items()}
    root = _checkout(python.ml_core)
    required = list(_required(root, installed))
    tested = _tested(root) if root else {}
    checks = [
        *_missing(required, installed, tested, _install(python, root)),
        *_untested(installed, tested, required, _install(python, root)),
        *_another_copy(python, package),
    ]
    if checks:
        return checks
    versions = f", in the versions of {LOCK_NAME}" if tested else ""
    return [ok("packages", f"all {len(required)} that are required are there{versions}.")]


def _checkout(ml_core: Path) -> Path | None:
    """Return the folder of the repository in which the package lies; None for an installed copy."""
    root = ml_core.parents[1]
    try:
        said = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return root if said.get("project", {}).get("name") == "ml-core" else None


def _required(root: Path | None, installed: Mapping[str, Package]) -> Iterator[Requirement]:
    """Yield what is required whatever the extras and the machine, that is without a marker."""
    if root is not None:
        text = (root / "pyproject.toml").read_text(encoding="utf-8")
        lines: Iterable[str] = tomllib.loads(text)["project"]["dependencies"]
    else:
        lines = installed["ml-core"].requires if "ml-core" in installed else ()
    yield from _unconditional(lines)


def _unconditional(lines: Iterable[str]) -> Iterator[Requirement]:
    for line in lines:
        requirement = parse_requirement(line)
        if ";" not in line and requirement is not None:
            yield requirement


def _tested(root: Path) -> dict[str, str]:
    """Return the versions in requirements.lock, by normalised name; none where there is no such."""
    path = root / LOCK_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.partition("#")[0].strip().partition("==") for line in lines)
    return {normalised(name): version for name, equals, version in pairs if equals}


def _missing(
    required: list[Requirement],
    installed: Mapping[str, Package],
    tested: Mapping[str, str],
    install: str,
) -> Iterator[Check]:
    """Yield one error that names all that is missing, and one for all that is out of range."""
    missing = [each.name for each in required if each.name not in installed]
    needed = _needed(required, installed) - set(missing)
    missing += sorted(name for name in needed & set(tested) if name not in installed)
    if missing:
        yield error("packages", f"missing: {', '.join(missing)}.", f"Install them: {install}")
    outside = [
        f"{each.name} {installed[each.name].version} (needed: {each.bounds})"
        for each in required
        if each.name in installed and not is_within(installed[each.name].version, each.bounds)
    ]
    if outside:
        yield error("packages", f"out of range: {', '.join(outside)}.", f"Install them: {install}")


def _needed(required: list[Requirement], installed: Mapping[str, Package]) -> set[str]:
    """Return the names of what is required, by those that are required too, and so on."""
    found: set[str] = set()
    waiting = [each.name for each in required]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            lines = installed[name].requires if name in installed else ()
            waiting += [each.name for each in _unconditional(lines)]
    return found


def _untested(
    installed: Mapping[str, Package],
    tested: Mapping[str, str],
    required: list[Requirement],
    install: str,
) -> Iterator[Check]:
    needed = _needed(required, installed)
    others = [
        f"{name} {installed[name].version} (tested: {version})"
        for name, version in sorted(tested.items())
        if name in needed and name in installed and not is_same(installed[name].version, version)
    ]
    if others:
        told = f"other versions than were tested: {listed(others)}."
        yield warning("packages", told, f"Those of {LOCK_NAME}: {install}")


def _another_copy(python: JobPython, package: Path) -> Iterator[Check]:
    if python.ml_core is not None and python.ml_core.resolve() != package:
        told = f"the job runs the ml-core in {python.ml_core}, and this is the one in {package}."
        yield warning("packages", told, "Is that meant? Each has its own code.")


def _install(python: JobPython, root: Path | None) -> str:
    if root is None:
        return f"uv pip install --python {python.path} --upgrade ml-core"
    lock = f" -r {root / LOCK_NAME}" if (root / LOCK_NAME).is_file() else ""
    return f"uv pip install --python {python.path}{lock} -e {root}"
