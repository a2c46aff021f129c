"""Patch classifiers: grey levels in, logits out, preprocessing inside."""

from ml_core.models.build import (
    MODELS,
    build_from_spec,
    build_model,
    model_options,
    model_spec,
)
from ml_core.models.cnn import CNN
from ml_core.models.describe import describe_model
from ml_core.models.mlp import MLP
from ml_core.models.patch_classifier import PatchClassifier
from ml_core.models.preprocess import PCAM_MEAN, PCAM_STD, Preprocess

__all__ = [
    "CNN",
    "MLP",
    "MODELS",
    "PCAM_MEAN",
    "PCAM_STD",
    "PatchClassifier",
    "Preprocess",
    "build_from_spec",
    "build_model",
    "describe_model",
    "model_options",
    "model_spec",
]
