"""Work in a process of its own, told piece by piece: what kills it kills no more than it."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal, NamedTuple, TypeVar

from ml_core.errors import MLCoreError
from ml_core.pipeline.benchmarking.measuring.device_faults import (
    is_device_error,
    is_out_of_memory,
    told,
)

T = TypeVar("T")

_LEAVES_S = 5.0  # for a child that has said its last
SILENT_S = 600.0  # a child that reports nothing for so long hangs; to compile takes minutes
# Imported once, by the process that children are forked from, instead of by each child: 2 s, and
# 1 s for what torch imports at the first optimizer. That starts no device, so a fork is safe.
PRELOADED = ["ml_core.pipeline.benchmarking.measuring.computing", "torch._dynamo"]


def in_child(
    task: Callable[..., None], *arguments: Any, on_report: Callable[[T], None] | None = None
) -> tuple[list[T], str]:
    """Return what `task(report, *arguments)` reported, and "" or in words why it ended early.

    The task is a function of a module, and all that goes to and fro can be pickled; `on_report` is
    told of each report as it comes. Early is: killed, out of memory, given up by its device, silent
    for ten minutes. An MLCoreError of the task is raised here as it is; any other error is our own
    mistake, and raised as a RuntimeError with the child's traceback.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(writer, task, arguments))
    child.start()
    writer.close()  # ours: with the child's, which ends with it, the pipe ends
    reports = list[T]()
    try:
        message = _next_message(reader, child)
        while message.kind == "report":
            reports.append(message.content)
            if on_report is not None:
                on_report(message.content)
            message = _next_message(reader, child)
        child.join(timeout=_LEAVES_S)  # it has said its last
    finally:
        reader.close()
        if child.is_alive():
            child.kill()
        child.join()
    if message.kind == "error":
        raise message.content
    return reports, message.content


class _Message(NamedTuple):
    kind: Literal["report", "end", "error"]
    content: Any  # of an end: why it is early, "" where it is not


def _run(writer: Connection, task: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Do the task in the child; say how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is told to all; the parent ends this one
    logging.getLogger("ml_core").setLevel(logging.ERROR)  # the parent has warned of these files
    try:
        task(lambda content: writer.send(_Message("report", content)), *arguments)
    except MLCoreError as error:
        end = _Message("error", type(error)(str(error)))
    except Exception as error:
        if is_out_of_memory(error) or is_device_error(error):
            end = _Message("end", told(error))
        else:
            end = _Message("error", RuntimeError(f"in a child process:\n{traceback.format_exc()}"))
    else:
        end = _Message("end", "")
    writer.send(end)


def _next_message(reader: Connection, child: BaseProcess) -> _Message:
    if not reader.poll(SILENT_S):
        child.kill()
        return _Message("end", f"it said nothing for {SILENT_S:g} s and was ended")
    try:
        message: _Message = reader.recv()
    except EOFError:
        child.join()
        return _Message("end", why_ended(child.exitcode))
    return message


def why_ended(exit_code: int | None) -> str:
    """Return in words what ended a process that had more to say."""
    if exit_code == -signal.SIGKILL:
        return "killed, by the system for want of memory or by somebody"
    if exit_code is not None and exit_code < 0:
        return f"ended by a signal ({signal.strsignal(-exit_code)})"
    return f"ended by itself, with exit status {exit_code}"
