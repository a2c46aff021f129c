"""The test at the start of a portable run, and that it notices what it is there for."""

import pytest
import torch
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.config import Config
from ml_core.errors import ConfigError
from ml_core.numerics.exact import check_exact, known_answer, rounding
from ml_core.pipeline.train import train


def test_this_machine_gives_the_known_answers_at_any_number_of_threads():
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            check_exact("cpu")
    finally:
        torch.set_num_threads(before)


def test_products_that_lose_bits_are_refused(monkeypatch):
    whole = torch.Tensor.__matmul__

    def emulated(self, other):
        if self.dtype != torch.float64:
            return whole(self, other)
        return whole(self.float(), other.float()).double()

    monkeypatch.setattr(torch.Tensor, "__matmul__", emulated)
    with pytest.raises(
        ConfigError, match=r"portable cannot be honoured.*a product of matrices.*elastic or fast"
    ):
        check_exact("cpu")


def test_flushed_subnormal_numbers_are_refused():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        with pytest.raises(ConfigError, match="a division, a root or a small number"):
            check_exact("cpu")
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("what", known_answer.KNOWN)
def test_another_result_of_any_function_is_refused_by_its_name(what, monkeypatch):
    monkeypatch.setitem(known_answer.KNOWN, what, "0" * 16)
    with pytest.raises(ConfigError, match=what):
        check_exact("cpu")


def test_factors_with_a_bit_too_many_are_noticed(monkeypatch):
    monkeypatch.setattr(known_answer, "FACTOR_BITS", rounding.FACTOR_BITS + 1)
    assert not known_answer._products_are_whole("cpu")


def test_a_portable_run_is_refused_there_before_it_has_a_directory(monkeypatch, tmp_path):
    path = write_config(tmp_path / "config.yaml", write_tiny_pcam(tmp_path / "data"))
    portable = ["training.numerics=portable", "data.on_findings=ignore"]
    monkeypatch.setitem(known_answer.KNOWN, "the loss", "0" * 16)
    config = Config.load(path, portable)
    with pytest.raises(ConfigError, match="Wrong is the loss"):
        train(config, command="test")
    assert not (config.output_dir / config.experiment_name).exists()
