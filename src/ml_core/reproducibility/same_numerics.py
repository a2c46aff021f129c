"""Whether a run may go on here: the numerics it began with against those of this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ml_core.errors import RunError
from ml_core.reproducibility.numerics_record import flatten
from ml_core.reproducibility.variables import CHANGE_BITS

# What decides the bits, in the order in which it is named, by the level that still depends on it.
RECIPE = ("level", "micro_batch")
MACHINE = (
    "device", "num_threads", "libraries.torch", "libraries.mkl", "libraries.onednn",
    "processor.architecture", "processor.aten", "processor.onednn", "processor.vendor",
    "processor.name", "gpu.gpu.name", "gpu.cuda", "gpu.cudnn", "flags.deterministic_algorithms",
    "flags.mkldnn", "flags.cudnn_benchmark", "flags.cudnn_deterministic", "flags.float32_onednn",
    "flags.float32_cublas", "flags.float32_cudnn",
)  # fmt: skip
_VARIABLE_BEHIND = {
    "processor.aten": "ATEN_CPU_CAPABILITY",
    "processor.onednn": "ONEDNN_MAX_CPU_ISA",
}

_MEANING = {
    "level": "training.numerics",
    "micro_batch": "training.micro_batch",
    "num_threads": "training.num_threads",
    "ranks": "the number of ranks",
    "libraries.torch": "the version of torch",
    "libraries.mkl": "the version of MKL",
    "libraries.onednn": "the version of oneDNN",
    "processor.architecture": "the architecture of the processor",
    "processor.aten": "torch's instruction set",
    "processor.onednn": "oneDNN's instruction set",
    "processor.vendor": "the maker of the processor",
    "processor.name": "the processor",
    "gpu.gpu.name": "the GPU",
    "gpu.cuda": "the version of CUDA",
    "gpu.cudnn": "the version of cuDNN",
}


def decisive_keys(level: str) -> tuple[str, ...]:
    """Return the keys of a flat numerics record on which the bits of `level` depend."""
    if level == "portable":
        return RECIPE
    variables = tuple(f"variables.{name}" for name in CHANGE_BITS)
    ranks = ("ranks",) if level == "fast" else ()
    return (*RECIPE, *ranks, *MACHINE, *variables)


def what_differs(
    then: Mapping[str, Any], now: Mapping[str, Any], level: str
) -> Iterator[tuple[str, str, str]]:
    """Yield (name, value then, value now) of all that `level` depends on and that is not as it was.

    Nothing is said of a value that either record lacks; a variable that is not listed was not set.
    """
    flat_then, flat_now = flatten(then), flatten(now)
    for key in decisive_keys(level):
        if key.startswith("variables."):
            is_known = "variables" in then and "variables" in now
        else:
            is_known = key in flat_then and key in flat_now
        before, here = flat_then.get(key), flat_now.get(key)
        if is_known and before != here:
            yield _name_of(key, flat_then, flat_now), _shown(before), _shown(here)


def refuse_other_numerics(then: Mapping[str, Any], now: Mapping[str, Any], level: str) -> None:
    """Raise RunError when what `level` depends on is not as it was, naming the first difference.

    `then` is the run's record, {} for a run older than it; `now` is `numerics_record` of this
    process. elastic allows another number of ranks; portable all but another recipe.
    """
    for name, before, here in what_differs(then, now, level):
        raise RunError(
            f"{name} was {before} and is {here}: with training.numerics: {level} the run would "
            f"not end in the bits it would have had. {_how_to_go_on(name)}"
        )


def _name_of(key: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the name by which a user knows `key`: the variable's, where one is behind it."""
    if key.startswith("variables."):
        return key.removeprefix("variables.")
    variable = _VARIABLE_BEHIND.get(key)
    if variable and then.get(f"variables.{variable}") != now.get(f"variables.{variable}"):
        return f"{_MEANING[key]} (by {variable})"
    return _MEANING.get(key, key)


def _how_to_go_on(name: str) -> str:
    if name in ("training.numerics", "training.micro_batch"):
        return "Go on with the run's own, or start a new run."
    return (
        "Go on where it is as it was (the same machine type, libraries and variables); or go on "
        "here all the same, which its record and its report will say: --resume RUN --elsewhere. "
        "With training.numerics: portable a run can go on anywhere."
    )


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
