"""The documentation's commands are typed, and what is generated is fresh."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer.main
from PIL import Image
from tiny_champion import train_tiny, write_champion
from tiny_pcam import write_config

from ml_core.cli import app, main
from ml_core.cluster.profile import load_profile
from ml_core.data.layout import split_paths
from ml_core.pipeline.submitting.words import read_words
from ml_core.runs import RunDir

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STAGES = sorted((ROOT / "src" / "ml_core" / "pipeline").glob("*.py"))
BIN = Path(sys.executable).parent


def test_the_readme_takes_a_newcomer_from_an_empty_folder_to_predictions(tmp_path):
    readme = (ROOT / "README.md").read_text()
    part = readme.split("<!-- test_docs.py types these commands -->")[1]
    config, commands = re.findall(r"```(?:yaml|bash)\n(.*?)```", part, flags=re.DOTALL)[:2]
    (tmp_path / "first.yaml").write_text(config)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'export PATH="{BIN}:$PATH"\n{commands}'],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 201
    assert len(list((tmp_path / "runs" / "first").glob("*/report.html"))) == 1


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """A config, a run and files to take the places of those that the documentation names."""
    folder = tmp_path_factory.mktemp("docs")
    run = train_tiny(folder).path
    data, config = folder / "data", folder / "config.yaml"
    search = {"sampler": "random", "num_trials": 2, "space": {"optimizer.lr": {"choices": [0.01]}}}
    to_search = write_config(folder / "search.yaml", data, training={"epochs": 1}, search=search)
    main_without_exit(["tune", str(to_search), "--set", "experiment_name=searched"])
    (study,) = (folder / "runs" / "searched").glob("study-*")
    champion = write_champion(RunDir(run))
    main_without_exit(["report", str(run)])
    other = shutil.copytree(run, folder / "other" / "a-second-run")
    with h5py.File(split_paths(data, "valid").x) as file:
        patches = file["x"][:]
    Image.fromarray(patches[0]).save(folder / "patch.png")
    main_without_exit(["data", "manifest", str(data)])
    write_sources_to_pack(folder, patches)
    main_without_exit(["data", "pack", str(folder / "data/images"), str(folder / "data/packed")])
    return {
        "folder": folder, "data": data, "run": run, "champion": champion, "study": study,
        "config": config, "search": to_search, "other": other,
    }  # fmt: skip


def write_sources_to_pack(folder, patches):
    """Write a folder of images with a csv, and an HDF5 file with keys of its own."""
    images = folder / "data" / "images"
    images.mkdir()
    lines = ["file,label,wsi"]
    for i, patch in enumerate(patches):
        Image.fromarray(patch).save(images / f"{i}.png")
        lines.append(f"{i}.png,{i % 2},slide{i // 2 % 10}")
    (images / "labels.csv").write_text("\n".join(lines) + "\n")
    with h5py.File(folder / "patches.h5", "w") as file:
        file["images"], file["labels"] = patches, np.arange(len(patches)) % 2


def main_without_exit(arguments):
    try:
        main(arguments)
    except SystemExit as end:
        return end.code or 0
    return 0


def documented_commands():
    """Every line that a page or a stage's docstring shows after four spaces or in a code block."""
    found = []
    for page in PAGES:
        if page.name == "cli.md":
            continue
        text = page.read_text()
        fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
        blocks = [block for language, block in fenced if language in ("", "bash", "console")]
        found += [(page.name, line) for block in blocks for line in block.splitlines()]
    for stage in STAGES:
        docstring = stage.read_text().split('"""')[1]
        found += [(stage.name, line) for line in docstring.splitlines()]
    commands = []
    for where, line in found:
        match = re.match(r"\s*(?:\.venv/bin/)?ml-core (.+?)(?:\s+#.*)?$", line)
        # `track ui` serves until it is stopped; it is started and stopped in test_track_ui.py. What
        # is sent to a server that runs is tested with one in test_mlflow_sync.py, twins, each of
        # which is two processes, in test_twin.py, jobs in test_jobs.py.
        elsewhere = match and (
            match[1].startswith(("track ui", "twin", "jobs")) or "--uri http" in match[1]
        )
        if match and not elsewhere and not match[1].startswith(("data synth", "data download")):
            commands.append(pytest.param(match[1], id=f"{where}: {match[1]}"))
    return commands


