"""Config files with something wrong in them, drawn from a seed: bytes, lines, values, keys."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import yaml

BASE: dict[str, Any] = {
    "experiment_name": "fuzzed",
    "seed": 7,
    "output_dir": "runs",
    "data": {
        "data_path": "pcam",
        "batch_size": 32,
        "num_workers": 0,
        "augment": {"dihedral": True, "stain_jitter": 0.1},
    },
    "model": {"name": "cnn", "widths": [16, 32], "dropout_rate": 0.2},
    "training": {"epochs": 5, "clip_grad_norm": 1.0, "numerics": "fast", "micro_batch": 16},
    "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
    "scheduler": {"name": "cosine", "warmup_epochs": 0.5},
    "tracking": {"mlflow_uri": "sqlite:///mlf/all.db"},
    "slices": {"dark": "brightness < 100"},
}
COURSE: dict[str, Any] = {
    "experiment_name": "course",
    "data": {"dataset_type": "pcam", "data_path": "../pcam", "input_shape": [3, 96, 96]},
    "model": {"hidden_units": [64], "dropout_rate": 0.3, "num_classes": 2},
    "training": {"epochs": 5, "learning_rate": 0.003, "save_dir": "./results"},
}
MINIMAL: dict[str, Any] = {"experiment_name": "tiny", "data": {"data_path": "pcam"}}

# As YAML text, so that what YAML makes of them is part of the test: 010 is 8, 1:30 is 90, NO false.
VALUES = (
    "null", "~", "true", "yes", "NO", "-1", "0", "1", "3", "010", "0x1F", "1:30", "1_000", "1e-3",
    "1.0e-3", "2.5", "-0.0", ".inf", "-.inf", ".nan", "1e400", "9" * 30, "9" * 5000, "''", "x",
    "' '", '"\\0"', '"\\u202E"', "2020-01-01", "2020-01-01 10:00:00", "[]", "[1]", "[1, 2]",
    "[[1]]", "[true]", "{}", "{a: 1}", "{1: 2}", "{null: 1}", "{[1]: 2}", "{name: cnn}",
    "{name: null}", "{name: adam}", "!!set {a, b}", "!!binary aGk=", "!!python/name:os.system x",
    "!!python/object/apply:os.system [echo]", "&a [*a]", "*b", "~nobody-is-this", "/", "..",
    "../../../etc/passwd", "cuda:7", "auto", "fast", "elastic", "portable", "cnn", "mlp", "adam",
    "sgd", "cosine", "one_cycle", "http://user:pw@host", "'a\nb'", "[" * 60 + "]" * 60,
)  # fmt: skip
TOKENS = ("{", "[", "&a ", "*a", "!!int ", "!!binary ", "!x ", "<<: ", "? ", "|\n", "%", "@", "#",
          "\t", "\0", "\ufeff", "\u2028", "\ud7ff", "- ", ": ", "'", '"')  # fmt: skip


def mutate(rng: random.Random) -> bytes:
    """Return a config file with one to three things changed; some are still valid."""
    text = _change_tree(rng) if rng.random() < 0.6 else _dump(copy.deepcopy(_base(rng)))
    data = text.encode()
    if rng.random() < 0.5:
        data = rng.choice(BYTE_MUTATIONS)(data, rng)
    return data


def mutate_override(rng: random.Random) -> str:
    """Return what might be given to --set: a key that is known or nearly, and any value."""
    key = ".".join(rng.choice(_paths(BASE)))
    if rng.random() < 0.3:
        key = _misspelt(key, rng)
    return rng.choice([f"{key}={rng.choice(VALUES)}"] * 6 + [key, f"={key}", f"{key}.x=1"])


def _base(rng: random.Random) -> dict[str, Any]:
    return rng.choice([BASE, BASE, COURSE, MINIMAL])


def _change_tree(rng: random.Random) -> str:
    """Return a config in which a value, a key or a section was changed, added, moved or removed."""
    tree = copy.deepcopy(_base(rng))
    marks: dict[str, str] = {}
    for _ in range(rng.randrange(1, 4)):
        paths = _paths(tree)
        if not paths:
            break
        *parents, key = rng.choice(paths)
        section = tree
        for parent in parents:
            section = section[parent]
        kind = rng.randrange(5)
        if kind <= 1:
            mark = f"mark{len(marks)}mark"
            marks[mark] = rng.choice(VALUES)
            section[key] = mark
        elif kind == 2:
            section[_misspelt(str(key), rng)] = section.pop(key)
        elif kind == 3:
            del section[key]
        else:
            donor = rng.choice(_paths(BASE))
            section[donor[-1]] = copy.deepcopy(section[key])
    text = _dump(tree)
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text


def _paths(tree: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, value in tree.items():
        found.append((*above, key))
        if isinstance(value, dict):
            found += _paths(value, (*above, key))
    return found


def _misspelt(key: str, rng: random.Random) -> str:
    at = rng.randrange(len(key))
    return rng.choice([key[:at] + key[at + 1 :], key + "s", key.upper(), f" {key}", "new_key"])


def _dump(tree: dict[str, Any]) -> str:
    return yaml.safe_dump(tree, sort_keys=False)


def _flip_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _change_line(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    line = lines[at]
    changed = rng.choice([[], [line, line], [b"  " + line], [line[:-3]], [line.lstrip()]])
    return b"\n".join([*lines[:at], *changed, *lines[at + 1 :]])


def _insert_token(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(TOKENS).encode() + data[at:]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _encode_otherwise(data: bytes, rng: random.Random) -> bytes:
    text = data.decode(errors="replace")
    return text.encode(rng.choice(["utf-16", "utf-8-sig", "utf-32"]))


BYTE_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip_bytes, _change_line, _insert_token, _insert_token, _cut, _encode_otherwise,
)  # fmt: skip
