"""What a cluster wants to be asked: partition, cores, memory, modules and the like, from YAML.

Built in are those of `profiles/`. One's own is a YAML file, which may start from another:

    base: snellius-gpu
    account: your-account
    python: ~/venvs/pcam
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from ml_core.cluster import job_request
from ml_core.config.section import PositiveInt, Section
from ml_core.config_problems import Words, explain
from ml_core.errors import ConfigError, did_you_mean
from ml_core.yaml_file import parse_yaml, read_yaml

BUILT_IN_DIR = Path(__file__).parent / "profiles"

# Slurm's own grammars, from sbatch(1): a list of names, a time, and GPUs as type and number.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.,:+-]*$"
CONSTRAINT = r"^[A-Za-z0-9_.,:&|()\[\]*@-]+$"
NODES = r"^[A-Za-z0-9][A-Za-z0-9_.,\[\]-]*$"
TIME = r"^(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d$"
GPUS = f"^{job_request.GPUS.pattern}$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
MODULE = r"^[A-Za-z0-9][A-Za-z0-9_.+/-]*$"
LINE = r"^[^\n\r]*$"
OPTION = r"^--[a-z][a-z0-9-]*(=[^\n\r]*)?$"
WORDS = Words(
    {
        NAME: "a name, or several with commas, of letters, digits, '_', '.', '+', ':' and '-'",
        CONSTRAINT: "features of nodes, with & and | between them",
        NODES: "names of nodes, such as n1,n2 or gcn[1-4]",
        TIME: '"HH:MM:SS" or "D-HH:MM:SS", in quotes: YAML takes 12:00:00 for a number',
        GPUS: "a number of GPUs, or type:number such as a100:1",
        VARIABLE: "the name of an environment variable, without $",
        MODULE: "the name of a module, such as Python/3.12.3-GCCcore-13.3.0; in quotes if a number",
        LINE: "one line of text",
        OPTION: "an option of sbatch with its value after '=', such as --mail-type=END",
    },
    {},
)


def _number_as_text(value: Any) -> Any:
    """Let `gpus: 1` and `modules: [2024]` be written as they are spoken."""
    return str(value) if type(value) is int else value


Name = Annotated[str, Field(pattern=NAME)]
Gpus = Annotated[str, BeforeValidator(_number_as_text), Field(pattern=GPUS)]
Module = Annotated[str, BeforeValidator(_number_as_text), Field(pattern=MODULE)]

# What a job script must say itself, or it would not be followed, logged or requeued.
KEPT_OPTIONS = frozenset({
    "account", "array", "begin", "chdir", "constraint", "cpus-per-task", "dependency", "error",
    "exclude", "export", "gpus", "gres", "gpus-per-node", "gpus-per-task", "job-name",
    "kill-on-invalid-dep", "mem", "mem-per-cpu", "no-requeue", "nodes", "ntasks",
    "ntasks-per-node", "open-mode", "output", "parsable", "partition", "qos", "requeue", "signal",
    "time", "wrap",
})  # fmt: skip


class Share(Section):
    """What one task should take of a partition's nodes."""

    gpus: Gpus | None = Field(None, description="GPUs of one task, or type:number")
    cpus_per_task: PositiveInt = Field(1, description="cores of one task")
    mem_gb: float | None = Field(None, gt=0, description="GiB of one task")


