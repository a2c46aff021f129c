"""A model by its name, and the record from which it can be built again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ml_core.errors import ConfigError, did_you_mean
from ml_core.models.cnn import CNN
from ml_core.models.mlp import MLP
from ml_core.models.patch_classifier import PatchClassifier
from ml_core.models.preprocess import Preprocess

MODELS: dict[str, type[PatchClassifier]] = {"mlp": MLP, "cnn": CNN}

NOT_OPTIONS = {"self", "input_shape", "num_classes", "preprocess"}


def build_model(
    name: str,
    input_shape: Sequence[int] = (3, 96, 96),
    num_classes: int = 2,
    preprocess: Preprocess | None = None,
    **options: Any,
) -> PatchClassifier:
    """Return a new model; `options` are the constructor's own, `model_options` lists them.

    Without `preprocess` it gets PCam's.
    Raises ConfigError for an unknown name or option and for a value out of range.
    """
    return _build(name, input_shape, num_classes, preprocess, options)


def model_options(name: str) -> dict[str, Any]:
    """Return the options of the model called `name`, with their defaults (None where required)."""
    parameters = inspect.signature(_model_class(name)).parameters.values()
    return {
        parameter.name: None if parameter.default is parameter.empty else parameter.default
        for parameter in parameters
        if parameter.name not in NOT_OPTIONS
    }


def model_spec(model: PatchClassifier) -> dict[str, Any]:
    """Return what `build_from_spec` needs to build `model` again, JSON-able, without weights."""
    names = {model_class: name for name, model_class in MODELS.items()}
    preprocess = model.preprocess
    return {
        "name": names[type(model)],
        "input_shape": list(model.input_shape),
        "num_classes": model.num_classes,
        "options": dict(model.options),
        "preprocess": {
            "normalization": preprocess.normalization,
            "mean": preprocess.mean.tolist(),
            "std": preprocess.std.tolist(),
        },
    }


def build_from_spec(spec: Mapping[str, Any]) -> PatchClassifier:
    """Return a model built as `model_spec` says, with new weights; the caller loads the saved ones.

    Raises ConfigError when this version has no such model or option.
    """
    preprocess = Preprocess(**spec["preprocess"])
    return _build(
        spec["name"], spec["input_shape"], spec["num_classes"], preprocess, spec["options"]
    )


def _build(
    name: str,
    input_shape: Sequence[int],
    num_classes: int,
    preprocess: Preprocess | None,
    options: Mapping[str, Any],
) -> PatchClassifier:
    model_class: Any = _model_class(name)
    allowed = model_options(name)
    for option in options:
        if option not in allowed:
            raise ConfigError(
                f"model {name!r} has no option {option!r}; it has: {', '.join(allowed)}."
                + did_you_mean(option, allowed)
            )
    try:
        # Any: each model has options of its own, which were checked against `allowed` above
        return model_class(  # type: ignore[no-any-return]
            input_shape=input_shape, num_classes=num_classes, preprocess=preprocess, **options
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model {name!r}: {error}.") from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise ConfigError(
            f"model {name!r} with {dict(options)} does not fit into the memory of this machine. "
            "Make it smaller."
        ) from error


def _model_class(name: str) -> type[PatchClassifier]:
    if name not in MODELS:
        raise ConfigError(
            f"unknown model {name!r}; there are: {', '.join(MODELS)}." + did_you_mean(name, MODELS)
        )
    return MODELS[name]
