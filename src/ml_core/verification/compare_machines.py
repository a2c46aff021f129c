"""What computed: packages, and the machine with its libraries, threads and variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ml_core.reproducibility.packages import CAN_CHANGE_A_RESULT
from ml_core.reproducibility.same_numerics import what_differs
from ml_core.verification.differences import NOT_RECORDED, Difference
from ml_core.verification.run_evidence import RunEvidence

_NOT_INSTALLED = "not installed"

# Of a record older than `numerics`: what hardware says about the bits.
_OLD_KEYS = {
    "processor": "the processor",
    "cpu_capability": "torch's instruction set",
    "torch_threads": "the number of threads",
    "gpu": "the GPU",
    "cuda": "the version of CUDA",
}


def compare_packages(a: RunEvidence, b: RunEvidence) -> Iterator[Difference]:
    """Yield each package whose version differs; first those that can change a result."""
    here, there = a.packages, b.packages
    if a.all_packages is not None and b.all_packages is not None:
        here, there = a.all_packages, b.all_packages
    elif not here or not there:
        if here or there:
            yield Difference(
                "packages", "versions", _known(here), _known(there), "It cannot be told."
            )
        return
    elif (a.all_packages is None) != (b.all_packages is None):
        yield Difference(
            "packages", f"all but {len(CAN_CHANGE_A_RESULT)} of them (packages.txt)",
            _known(a.all_packages), _known(b.all_packages), "It cannot be told.",
        )  # fmt: skip
    names = dict.fromkeys([*CAN_CHANGE_A_RESULT, *here, *there])
    for name in names:
        ours, theirs = here.get(name, _NOT_INSTALLED), there.get(name, _NOT_INSTALLED)
        if ours != theirs:
            yield Difference("packages", name, ours, theirs, _how_to_install(name, ours))


def compare_hardware(a: RunEvidence, b: RunEvidence) -> Iterator[Difference]:
    """Yield what differs of all that the bits depend on at the level fast, the most demanding.

    Then where either run went on elsewhere than it began.
    """
    yield from _compare_numerics(a, b)
    for evidence in (a, b):
        for each in evidence.numerics.get("elsewhere", []):
            yield Difference(
                "hardware",
                f"{evidence.name} went on elsewhere after step {each['step']} "
                f"({'; '.join(each['changes'])})",
                "the machine it began on", "another",
                f"Take again what one machine did: --steps {each['step']} where it began, --from a "
                "later checkpoint where it went on.", is_edit=True,
            )  # fmt: skip


def _compare_numerics(a: RunEvidence, b: RunEvidence) -> Iterator[Difference]:
    if not a.numerics or not b.numerics:
        yield from _compare_old(a, b)
        if a.numerics or b.numerics:
            yield Difference(
                "hardware", "libraries and variables", _known(a.numerics), _known(b.numerics),
                "It cannot be told; runs record them from this version on.",
            )  # fmt: skip
        return
    level = str(a.numerics.get("level"))
    for name, ours, theirs in what_differs(a.numerics, b.numerics, "fast"):
        yield Difference(
            "hardware", name, ours, theirs, _machine_advice(name, ours, level),
            is_harmless=not _matters(name, level),
        )  # fmt: skip


def _compare_old(a: RunEvidence, b: RunEvidence) -> Iterator[Difference]:
    for key, name in _OLD_KEYS.items():
        ours, theirs = a.hardware.get(key), b.hardware.get(key)
        if key in a.hardware and key in b.hardware and ours != theirs:
            yield Difference(
                "hardware", name, str(ours), str(theirs), _machine_advice(name, str(ours), "fast")
            )


def _how_to_install(name: str, version: str) -> str:
    if version == _NOT_INSTALLED:
        return f"Uninstall it: pip uninstall {name}."
    if name.lower().replace("_", "-") == "ml-core":
        return "Install the version that ran."
    return f"Install the version that ran: pip install {name}=={version}."


def _matters(name: str, level: str) -> bool:
    """Return whether a bit of `level` can depend on what is called `name`."""
    return level == "fast" or (level == "elastic" and name != "the number of ranks")


def _machine_advice(name: str, ours: str, level: str) -> str:
    if not _matters(name, level):
        return f"With training.numerics: {level} no bit depends on it."
    if name.isupper():  # a variable
        return f"Unset {name}." if ours == "not set" else f"Set {name}={ours}."
    if "threads" in name:
        return f"Set training.num_threads to {ours}, which is part of the recipe."
    return "Repeat it on the same machine type with the same libraries, or train in portable."


def _known(record: Mapping[str, object] | None) -> str:
    return "recorded" if record else NOT_RECORDED
