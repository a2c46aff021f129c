"""Randomness as a function of (seed, epoch, index); what could change a number, recorded."""

from ml_core.reproducibility.code import code_record
from ml_core.reproducibility.data_digests import data_digests
from ml_core.reproducibility.hardware import hardware_record
from ml_core.reproducibility.numerics_record import numerics_record
from ml_core.reproducibility.packages import installed_packages, package_versions
from ml_core.reproducibility.preflight import prepare_numerics
from ml_core.reproducibility.randomness import (
    WORDS_PER_ROW,
    Stream,
    derive_seed,
    philox_words,
    seed_everything,
)
from ml_core.reproducibility.same_numerics import refuse_other_numerics

__all__ = [
    "WORDS_PER_ROW",
    "Stream",
    "code_record",
    "data_digests",
    "derive_seed",
    "hardware_record",
    "installed_packages",
    "numerics_record",
    "package_versions",
    "philox_words",
    "prepare_numerics",
    "refuse_other_numerics",
    "seed_everything",
]
