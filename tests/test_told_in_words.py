"""What the command line says where the machine fails under it, in place of a traceback."""

import errno
import os

import pytest

import ml_core.pipeline.jobs as stage
from ml_core.cli import main


@pytest.mark.parametrize("typed", ["doctor", "submit train c.yaml", "train c.yaml", "jobs"])
def test_a_folder_that_was_removed_is_told_and_no_traceback(tmp_path, monkeypatch, capsys, typed):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(SystemExit) as ended:
        main(typed.split())
    assert ended.value.code == 2
    assert "the folder that you are in was removed" in capsys.readouterr().err


def fail_with(monkeypatch, error: Exception) -> None:
    """Let `ml-core jobs` meet `error`."""

    def jobs(*_, **__):
        raise error

    monkeypatch.setattr(stage, "jobs", jobs)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOSPC, errno.ENOTCONN])
def test_what_a_disk_does_where_nobody_looks_is_told_with_its_file(monkeypatch, capsys, number):
    fail_with(monkeypatch, OSError(number, os.strerror(number), "runs/a/figures"))
    with pytest.raises(SystemExit) as ended:
        main(["jobs"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert f"error: the system says: {os.strerror(number)} (runs/a/figures)." in told
    assert "run the command again" in told


@pytest.mark.parametrize("error", [KeyError("x"), OSError("x"), FileNotFoundError(2, "x", "y")])
def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch, error):
    fail_with(monkeypatch, error)
    with pytest.raises(type(error)):
        main(["jobs"])