class Profile(Share):
    """How a cluster is asked. A task is one process; training on four GPUs has four of them."""

    base: str | None = Field(None, description="built-in profile that this one starts from")
    description: str = Field("", pattern=LINE, description="one line, for lists")
    partition: Name | None = Field(None, description="the cluster's default where not given")
    account: Name | None = Field(None, description="whom the hours are charged to")
    qos: Name | None = None
    constraint: str | None = Field(None, pattern=CONSTRAINT)
    exclude: tuple[Annotated[str, Field(pattern=NODES)], ...] = Field((), description="nodes")
    nodes: PositiveInt = 1
    tasks_per_node: PositiveInt = 1
    mem_per_cpu_gb: float | None = Field(None, gt=0, description="GiB per core, not mem_gb")
    time: str = Field("01:00:00", pattern=TIME, description="limit, where nobody measured one")
    partitions: dict[str, Share] = Field({}, description="what a task takes, by partition")
    modules: tuple[Module, ...] = Field((), description="in order")
    python: Path | None = Field(
        None, description="venv or interpreter; the one that submits, by default"
    )
    setup: tuple[str, ...] = Field((), description="lines of bash, run as they are, after modules")
    signal_s: int = Field(
        120, ge=30, le=3600, description="seconds before the limit at which a job is told to save"
    )
    requeue: bool = Field(True, description="start again after time limit, preemption, lost node")
    scratch: str | None = Field(
        "TMPDIR", pattern=VARIABLE, description="variable that names the local disk of a job"
    )
    sbatch: tuple[Annotated[str, Field(pattern=OPTION)], ...] = Field(
        (), description="more options"
    )

    @field_validator("time", mode="before")
    @classmethod
    def _refuse_a_number(cls, value: Any) -> Any:
        if isinstance(value, int | float):
            raise ValueError(f"allowed is {WORDS.patterns[TIME]}")
        return value

    @field_validator("setup")
    @classmethod
    def _check_lines(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        for line in lines:
            if line.lstrip().startswith("#SBATCH") or "\0" in line:
                raise ValueError(
                    f"{line!r} is for sbatch; put it under `sbatch`, as --option=value"
                )
        return lines

    @field_validator("sbatch")
    @classmethod
    def _refuse_kept_options(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        for option in options:
            if option[2:].partition("=")[0] in KEPT_OPTIONS:
                raise ValueError(
                    f"{option!r} is set by the job script itself; use the profile's own key, or an "
                    "option of ml-core submit"
                )
        return options

    @model_validator(mode="after")
    def _one_kind_of_memory(self) -> Self:
        if self.mem_gb is not None and self.mem_per_cpu_gb is not None:
            raise ValueError("mem_gb and mem_per_cpu_gb both say how much memory; keep one")
        return self


def list_profiles() -> dict[str, str]:
    """Return the description of each built-in profile, by name."""
    names = sorted(path.stem for path in BUILT_IN_DIR.glob("*.yaml"))
    return {name: load_profile(name).description for name in names}


def load_profile(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Profile:
    """Return a built-in profile, or that of a YAML file, with overrides such as "time=12:00:00".

    What a task takes is that of its partition in `partitions`, but where file or override says so
    itself. Raises ConfigError for a profile, key or value that is not known.
    """
    raw = _read_with_base(name_or_path)
    raw |= dict(_parse_override(override) for override in overrides)
    _make_absolute(raw, Path.cwd())
    what = f"profile {name_or_path}"
    share = _validated(raw, what).partitions.get(str(raw.get("partition")))
    taken = share.model_dump(exclude_unset=True) if share else {}
    if "mem_per_cpu_gb" in raw:
        taken.pop("mem_gb", None)
    return _validated({**taken, **raw}, what)


def _read_with_base(name_or_path: str | Path) -> dict[str, Any]:
    """Return the keys of a profile over those of the built-in one it names as `base`."""
    path = _find(name_or_path)
    raw = read_yaml(path)
    _make_absolute(raw, path.absolute().parent)
    base = raw.get("base")
    return raw if base is None else {**read_yaml(_find_built_in(str(base), f"{path}: base")), **raw}


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    is_path = path.suffix in (".yaml", ".yml") or path.name != str(name_or_path)
    return path.expanduser() if is_path else _find_built_in(str(name_or_path), "--profile")


def _find_built_in(name: str, where: str) -> Path:
    names = sorted(path.stem for path in BUILT_IN_DIR.glob("*.yaml"))
    if name not in names:
        raise ConfigError(
            f"{where}: there is no profile '{name}'.{did_you_mean(name, names)} "
            f"Allowed: {', '.join(names)}, or the path of a YAML file for one's own."
        )
    return BUILT_IN_DIR / f"{name}.yaml"


def _parse_override(override: str) -> tuple[str, Any]:
    """Return ("key", value) of "key=value"; lists and mappings are read as YAML, nothing as None.

    Other text stays text: as YAML, 12:00:00 would be a number.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{override!r} is not of the form key=value, such as time=12:00:00.")
    is_yaml = text.lstrip().startswith(("[", "{"))
    value = parse_yaml(text, f"{override!r}: the value") if is_yaml else text.strip() or None
    return key.strip(), value


def _make_absolute(raw: dict[str, Any], base: Path) -> None:
    """Make `python` absolute, in place; a link stays one, since a venv's interpreter is a link."""
    if isinstance(raw.get("python"), str):
        try:
            raw["python"] = base.absolute() / Path(raw["python"]).expanduser()
        except RuntimeError as error:
            raise ConfigError(f"python: {raw['python']}: no such home directory.") from error


def _validated(raw: Mapping[str, Any], what: str) -> Profile:
    try:
        return Profile.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, what, Profile, WORDS)) from error
