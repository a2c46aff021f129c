"""What the user sees while a command runs: plain lines, and progress bars on a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

ROOT_NAME = "ml_core"
Item = TypeVar("Item")


def setup_logger(name: str = ROOT_NAME, level: int = logging.INFO) -> logging.Logger:
    """Return a logger that writes time, name, level and message to standard error, once a line."""
    logger = logging.getLogger(name)
    logger.setLevel(level)
    if not any(getattr(handler, "is_ml_core", False) for handler in logger.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(
            logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s")
        )
        handler.is_ml_core = True  # type: ignore[attr-defined]  # so that a second call adds none
        logger.addHandler(handler)
        logger.propagate = False
    return logger


@cache
def console() -> Console:
    """Return the one console all output goes through, so that lines and bars do not mix."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, emoji=False)  # a path may hold ":100:"


class _ConsoleHandler(logging.Handler):
    """Prints messages as they are; warnings and errors carry their level."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().rstrip()
        if record.levelno >= logging.ERROR:
            console().print(f"error: {text}", style="bold red", markup=False)
        elif record.levelno >= logging.WARNING:
            console().print(f"warning: {text}", style="yellow", markup=False)
        else:
            console().print(text, markup=False)


def setup_cli_logging() -> None:
    """Send everything under `ml_core`, and Python's warnings, to the console as plain lines."""
    logging.captureWarnings(True)
    for name in (ROOT_NAME, "py.warnings"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = [_ConsoleHandler()]
        logger.propagate = False


def shown(path: Path) -> str:
    """Return `path` as a person standing in the current folder would type it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def progress(
    items: Iterable[Item], *, total: int | None, description: str, unit: str = "batches"
) -> Iterator[Item]:
    """Yield items; on a terminal draw a bar with rate and time left that goes when done."""
    with counted(description, total, unit) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def counted(
    description: str, total: int | None, unit: str = "patches"
) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more are done; draws the same bar as `progress`."""
    if not (sys.stdout.isatty() and console().is_terminal):
        yield lambda _num: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.1f} {unit}/s", style="cyan")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda num: bar.advance(task, num)
