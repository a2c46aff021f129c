"""What the user sees: plain lines as they are, and bars on a terminal only."""

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ml_core.log import progress, setup_cli_logging, setup_logger, shown


@pytest.fixture(autouse=True)
def loggers_as_before():
    """Loggers are global: put back what a test sets."""
    names = ("ml_core", "py.warnings", "ml_core.other")
    loggers = [logging.getLogger(name) for name in names]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    yield
    logging.captureWarnings(False)
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.level, logger.propagate = handlers, level, propagate
        logger.manager._clear_cache()  # what isEnabledFor remembers of the other level


def on_a_terminal(code: str) -> str:
    """Return what `code` writes when its output is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            more = b""
        if not more:
            break
        written += more
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode()


# ---- lines -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "shape [3, 96, 96] [bold]not bold[/bold] [/nothing] [link=x]",
        "path /data/a:100:b/:smile:/x",
        "a long line " + "x" * 500 + " that is not wrapped",
        "50 % of the \u00e9l\u00e8ves, {braces} and %s",
        "  two spaces before, 1.5 'quoted' 2026-01-02 http://a.b",
    ],
)
def test_a_line_is_printed_as_it_is(capsys, line):
    setup_cli_logging()
    logging.getLogger("ml_core.train").info("%s", line)
    assert capsys.readouterr().out == line + "\n"


def test_warnings_and_errors_carry_their_level_and_details_stay_away(capsys):
    setup_cli_logging()
    logger = logging.getLogger("ml_core.train")
    logger.debug("details")
    logger.warning("[a] %d", 1)
    logger.error("[b]")
    assert capsys.readouterr().out == "warning: [a] 1\nerror: [b]\n"


def test_setting_up_the_command_line_twice_prints_once(capsys):
    setup_cli_logging()
    setup_cli_logging()
    logging.getLogger("ml_core.train").info("once")
    assert capsys.readouterr().out == "once\n"


def test_pythons_own_warnings_are_not_lost():
    code = (
        "import warnings; from ml_core.log import setup_cli_logging; setup_cli_logging()\n"
        "warnings.warn('numbers overflow', RuntimeWarning)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("warning: ")
    assert "RuntimeWarning: numbers overflow" in done.stdout


def test_setting_up_a_logger_twice_does_not_duplicate_its_lines(capsys):
    for _ in range(3):
        logger = setup_logger("ml_core.other")
    logger.info("to [be] said")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(" - ml_core.other - INFO - to [be] said")


def test_a_logger_below_another_does_not_say_things_twice(capsys):
    setup_logger()
    setup_logger("ml_core.other").info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_the_level_of_a_logger_can_be_chosen_and_changed(capsys):
    setup_logger("ml_core.other", logging.WARNING).info("not this")
    setup_logger("ml_core.other", logging.DEBUG).debug("but this")
    written = capsys.readouterr().err
    assert "not this" not in written and "but this" in written


def test_a_path_is_shown_as_one_would_type_it_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "runs" / "a") == "runs/a"
    assert shown(Path("/elsewhere/a")) == "/elsewhere/a"


# ---- progress ----------------------------------------------------------------------------------


def test_progress_is_silent_when_the_output_is_not_a_terminal(capsys):
    assert list(progress(iter("abc"), total=3, description="epoch 1")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_progress_takes_nothing_before_it_is_asked_and_hands_errors_on():
    def failing():
        yield 1
        raise ValueError("from the loader")

    items = progress(failing(), total=None, description="d")
    assert next(items) == 1
    with pytest.raises(ValueError, match="from the loader"):
        next(items)


def test_on_a_terminal_there_is_a_bar_with_count_rate_and_time_left_that_goes():
    written = on_a_terminal(
        "import time\n"
        "from ml_core.log import progress, setup_cli_logging\n"
        "import logging\n"
        "setup_cli_logging()\n"
        "for item in progress(range(20), total=20, description='[a].h5 epoch 1 train'):\n"
        "    time.sleep(0.03)\n"
        "    if item == 10: logging.getLogger('ml_core.train').info('a [line] between')\n"
        "print('after')\n"
    )
    assert "[a].h5 epoch 1 train" in written
    assert "/20" in written and "batches/s" in written and "0:00:0" in written
    assert "a [line] between" in written
    end = written.index("after")
    assert written.rindex("\x1b[2K", 0, end) > written.rindex("epoch 1 train")  # line erased
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # cursor shown again


def test_a_bar_left_by_an_error_gives_the_cursor_back():
    written = on_a_terminal(
        "from ml_core.log import progress\n"
        "def train():\n"
        "    bar = progress(range(5), total=5, description='d')\n"
        "    for item in bar:\n"
        "        raise KeyError('[bold]kept[/bold]')\n"
        "try: train()\n"
        "except KeyError as error: print(error)\n"
    )
    assert "[bold]kept[/bold]" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
