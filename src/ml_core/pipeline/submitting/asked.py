"""The time and memory that jobs ask for, against what two batches took."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ml_core.cluster.profile import Profile
from ml_core.cluster.slurm import fields
from ml_core.config import Config
from ml_core.preflight.check import Check, error, ok, warning
from ml_core.preflight.memory import BASE_MB
from ml_core.preflight.slurm import memory_of

SAFETY = 2  # a node that is shared or slower than this machine, and the last epoch's looks
MEMORY_SAFETY = 1.5  # a few patches were read, and two batches drawn
# The command, and the server that trials are forked from, which have torch too: a trial that takes
# 600 MB was killed at 1.6 and 1.7 GB (Slurm's own sum of resident memory, torch 2.13 for CPUs).
SEARCH_MB = 1100
DEFAULT_TRIALS = 20  # of samplers tpe and random, see `search.num_trials`


def compare_with_asked(
    measured: Mapping[str, Any], profile: Profile, config: Config, *, searches: bool
) -> list[Check]:
    """Return what the fast run says about the time and the memory that `profile` asks for.

    Memory less than it took already is an error; time less than estimated a warning, since the job
    is started again at its limit.
    """
    time = _compare_time(measured, profile, config, searches)
    return [*time, *_compare_memory(measured, profile, searches)]


def _compare_time(
    measured: Mapping[str, Any], profile: Profile, config: Config, searches: bool
) -> Iterator[Check]:
    needed_s = measured.get("estimated_s")
    if needed_s is None:
        return
    asked_s = fields.seconds(profile.time)
    assert asked_s is not None, "a profile's time has this form"
    twice = _clock(SAFETY * needed_s)
    told = f"a {'trial' if searches else 'seed'} at this pace: {measured.get('estimate')}"
    if searches:
        told += f", and there are {_num_trials(config)} trials"
    if profile.gpus and measured.get("device") == "cpu":
        yield ok("time", f"{told}; that is of a CPU, a GPU takes less. Asked {profile.time}.")
    elif asked_s < needed_s:
        num_more = math.ceil(needed_s / asked_s) - 1
        yield warning(
            "time",
            f"{told}; asked {profile.time}, at whose end the job saves and is requeued, "
            f"{num_more} times.",
            f"In one go, with twice that for safety: --ask time={twice}",
        )
    else:
        yield ok("time", f"{told}; asked {profile.time}, and twice as long as it takes is {twice}.")


def _compare_memory(
    measured: Mapping[str, Any], profile: Profile, searches: bool
) -> Iterator[Check]:
    peak_mb, of_node_mb = measured.get("peak_rss_mb"), memory_of(profile)
    if peak_mb is None or of_node_mb is None:
        return
    asked_mb = of_node_mb / profile.tasks_per_node
    needed_mb = peak_mb + (SEARCH_MB if searches else 0)
    told = f"two batches took {peak_mb:.0f} MB"
    if searches:
        told += f", and a worker of a search takes {SEARCH_MB} MB besides"
    told += f"; asked {asked_mb:.0f} MB for each task."
    more = f"Ask for more: --ask mem_gb={math.ceil(MEMORY_SAFETY * needed_mb / 1024)}"
    if asked_mb < peak_mb:
        yield error("memory", told, more)
    elif asked_mb < needed_mb:  # no error: some sites count pages that processes share once
        yield warning("memory", told, more)
    else:
        yield ok("memory", told)


def check_search_memory(profile: Profile) -> list[Check]:
    """Return a warning where a worker of a search has too little memory whatever its model."""
    of_node_mb, needed_mb = memory_of(profile), BASE_MB + SEARCH_MB
    if of_node_mb is None or of_node_mb / profile.tasks_per_node >= needed_mb:
        return []
    told = f"a worker of a search takes {needed_mb} MB or more; asked {of_node_mb} MB."
    more = f"Ask for more: --ask mem_gb={math.ceil(MEMORY_SAFETY * needed_mb / 1024)}"
    return [warning("memory", told, more)]


def _num_trials(config: Config) -> str:
    assert config.search is not None
    if config.search.trials is not None:
        return str(len(config.search.trials))
    if config.search.num_trials is None and config.search.sampler == "grid":
        return "all of its grid's"
    return str(config.search.num_trials or DEFAULT_TRIALS)


def _clock(seconds: float) -> str:
    """Return "HH:MM:SS", in whole minutes, as a profile's time is written."""
    minutes = max(1, math.ceil(seconds / 60))
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"
