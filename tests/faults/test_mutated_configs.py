"""A thousand config files with something wrong in them: read as they say, or refused in words."""

import contextlib
import io
import json
import os
import random
import signal
import traceback
from pathlib import Path

import pytest
import yaml
from config_mutations import MINIMAL, mutate, mutate_override
from fault_record import Fault
from tiny_pcam import write_tiny_pcam

import ml_core.config.root
from ml_core.cli import main

pytestmark = pytest.mark.faults

LONGEST_S = 30  # of one command: the slowest honest one takes a tenth of that
PATHS = ("output_dir", "data.data_path", "data.audit_dir", "data.ledger_dir")
MOVED = {"training.learning_rate": "optimizer.lr", "training.save_dir": "output_dir"}
SQLITE = "sqlite:///"


class HangError(AssertionError):
    """A command that did not end in time."""


def _too_long(*_):
    raise HangError(f"not done after {LONGEST_S} s")


def command(*arguments):
    """Return exit code, standard output and standard error of a command, and what escaped it."""
    out, err = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except Exception:
        err.write(traceback.format_exc())
        code = 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return code, out.getvalue(), err.getvalue()


def is_refusal_in_words(code, err):
    """Whether a command ended as it should for a mistake in a file: 2, a message, no jargon."""
    assert code == 2, f"exit code {code}: {err.strip().splitlines()[-1:]}"
    assert err.startswith("error: ") and len(err) > 20, err
    for jargon in ("Traceback", "Error:", "pydantic", "<class ", "object at 0x"):
        assert jargon not in err, f"{jargon} in: {err}"
    return True


# ---- what a file says, found without the code under test ---------------------------------------


def says(path, overrides=()):
    """Return what the file sets, as {dotted key: value}, by PyYAML alone; None for a key twice."""
    text = path.read_bytes()
    if has_a_key_twice(yaml.compose(text)):
        return None
    tree = dict(yaml.safe_load(text))
    found = {}
    for key, value in leaves(tree):
        key = MOVED.get(key, key)
        found[key] = absolute(key, value, path.parent)
    return found


def has_a_key_twice(node):
    if not isinstance(node, yaml.CollectionNode):
        return False
    if isinstance(node, yaml.MappingNode):
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        children = [value for _, value in node.value]
        return len(set(keys)) < len(keys) or any(map(has_a_key_twice, children))
    return any(map(has_a_key_twice, node.value))


def leaves(tree, above=""):
    for key, value in tree.items():
        if isinstance(value, dict) and value and f"{above}{key}" != "slices":
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def absolute(key, value, base):
    if key in PATHS and isinstance(value, str):
        return os.path.normpath(base / Path(value).expanduser())
    if key == "tracking.mlflow_uri" and isinstance(value, str) and value.startswith(SQLITE):
        return SQLITE + os.path.normpath(base / Path(value.removeprefix(SQLITE)).expanduser())
    return value


def is_same(given, loaded):
    """Whether a value of the file is the one that was loaded; 1 is 1.0, and "1e-3" is 0.001."""
    if isinstance(given, list | tuple) and isinstance(loaded, list):
        pairs = zip(given, loaded, strict=False)
        return len(given) == len(loaded) and all(is_same(*pair) for pair in pairs)
    if isinstance(given, bool) or isinstance(loaded, bool):
        words = {"true": True, "yes": True, "false": False, "no": False, "on": True, "off": False}
        return words.get(str(given).lower(), given) == loaded
    if isinstance(given, str) and isinstance(loaded, int | float):
        with contextlib.suppress(ValueError):
            return float(given) == loaded
    if given == {} and isinstance(loaded, dict):
        return True  # an empty section: its defaults
    return given == loaded


def check_loaded(path, shown, defaults):
    """Assert that `shown` is what the file at `path` says, and the defaults where it is silent."""
    told = says(path)
    assert told is not None, "a key that is given twice was accepted"
    loaded = dict(leaves(shown))
    for key, value in told.items():
        if isinstance(shown_at(shown, key), dict) and value in ({}, None):
            continue  # a section without a key of its own
        assert is_same(value, shown_at(shown, key)), f"{key}: {value!r} became {loaded.get(key)!r}"
    for key in set(loaded) - set(told):
        if key in defaults and defaults[key] != loaded[key]:
            assert key.endswith((".name", "output_dir")), f"{key}: became {loaded[key]!r} by itself"


def shown_at(shown, key):
    value = shown
    for part in key.split(".") if not key.startswith("slices") else key.split(".", 1):
        assert isinstance(value, dict) and part in value, f"{key} was accepted and is nowhere"
        value = value[part]
    return value


# ---- the fuzzer --------------------------------------------------------------------------------


def defaults_of(folder):
    """Return the defaults by dotted key, of sections that have one form only."""
    path = folder / "defaults.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    code, out, err = command("config", "show", path, "--json")
    assert code == 0, err
    several = ("model.", "optimizer.", "scheduler.", "experiment_name", "data.data_path")
    return {k: v for k, v in leaves(json.loads(out)) if not k.startswith(several)}


