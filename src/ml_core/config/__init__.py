"""One YAML file -> one validated, path-resolved, immutable `Config`.

The course's keys keep their names. Unknown keys, wrong values and repeated keys are errors that
name the file, the key, what is allowed and the nearest valid key. Relative paths in the file are
relative to the file; those given with `--set` are relative to where the command was typed.
"""

from ml_core.config.data import DataConfig
from ml_core.config.root import Config, config_schema, load_config
from ml_core.config.scoring import SelectionConfig, ThresholdConfig
from ml_core.config.search import ParameterConfig, SearchConfig
from ml_core.config.section import PATTERNS, Section
from ml_core.config.training import BEST_METRICS

__all__ = [
    "BEST_METRICS",
    "PATTERNS",
    "Config",
    "DataConfig",
    "ParameterConfig",
    "SearchConfig",
    "Section",
    "SelectionConfig",
    "ThresholdConfig",
    "config_schema",
    "load_config",
]
