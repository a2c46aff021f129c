"""What protects a run, how each protection is switched off, and the test that must then fail."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Protection(NamedTuple):
    """`target` (module:name or module:class.method) becomes `make(original)`; `test` then fails."""

    name: str
    target: str
    make: Callable[[Any], Any]
    test: str

    def switch_off(self) -> None:
        """Put the replacement wherever ml_core refers to the original."""
        module_name, _, path = self.target.partition(":")
        holder: Any = importlib.import_module(module_name)
        *parents, name = path.split(".")
        for parent in parents:
            holder = getattr(holder, parent)
        original = getattr(holder, name)
        replacement = self.make(original)
        setattr(holder, name, replacement)
        for key, module in list(sys.modules.items()):
            if key.startswith("ml_core") and not parents:
                for reference in [k for k, v in vars(module).items() if v is original]:
                    setattr(module, reference, replacement)


def nothing(_original: Any) -> Any:
    """Return a function that lets everything pass."""
    return lambda *_args, **_kwargs: None


def always(value: Any) -> Callable[[Any], Any]:
    """Return what makes a function that returns `value`."""
    return lambda _original: lambda *_args, **_kwargs: value


def no_context(_original: Any) -> Any:
    return lambda *_args, **_kwargs: contextlib.nullcontext()


def in_place(_original: Any) -> Any:
    """Return a writer that writes over the file instead of aside."""

    @contextlib.contextmanager
    def written_in_place(path: Any) -> Any:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path

    return written_in_place


def trust_the_line(_original: Any) -> Any:
    """Return a reader of log lines that asks no checksum."""

    def read(self: Any, line: bytes) -> Any:
        self.num_lines += 1
        record = json.loads(line)
        record.pop("crc", None)
        return record

    return read


def keep_the_torn_line(_original: Any) -> Any:
    def touch(path: Any) -> int:
        path.touch()
        return int(path.stat().st_size)

    return touch


def shuffle_by_what_was_drawn_before(_original: Any) -> Any:
    import numpy as np

    return lambda _seed, _epoch, num, _column: np.random.permutation(num)


def forget_the_position(set_epoch: Any) -> Any:
    return lambda self, epoch, start_batch=0: set_epoch(self, epoch)


def by_place_in_the_batch(augment: Any) -> Any:
    """Return an augmentation that is a function of a patch's place instead of its index."""
    import torch

    return lambda self, images, index: augment(self, images, torch.arange(len(index)))


def torchs_own(_original: Any) -> Any:
    """Return a function mode that leaves every function to torch."""
    return lambda self, function, types, args=(), kwargs=None: function(*args, **(kwargs or {}))


def end_at_once(_original: Any) -> Any:
    def end(*_args: Any) -> None:
        raise InterruptedError("by a signal")

    return end


def sums_of_floats(_original: Any) -> Any:
    from ml_core.solver.gradient_sum import PlainSum

    return lambda *_args: PlainSum()


def safe_loader(_original: Any) -> Any:
    import yaml

    return yaml.SafeLoader


def finite_always(original: Any) -> Any:
    import types

    blind = types.SimpleNamespace(**{name: getattr(original, name) for name in dir(original)})
    blind.isfinite = lambda _number: True
    return blind


