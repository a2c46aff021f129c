"""Verbs that one process does, started by several ranks; and the one that ranks share."""

import pytest

from ml_core.cli import main


@pytest.fixture
def second_of_two(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("evaluate runs/a", "evaluate"),
        ("tune c.yaml", "tune"),
        ("--help", "--help"),
        ("train c.yaml --fast-dev-run", "train --fast-dev-run"),
        ("train c.yaml --lr-find", "train --lr-find"),
    ],
)
def test_what_one_process_does_is_refused_to_several_ranks(second_of_two, capsys, typed, named):
    with pytest.raises(SystemExit) as ended:
        main(typed.split())
    assert ended.value.code == 2
    assert f"2 ranks were started, but ml-core {named} works in one" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "run"])
def test_training_is_not_refused_to_ranks(second_of_two, capsys, tmp_path, verb):
    with pytest.raises(SystemExit):
        main([verb, str(tmp_path / "absent.yaml")])
    assert "absent.yaml" in capsys.readouterr().err
