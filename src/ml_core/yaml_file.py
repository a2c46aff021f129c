"""YAML as a configuration needs it: plain values, and no key given twice."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import yaml

from ml_core.errors import ConfigError, did_you_mean


class _StrictLoader(yaml.SafeLoader):
    """Plain values only; a key given twice is an error (PyYAML keeps the last without a word)."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As PyYAML, whose constructors let int(), datetime() and others raise what they like."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            given = f"{node.value[:40]!r}: " if isinstance(node, yaml.ScalarNode) else ""
            raise yaml.MarkedYAMLError(
                problem=f"{given}{error}", problem_mark=node.start_mark
            ) from error

    def construct_unique(self, node: yaml.MappingNode) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == MERGE_TAG:  # the "<<" that brings in another mapping
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key}' appears twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return self.construct_mapping(node, deep=True)


MERGE_TAG = "tag:yaml.org,2002:merge"
_StrictLoader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _StrictLoader.construct_unique
)


def parse_yaml(source: str | IO[str], name: str) -> Any:
    """Return the value that YAML text or a file holds; raises ConfigError."""
    try:
        return yaml.load(source, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{name} is nested too deeply to be a configuration.") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file as written; raises ConfigError."""
    try:
        with open(path, encoding="utf-8") as file:
            raw = parse_yaml(file, str(path))
    except FileNotFoundError as error:
        siblings = list(path.parent.iterdir()) if path.parent.is_dir() else []
        near = did_you_mean(path.name, [sibling.name for sibling in siblings])
        raise ConfigError(f"there is no config file {path}.{near}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold keys and values, such as 'experiment_name: my_run'.")
    return raw