PROTECTIONS = (
    Protection(
        "checkpoints: the digests", "ml_core.checkpoint.files:_verify", nothing,
        "test_checkpoint.py::test_one_flipped_bit_anywhere_is_found_and_the_generation_before_is_used",
    ),
    Protection(
        "files: written aside and renamed", "ml_core.durable:written_aside", in_place,
        "test_runs.py::test_a_write_that_fails_leaves_the_old_file_and_nothing_else",
    ),
    Protection(
        "logs: the checksum of a line", "ml_core.log_line:LineReader.read", trust_the_line,
        "test_log_line.py::test_one_flipped_bit_anywhere_is_named_with_file_and_line",
    ),
    Protection(
        "logs: the cut of a torn line", "ml_core.tracking.log_file:_cut_torn_line",
        keep_the_torn_line,
        "test_tracking.py::test_a_line_cut_short_by_a_crash_is_never_continued",
    ),
    Protection(
        "logs: cut back at a resume",
        "ml_core.tracking.tracker:ExperimentTracker.truncate", nothing,
        "test_trainer.py::test_steps_logged_after_the_checkpoint_are_logged_once_on_resume",
    ),
    Protection(
        "two writers: the look before a publish", "ml_core.lease.lease:Lease.check", nothing,
        "test_lease.py::test_a_save_after_the_takeover_publishes_nothing",
    ),
    Protection(
        "two writers: the lineage of checkpoints", "ml_core.lease.lineage:Lineage.accepts",
        always(True),
        "test_lease.py::test_a_writer_counts_up_to_where_a_later_one_took_over",
    ),
    Protection(
        "signals: a request, not an end", "ml_core.solver.interrupt:StopRequest._note", end_at_once,
        "test_interrupt.py::test_the_first_signal_is_noted_and_nothing_is_interrupted",
    ),
    Protection(
        "order: drawn from seed and epoch", "ml_core.data.loader:_permutation",
        shuffle_by_what_was_drawn_before,
        "test_loader.py::test_the_order_is_a_function_of_seed_and_epoch",
    ),
    Protection(
        "resume: the position in the epoch", "ml_core.data.loader:EpochBatches.set_epoch",
        forget_the_position,
        "test_trainer.py::test_a_resumed_run_ends_in_the_same_bits",
    ),
    Protection(
        "augmentation: drawn by the patch's index", "ml_core.data.augment:Augmenter.__call__",
        by_place_in_the_batch,
        "test_augment.py::test_the_batch_a_patch_comes_in_changes_nothing",
    ),
    Protection(
        "dropout: drawn by the patch's index",
        "ml_core.numerics.keyed_dropout:_KeyedDropout.__torch_function__", torchs_own,
        "test_keyed_dropout.py::test_the_batch_a_patch_comes_in_changes_nothing",
    ),
    Protection(
        "initial weights: drawn by name", "ml_core.numerics.initial_weights:draw_weights",
        always([]),
        "test_initial_weights.py::test_nothing_but_seed_and_name_decides",
    ),
    Protection(
        "elastic: sums of integers", "ml_core.solver.gradient_sum:FixedPointSum", sums_of_floats,
        "test_training_levels.py::test_the_order_of_the_micro_batches_is_not_felt",
    ),
    Protection(
        "portable: exact arithmetic", "ml_core.numerics.arithmetic:_exactly", no_context,
        "test_exact_mode.py::test_a_patch_has_the_same_logits_in_any_batch_and_at_any_place",
    ),
    Protection(
        "portable: the known answers", "ml_core.numerics.exact.known_answer:check_exact", nothing,
        "test_exact_known_answer.py::test_another_result_of_any_function_is_refused_by_its_name",
    ),
    Protection(
        "training: the look at loss and gradient", "ml_core.solver.step:math", finite_always,
        "test_trainer.py::test_training_stops_at_the_first_value_that_is_not_finite",
    ),
    Protection(
        "environment: the team of threads",
        "ml_core.reproducibility.preflight:_refuse_uncertain_teams", nothing,
        "test_preflight.py::test_a_variable_that_breaks_the_level_is_refused_by_its_name",
    ),
    Protection(
        "environment: the cache of compiled code",
        "ml_core.reproducibility.compile_cache:refuse_foreign_cache", nothing,
        "test_preflight.py::test_a_cache_of_another_instruction_set_is_refused",
    ),
    Protection(
        "environment: the same numerics at a resume",
        "ml_core.reproducibility.same_numerics:what_differs", always(()),
        "test_preflight.py::test_what_a_level_depends_on_must_be_as_it_was",
    ),
    Protection(
        "data: the same bytes at a resume", "ml_core.pipeline.parts.splits:refuse_other_data",
        nothing,
        "test_pipeline.py::test_a_run_whose_data_have_changed_is_neither_evaluated_nor_resumed",
    ),
    Protection(
        "configs: no key twice", "ml_core.yaml_file:_StrictLoader", safe_loader,
        "test_config.py::test_a_key_given_twice_is_refused_with_its_line",
    ),
    Protection(
        "record: secrets in the difference of the code",
        "ml_core.reproducibility.secret_text:why_secret", nothing,
        "test_reproducibility.py::test_what_may_hold_a_secret_is_named_and_not_copied",
    ),
    Protection(
        "record: the patches in the chain", "ml_core.tracking.chain:Chain.note_batch", nothing,
        "test_chain.py::test_each_link_depends_on_every_state_and_every_batch_before_it",
    ),
    Protection(
        "studies: when a process began", "ml_core.search.process:start_time", always(1),
        "test_search_study.py::test_a_process_is_known_by_its_pid_and_when_it_began",
    ),
    Protection(
        "MLflow: one sender at a time", "ml_core.tracking.sync_lock:only_sender", no_context,
        "test_mlflow_sync.py::test_two_syncers_of_one_run_take_turns",
    ),
    Protection(
        "MLflow: the password in an address", "ml_core.tracking.sync_state:without_password",
        lambda _original: lambda uri: uri,
        "test_mlflow_sync.py::test_a_password_in_the_address_is_never_written_or_shown",
    ),
)  # fmt: skip