@pytest.mark.parametrize("command", documented_commands())
def test_every_command_in_the_documentation_works(
    command, stand_ins, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(stand_ins["folder"])
    arguments = []
    for word in shlex.split(command):
        if word.endswith((".yaml", "CONFIG")):
            searches = arguments[-1] in ("tune", "chain")
            word = str(stand_ins["search" if searches else "config"])
        elif word.endswith(("champion.json", "CHAMPION")):
            word = str(stand_ins["champion"])
        elif "/study-" in word or word == "STUDY":
            word = str(stand_ins["study"])
        elif arguments[-1:] == ["--study"]:
            word = str(tmp_path / "new-study")
        elif word.startswith("runs/") or word in ("RUN", "RUN...", "RUN_A", "RUN_B"):
            word = str(stand_ins["run"])
            two_runs = arguments[:1] in (["report"], ["verify"])
            if two_runs and word in arguments:
                word = str(stand_ins["other"])
        elif word.endswith((".png", "FILES...")):
            word = "patch.png"
        elif word.endswith("_x.h5"):
            word = str(split_paths(stand_ins["data"], "valid").x)
        elif arguments and word in ("data", "DIR", "data/pcam", "/project/PROJECT/pcam"):
            word = str(stand_ins["data"])
        writes = arguments[:2] in (["data", "pack"], ["data", "split"], ["data", "stage"])
        if writes and len(arguments) == 3:
            word = str(tmp_path / "out")
        arguments.append(word)
    if arguments[:2] == ["track", "sync"] and "--uri" not in arguments:
        arguments += ["--uri", f"sqlite:///{tmp_path}/mlflow.db"]
    if arguments[0] == "submit":
        read_as_submitted(arguments[1:])
    elif arguments[0] == "benchmark":  # which takes its time: test_benchmark*.py
        typer.main.get_command(app).commands["benchmark"].make_context("benchmark", arguments[1:])
    elif arguments[0] == "doctor":  # whose profiles are of clusters that this machine is not
        assert main_without_exit(arguments) in (0, 3)
    elif arguments[:2] == ["train", "--resume"]:  # the run is finished: that is said
        assert main_without_exit(arguments) == 2
    elif arguments[0] == "select":  # the centre's colour tells these classes apart as well
        assert main_without_exit(arguments) == 2
        assert "does not beat every baseline" in capsys.readouterr().err
    else:
        assert main_without_exit(arguments) == 0


def read_as_submitted(arguments):
    """Read what follows ``ml-core submit`` up to the queue; tests/slurm sends such jobs to one."""
    commands = typer.main.get_command(app).commands
    typed = commands["submit"].make_context("submit", arguments)
    load_profile(typed.params["profile"], typed.params["ask"] or ())
    read_words(typed.params["verb"], typed.args, commands)


def test_every_verb_is_documented():
    text = "\n".join(page.read_text() for page in PAGES if page.name != "cli.md")
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands]
    for name, group in groups.items():
        verbs += [f"{name} {command.name}" for command in group.registered_commands]
    assert len(verbs) >= 9
    assert [verb for verb in verbs if f"ml-core {verb}" not in text] == []


def test_generated_documentation_is_fresh():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def finding_ids():
    """Every id that the audit's code gives to a Finding as a plain string."""
    ids = set()
    for path in (ROOT / "src" / "ml_core" / "audit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Finding", "Kind"):
                given = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "id")]
                ids |= {arg.value for arg in given if isinstance(arg, ast.Constant)}
    return ids


def test_every_finding_is_documented():
    text = (ROOT / "docs" / "data.md").read_text()
    assert len(finding_ids()) >= 35
    assert {each for each in finding_ids() if f"`{each}`" not in text} == set()


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("config", sorted((ROOT / "experiments" / "configs").glob("*.yaml")))
def test_every_shipped_config_is_valid_and_says_its_command(config):
    from ml_core.config import Config

    Config.load(config)
    header = config.read_text().split("\nexperiment_name")[0]
    assert any(verb in header for verb in ("ml-core run", "ml-core tune", "make demo"))
