"""When a server that fails is asked again, and when it is given up."""

from __future__ import annotations

import email.utils
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message

from ml_core.errors import DataError

logger = logging.getLogger("ml_core.data")


class TryAgainError(Exception):
    """Something that may be better the next time."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s  # what the server asks for


@dataclass(frozen=True)
class Patience:
    """When to ask again and when to give up.

    After failure n without any progress: `first_wait_s` * 2**(n - 1), at most `longest_wait_s`,
    times a random factor from 0.5 to 1, so that many machines do not come back together; or what
    the server asks for (Retry-After), at most `longest_asked_s`.
    """

    num_attempts: int = 8  # in a row without progress: at least a minute, with these waits
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    longest_asked_s: float = 600.0
    timeout_s: float = 60.0  # for a connection, and for the next bytes
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.Random().random

    def wait(self, url: str, problem: TryAgainError, num_failures: int) -> None:
        """Sleep before asking `url` again; raises DataError when it asks to be left alone long."""
        if problem.wait_s is not None and problem.wait_s > self.longest_asked_s:
            raise DataError(
                f"{url}: {problem}, and asks to come back in {problem.wait_s:,.0f} s. Run this "
                "again then; it goes on where it is."
            ) from problem
        wait_s = min(self.first_wait_s * 2 ** (num_failures - 1), self.longest_wait_s)
        wait_s *= 0.5 + self.jitter() / 2
        wait_s = max(wait_s, problem.wait_s or 0.0)
        logger.info("%s: %s; asking again in %.0f s.", url, problem, wait_s)
        self.sleep(wait_s)


def asked_wait_s(headers: Message) -> float | None:
    """Return the seconds that Retry-After asks for; a date is taken by the server's own clock."""
    asked = headers.get("Retry-After", "").strip()
    if asked.isdigit():
        return float(asked)
    try:
        until = email.utils.parsedate_to_datetime(asked)
        now = email.utils.parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return None