def fuzz(folder, seeds, cases):
    """Count, for a mutated file per seed, whether it was read as it says or refused in words."""
    defaults = defaults_of(folder)
    num_loaded = num_refused = 0
    path = folder / "config.yaml"
    for seed in seeds:
        path.write_bytes(mutate(random.Random(seed)))
        with cases.case(f"seed {seed}"):
            code, out, err = command("config", "show", path, "--json")
            if code == 0:
                check_loaded(path, json.loads(out), defaults)
                num_loaded += 1
            else:
                num_refused += is_refusal_in_words(code, err)
    return num_loaded, num_refused


def test_a_mutated_config_is_read_as_it_says_or_refused_in_words(tmp_path, draws, fault):
    configs = fault(25, "mutated configs: neither traceback, hang nor wrong answer")
    num = draws(full=1000, short=100)
    loaded, refused = fuzz(tmp_path, range(num), configs)
    assert loaded > num / 20 and refused > num / 3  # else the mutations are too mild or too wild


def test_a_mutated_override_is_obeyed_or_refused_in_words(tmp_path, draws, fault):
    overrides = fault(25, "mutated --set: neither traceback, hang nor wrong answer")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    num_loaded = 0
    num = draws(full=300, short=50)
    for seed in range(num):
        override = mutate_override(random.Random(seed))
        with overrides.case(f"seed {seed}, {override}"):
            code, out, err = command("config", "show", path, "--json", "--set", override)
            if code:
                is_refusal_in_words(code, err)
                continue
            num_loaded += 1
            key, _, text = override.partition("=")
            key = MOVED.get(key.strip(), key.strip())
            value = absolute(key, yaml.safe_load(text), tmp_path.cwd())
            found = shown_at(json.loads(out), key)
            assert is_same(value, found) or isinstance(found, dict), f"{value!r} became {found!r}"
    assert num_loaded > num / 100


# ---- what the limits of each key let through ---------------------------------------------------

FORMS = (
    {"model.name": "mlp", "optimizer.name": "adamw", "scheduler.name": "constant"},
    {"model.name": "cnn", "optimizer.name": "sgd", "scheduler.name": "one_cycle"},
    {"training.numerics": "elastic", "optimizer.name": "adam", "scheduler.name": "cosine"},
    {"model.name": "mlp", "optimizer.name": "sgd", "scheduler.name": "step"},
    {"model.name": "mlp", "optimizer.name": "sgd", "scheduler.name": "plateau"},
)
EXTREMES = ("0", "1", "1000000000000", "1" + 30 * "0", "1.0e-300", "1.0e+300", "0.999999999999")
# More of these is more of an honest thing: longer, or more processes.
LEFT_OUT = ("training.epochs", "data.num_workers")


def with_sets(settings):
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def extreme_settings(config):
    """Yield (the form, key, value) for each number of each form and each extreme it may take."""
    seen = set()
    for form in FORMS:
        _, out, _ = command("config", "show", config, "--json", *with_sets(form))
        for key, value in leaves(json.loads(out)):
            is_list = isinstance(value, list)
            number = value[0] if is_list and value else value
            if key in seen | set(LEFT_OUT) or not isinstance(number, int | float | None):
                continue
            seen.add(key)
            if not isinstance(number, bool):
                yield from ((form, key, f"[{each}]" if is_list else each) for each in EXTREMES)


def test_an_extreme_number_trains_or_is_refused_in_words(tmp_path, draws, fault):
    extremes = fault(25, "each number of a config at its extremes, trained with")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**MINIMAL, "training": {"epochs": 1, "num_threads": 1}}))
    data = write_tiny_pcam(tmp_path / "data", num_train=64, num_valid=32)
    settings = list(extreme_settings(config))
    random.Random(0).shuffle(settings)
    where = {"data.data_path": data, "output_dir": tmp_path / "runs", "tracking.tensorboard": False}
    for form, key, value in settings[: draws(full=len(settings), short=12)]:
        with extremes.case(f"{key}={value}"):
            sets = with_sets({**form, **where, key: value})
            code, _, err = command("train", config, "--json", *sets)
            assert code == 0 or is_refusal_in_words(code, err)


# ---- that the fuzzer would notice --------------------------------------------------------------


def test_the_fuzzer_sees_a_loader_that_keeps_the_last_of_two_keys(tmp_path, monkeypatch, fault):
    monkeypatch.setattr("ml_core.yaml_file._StrictLoader", yaml.SafeLoader)
    cases = Fault(25, "a loader that is not strict")
    fuzz(tmp_path, range(60), cases)
    assert any("given twice" in case for case in cases.lost_cases)
    fault(24, "config files: the strict loader").held("60 files fuzzed")


def test_the_fuzzer_sees_a_key_that_is_dropped_without_a_word(tmp_path, monkeypatch, fault):
    def drop(raw, path):
        move(raw, path)
        raw.pop("optimizer", None)

    move = ml_core.config.root._move_course_keys
    monkeypatch.setattr("ml_core.config.root._move_course_keys", drop)
    cases = Fault(25, "a loader that drops a key")
    fuzz(tmp_path, range(60), cases)
    assert any("optimizer.lr" in case for case in cases.lost_cases)
    fault(24, "config files: the course's keys").held("60 files fuzzed")
