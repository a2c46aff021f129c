"""`ml-core benchmark` as it is typed: what reaches the stage, and what is refused before."""

import pytest
from tiny_pcam import write_config, write_tiny_pcam
from typed import typed

from ml_core.pipeline import benchmark as stage


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / "a.yaml", write_tiny_pcam(tmp_path / "data", 16, 8))


@pytest.fixture
def asked(monkeypatch):
    """What the stage was asked for, in place of measuring it."""
    calls = []

    def noted(name):
        def note(*arguments, **options):
            calls.append((name, arguments, options))
            return {"status": "completed"}

        return note

    for name in ("benchmark", "compare", "table_of"):
        monkeypatch.setattr(stage, name, noted(name))
    return calls


def test_a_config_is_measured_as_the_options_say(config, asked, capfd, tmp_path):
    done = typed(
        capfd, "benchmark", config, "--quick", "--profile", "--batch-sizes", "64,1,64",
        "--seconds", "0.2", "--out", tmp_path / "out", "--set", "data.batch_size=8", "--json",
    )  # fmt: skip
    assert done.json == {"status": "completed"}
    [(name, (found,), options)] = asked
    assert name == "benchmark" and found.data.batch_size == 8
    assert options.pop("command").startswith("ml-core benchmark ")
    assert options == {
        "quick": True, "profile": True, "sizes": (1, 64), "seconds": 0.2, "out": tmp_path / "out",
    }  # fmt: skip


def test_of_two_configs_the_second_alone_is_overridden_by_other(config, asked, capfd):
    typed(capfd, "benchmark", "--compare", config, "--other", "data.placement=ram")
    [(name, (a, b), options)] = asked
    assert name == "compare"
    assert (a.data.placement, b.data.placement) == ("file", "ram")
    assert options["names"] == ("a", "a data.placement=ram")


def test_what_was_measured_elsewhere_is_put_into_a_table(asked, capfd, tmp_path):
    typed(capfd, "benchmark", "--table", tmp_path, tmp_path / "benchmark.json")
    assert asked == [("table_of", ([tmp_path, tmp_path / "benchmark.json"],), {})]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["A", "A"], "2 paths were given"),
        (["A", "--compare"], "takes two configs, or one with --other"),
        (["A", "A", "A", "--compare"], "takes two configs"),
        (["A", "--other", "data.batch_size=8"], "give --compare A B as well"),
        (["A", "A", "--compare", "--table"], "give one"),
        (["A", "--batch-sizes", "1,x"], "whole numbers above 0"),
        (["A", "--batch-sizes", "0"], "whole numbers above 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_measured(
    config, asked, capfd, words, told
):
    done = typed(capfd, "benchmark", *[config if word == "A" else word for word in words])
    assert done.code == 2 and told in done.out
    assert asked == []
