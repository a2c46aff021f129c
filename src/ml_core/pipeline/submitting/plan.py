"""Which jobs a submission is made of, each after the one before it.

train, run       one job, or an array of one job per seed
tune             begin the study, then an array of workers on it
chain            audit -> begin -> workers -> select -> evaluate -> report, on valid only
all others       one job
"""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path

from ml_core.cluster.interpreter import Interpreter
from ml_core.cluster.job_request import JobRequest
from ml_core.cluster.profile import Profile
from ml_core.config import Config
from ml_core.errors import ConfigError
from ml_core.pipeline.submitting.words import CHAIN, SEARCH, Words

SHARED_BY_RANKS = ("train", "run")  # all others are one process
WITHOUT_GPUS = ("audit", "report", "compare")  # select scores what was not scored yet
STAGED = ("train", "run", "evaluate", "explain", "slice")  # they read whole splits, some often


@dataclass(frozen=True)
class Order:
    """What all jobs of a submission share."""

    folder: Path  # absolute, of scripts, logs and config.yaml
    stamp: str  # "20260102-030405", which no other submission of this verb and experiment has
    name: str
    profile: Profile
    interpreter: Interpreter
    submit_options: tuple[str, ...] = ()  # --profile and --ask, as they are typed again
    after: tuple[str, ...] = ()
    num_workers: int | None = None  # jobs that search; search.num_workers where None
    code_sha256: str | None = None
    is_staged: bool = False  # whether each node copies the data to its own disk

    @property
    def config_path(self) -> Path:
        return self.folder / "config.yaml"


@dataclass(frozen=True)
class PlannedJob:
    """A job as it will be asked for; the id of the one before it is not known yet."""

    request: JobRequest
    profile: Profile
    go_on: str  # what to do when it has ended too early

    @property
    def script_path(self) -> Path:
        return self.request.folder / f"{self.request.name}.sh"


def plan_jobs(
    words: Words, config: Config | None, order: Order, *, is_new: bool
) -> list[PlannedJob]:
    """Return the jobs in their order; with `is_new` they read the snapshot at order.config_path.

    Raises ConfigError where the verb has no use for `order.num_workers`.
    """
    if order.num_workers is not None and words.verb not in SEARCH:
        raise ConfigError(f"--array is how many jobs search; {words.verb} does not. Leave it out.")
    first, *others = _plan(words, config, order, is_new=is_new)
    request = dataclasses.replace(first.request, after=order.after)
    return [dataclasses.replace(first, request=request), *others]


def _plan(words: Words, config: Config | None, order: Order, *, is_new: bool) -> list[PlannedJob]:
    if words.verb == "tune":
        return _tune(words, config, order)
    if words.verb == CHAIN:
        return _chain(words, config, order)
    return [_one_verb(words, config, order, is_new=is_new)]


def _one_verb(words: Words, config: Config | None, order: Order, *, is_new: bool) -> PlannedJob:
    if not is_new:
        again = _again(order, *words.render())
        return _job(order, order.name, words.render(), again, config)
    assert config is not None
    read = dataclasses.replace(words, places=(order.config_path,), overrides=()).render()
    if words.verb not in SHARED_BY_RANKS or "--lr-find" in words.options:
        return _job(order, order.name, read, _again(order, *read), config)
    runs = config.output_dir / config.experiment_name
    resume = _again(order, words.verb, "--resume", "RUN")
    go_on = f"{resume}, where RUN is the folder in {runs} that its log names; if none, submit anew"
    job = _job(order, order.name, read, go_on, config)
    seeds = config.all_seeds if len(config.all_seeds) > 1 else ()
    each = tuple(("--set", f"seeds=[{seed}]") for seed in seeds)
    request = dataclasses.replace(job.request, array_arguments=each, resume_dir=runs)
    return dataclasses.replace(job, request=request)


def _tune(words: Words, config: Config | None, order: Order) -> list[PlannedJob]:
    assert config is not None
    if words.resume is not None:
        return [_workers(words, config, order, words.resume, order.name)]
    study = words.study or _new_study(config, order)
    return [
        _begin(words, config, order, study),
        _workers(words, config, order, study, f"{order.name}-workers"),
    ]


def _chain(words: Words, config: Config | None, order: Order) -> list[PlannedJob]:
    assert config is not None
    study = words.study or _new_study(config, order)
    champion = str(study / "champion.json")
    follow = [("select", str(study)), ("evaluate", champion), ("report", champion)]
    return [
        _audit(config, order),
        _begin(words, config, order, study),
        _workers(words, config, order, study, f"{order.name}-workers"),
        *(_job(order, f"{order.name}-{w[0]}", w, _again(order, *w), config) for w in follow),
    ]


def _new_study(config: Config, order: Order) -> Path:
    return config.output_dir / config.experiment_name / f"study-{order.stamp}"


def _audit(config: Config, order: Order) -> PlannedJob:
    """Audit first; what it finds ends the chain only where the config says so."""
    goes_on = config.data.on_findings != "refuse"
    words = ("audit", str(order.config_path), *(("--fail-on", "nothing") if goes_on else ()))
    return _job(order, f"{order.name}-audit", words, _again(order, *words), config)


def _begin(words: Words, config: Config, order: Order, study: Path) -> PlannedJob:
    begin = ("tune", str(order.config_path), "--study", str(study), "--workers", "0")
    go_on = _again(order, *begin[:-2])
    return _job(order, f"{order.name}-begin", (*begin, *words.options), go_on, config)


def _workers(words: Words, config: Config, order: Order, study: Path, name: str) -> PlannedJob:
    assert config.search is not None
    num = order.num_workers or config.search.num_workers
    resume = ("tune", "--resume", str(study))
    job = _job(
        order,
        name,
        (*resume, "--workers", str(words.workers or 1), *words.options),
        _again(order, *resume),
        config,
    )
    return dataclasses.replace(
        job, request=dataclasses.replace(job.request, array_arguments=((),) * num)
    )


def _job(
    order: Order, name: str, words: tuple[str, ...], go_on: str, config: Config | None
) -> PlannedJob:
    verb = words[0]
    is_shared = verb in SHARED_BY_RANKS and "--lr-find" not in words
    stage = config.data.data_path if config and order.is_staged and verb in STAGED else None
    request = JobRequest(
        name=name,
        arguments=words,
        folder=order.folder,
        python=order.interpreter.path,
        python_version=order.interpreter.version,
        stage=stage,
        nodes=None if is_shared else 1,
        tasks_per_node=None if is_shared else 1,
        code_sha256=order.code_sha256,
    )
    bare = order.profile.model_copy(update={"gpus": None})
    return PlannedJob(request, bare if verb in WITHOUT_GPUS else order.profile, go_on)


def _again(order: Order, *words: str) -> str:
    return shlex.join(["ml-core", "submit", *words, *order.submit_options])
