"""A command typed in a folder that somebody has removed meanwhile."""

import pytest

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
