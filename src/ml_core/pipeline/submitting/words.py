"""What was typed after ``ml-core submit``, read as the verb itself will read it in the job."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_core.config import Config
from ml_core.config.section import SQLITE
from ml_core.errors import ConfigError, RunError, did_you_mean

CHAIN = "chain"
BEGIN_RUNS = ("train", "run", "tune")  # from a CONFIG, or go on with --resume
SEARCH = ("tune", CHAIN)
NOT_FOR_JOBS = ("doctor", "submit", "jobs")
QUOTES = "'\""  # of YAML, as which the values of --set are read


@dataclass(frozen=True)
class Words:
    """The words of one verb; every path in them is absolute.

    `places` are the paths that it is given without an option: CONFIG, RUN, STUDY, CHAMPION, DIR.
    """

    verb: str
    places: tuple[Path, ...]
    overrides: tuple[str, ...]
    options: tuple[str, ...]  # all others, as words
    resume: Path | None = None
    study: Path | None = None  # of tune: the folder to make
    workers: int | None = None

    def render(self) -> tuple[str, ...]:
        """Return the words that the job runs after ml-core."""
        resume = ("--resume", str(self.resume)) if self.resume else ()
        sets = (word for override in self.overrides for word in ("--set", override))
        return (self.verb, *map(str, self.places), *resume, *self.options, *sets)


def read_words(verb: str, arguments: Sequence[str], commands: Mapping[str, Any]) -> Words:
    """Return the words of `verb`, of which `commands` has the command-line parser by name.

    `chain` takes what tune does. Raises ConfigError for what the verb would refuse when it starts:
    an unknown verb or option, a wrong value; RunError for a path that is not there.
    """
    command = _command(verb, commands)
    values = _parse(command, verb, arguments)
    hints = typing.get_type_hints(inspect.unwrap(command.callback))
    paths = {name for name, hint in hints.items() if _is_path(hint)}
    flags = {p.name: max(p.opts, key=len) for p in command.params if p.opts[0].startswith("-")}
    defaults = {p.name: p.default for p in command.params if p.name not in paths}
    given = {
        name: value
        for name, value in values.items()
        if value not in (None, False, [], ()) and value != defaults.get(name)
    }
    words = Words(
        verb=verb,
        places=tuple(_places(given, paths - set(flags))),
        overrides=tuple(_absolute(override) for override in given.pop("overrides", ())),
        resume=_pop_path(given, "resume"),
        study=_pop_path(given, "study"),
        workers=given.pop("workers", None),
        options=tuple(_options(given, flags, paths)),
    )
    _refuse_what_is_not_there(words)
    _refuse_beside_resume(words)
    return words


def _command(verb: str, commands: Mapping[str, Any]) -> Any:
    jobs = {
        name: command
        for name, command in commands.items()
        if name not in NOT_FOR_JOBS and not hasattr(command, "commands")
    }
    name = "tune" if verb == CHAIN else verb
    if name not in jobs:
        allowed = [*jobs, CHAIN]
        raise ConfigError(
            f"ml-core submit takes no '{verb}'.{did_you_mean(verb, allowed)} "
            f"Allowed: {', '.join(allowed)}."
        )
    return jobs[name]


def _parse(command: Any, verb: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the values by the names of the verb's parameters, in the order of the latter."""
    try:
        values = command.make_context(verb, list(arguments)).params
    except Exception as error:
        said = getattr(error, "format_message", None)  # of the parser's errors alone
        if said is None:
            raise
        raise ConfigError(
            f"ml-core submit {verb}: {said().rstrip('.')}. What it takes: ml-core "
            f"{'tune' if verb == CHAIN else verb} --help"
        ) from error
    return {parameter.name: values[parameter.name] for parameter in command.params}


def _places(given: Mapping[str, Any], names: set[str]) -> Iterator[Path]:
    for name, value in given.items():
        if name in names:
            yield from (Path(word).absolute() for word in _listed(value))


def _pop_path(given: dict[str, Any], name: str) -> Path | None:
    return Path(given.pop(name)).absolute() if name in given else None


def _is_path(hint: Any) -> bool:
    return hint is Path or any(_is_path(part) for part in typing.get_args(hint))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _options(given: Mapping[str, Any], flags: Mapping[str, str], paths: set[str]) -> Iterator[str]:
    """Yield the words of what was given by an option; `--json` is the submission's own."""
    for name, value in given.items():
        if name not in flags or name == "as_json":
            continue
        if value is True:
            yield flags[name]
            continue
        for each in _listed(value):
            yield flags[name]
            yield str(Path(each).absolute() if name in paths else each)


def _absolute(override: str) -> str:
    """Return "data.data_path=pcam" with the path made absolute: a job starts in another folder."""
    key, _, text = override.partition("=")
    if _holds_path(key.strip()) and text.strip() not in ("", "null", "~"):
        return f"{key}={Path(text.strip().strip(QUOTES)).expanduser().absolute()}"
    if text.startswith(SQLITE):
        return f"{key}={SQLITE}{Path(text.removeprefix(SQLITE)).absolute()}"
    return override


def _holds_path(key: str) -> bool:
    """Return whether the config's key "a.b" is a path."""
    annotation: Any = Config
    for name in key.split("."):
        fields = getattr(annotation, "model_fields", {})
        if name not in fields:
            return key == "training.save_dir"  # the course's name of output_dir
        annotation = fields[name].annotation
    return _is_path(annotation)


def _refuse_what_is_not_there(words: Words) -> None:
    for path in (*words.places, *([words.resume] if words.resume else ())):
        if not path.exists():
            raise RunError(
                f"ml-core {words.verb}: there is nothing at {path}. Give a path that is there now; "
                "a job finds out hours later."
            )


def _refuse_beside_resume(words: Words) -> None:
    """Raise ConfigError as the verbs do that begin or go on."""
    if words.verb == CHAIN and words.resume is not None:
        raise ConfigError(
            "a chain begins with a CONFIG. To go on with its study: ml-core submit tune --resume "
            "STUDY, then select, evaluate and report, each --after the job before."
        )
    if words.verb not in (*BEGIN_RUNS, CHAIN):
        return
    if words.resume is None and not words.places:
        raise ConfigError(f"which config? Give a CONFIG file: ml-core submit {words.verb} CONFIG.")
    if words.resume is not None and (words.places or (words.verb == "tune" and words.overrides)):
        raise ConfigError("what is resumed keeps its own config: give --resume alone.")
    if words.resume is None and "--elsewhere" in words.options:
        raise ConfigError("--elsewhere is of a resumed run: give --resume RUN --elsewhere.")
