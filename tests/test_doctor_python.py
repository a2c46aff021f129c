"""The Python, modules and packages of the job are looked at as the job will find them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from programs import write_program

from ml_core.preflight.packages import check_packages
from ml_core.preflight.python import OLDEST, JobPython, Package, check_python, check_setup
from ml_core.preflight.versions import is_same, is_within, normalised, parse_requirement

ROOT = Path(__file__).parents[1]


@pytest.fixture
def venv(tmp_path):
    """`venv(version)`: an environment whose pyvenv.cfg says it was made with `version`."""

    def make(version):
        folder = tmp_path / "venv"
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").symlink_to(sys.executable)
        (folder / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version}\n")
        return folder

    return make


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A login shell with a `module` that knows Python/3.9 only, which brings a python3 of its own.

    For an unknown name it says so and returns 0, as the Tcl modules do.
    """
    bin_dir = tmp_path / "modules" / "bin"
    bin_dir.mkdir(parents=True)
    write_program(bin_dir / "python3", "echo 3.9.18")
    (tmp_path / ".bash_profile").write_text(
        "echo welcome to the cluster\n"
        "module() {\n"
        "  case $2 in\n"
        f"    Python/3.9) PATH={bin_dir}:$PATH; LOADEDMODULES=$2 ;;\n"
        "    gcc) LOADEDMODULES=$2 ;;\n"
        "    *) echo \"ERROR: Unable to locate a modulefile for '$2'\" >&2 ;;\n"
        "  esac\n"
        "}\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LOADEDMODULES", raising=False)


def only(checks):
    (check,) = checks
    return check


def test_this_process_own_python_starts_and_tells_its_packages():
    checks, python = check_python(None, (), is_cluster=False)
    assert only(checks).level == "ok"
    assert python.packages["torch"].version
    assert python.ml_core == ROOT / "src" / "ml_core"


def test_the_question_is_asked_without_the_users_own_paths(tmp_path, monkeypatch):
    (tmp_path / "ml_core").mkdir()
    (tmp_path / "ml_core" / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir("/")
    _, python = check_python(None, (), is_cluster=False)
    assert python.ml_core == ROOT / "src" / "ml_core"


def test_an_environment_made_with_another_python_is_an_error(venv):
    checks, _ = check_python(venv("3.8.2"), (), is_cluster=True)
    assert only(checks).level == "error"
    assert "made with Python 3.8.2" in only(checks).told
    assert "uv venv" in only(checks).remedy


def test_a_python_that_is_too_old_is_an_error(venv):
    folder = venv("3.6.8")
    (folder / "bin" / "python").unlink()
    lines = "echo '-- the Python of the job --'\necho 3.6.8\nexit 1"
    write_program(folder / "bin" / "python", lines)
    checks, python = check_python(folder, (), is_cluster=True)
    assert "is Python 3.6.8; >=3.11 is needed" in only(checks).told
    assert python.packages == {}


def test_an_interpreter_that_does_not_start_is_told_with_its_last_words(venv):
    folder = venv("3.12.3")
    (folder / "bin" / "python").unlink()
    write_program(folder / "bin" / "python", "echo libpython3.12.so missing >&2\nexit 127")
    checks, python = check_python(folder, (), is_cluster=True)
    assert only(checks).level == "error" and "libpython3.12.so missing" in only(checks).told
    assert python is None


def test_a_folder_that_is_no_environment_is_an_error(tmp_path):
    checks, python = check_python(tmp_path, (), is_cluster=True)
    assert only(checks).level == "error" and "no interpreter" in only(checks).told
    assert python is None


def test_an_unknown_module_is_named_although_module_load_says_0(modules):
    checks, python = check_python(None, ("gcc", "Python/3.99"), is_cluster=True)
    assert only(checks).level == "error"
    assert "there is no module Python/3.99" in only(checks).told
    assert "module spider Python/3.99" in only(checks).told
    assert python is None


def test_a_module_that_only_the_users_own_shell_has_loaded_is_not_there(modules, monkeypatch):
    monkeypatch.setenv("LOADEDMODULES", "Python/3.99")
    checks, _ = check_python(None, ("Python/3.99",), is_cluster=True)
    assert only(checks).level == "error"


@pytest.mark.parametrize("is_cluster, level", [(True, "error"), (False, "ok")])
def test_a_library_that_only_the_users_own_shell_finds_is_missed_by_a_job(
    venv, monkeypatch, is_cluster, level
):
    folder = venv("{}.{}.0".format(*sys.version_info))
    (folder / "bin" / "python").unlink()
    (folder / "bin" / "python").write_text(
        f'#!/bin/sh\n[ -n "$LD_LIBRARY_PATH" ] || exit 127\nexec {sys.executable} "$@"\n'
    )
    (folder / "bin" / "python").chmod(0o755)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/a/module")
    checks, _ = check_python(folder, (), is_cluster=is_cluster)
    assert only(checks).level == level
    checks, _ = check_python(folder, (), is_cluster=is_cluster, has_setup=True)
    assert only(checks).level == ("warning" if level == "error" else "ok")


def test_modules_that_bring_another_python_than_the_environments_are_an_error(modules):
    checks, _ = check_python(None, ("Python/3.9",), is_cluster=True)
    assert only(checks).level == "error"
    assert "the modules load Python 3.9.18" in only(checks).told


def test_modules_that_load_are_told_and_the_python_is_asked_after_them(modules):
    checks, python = check_python(None, ("gcc",), is_cluster=True)
    assert [check.level for check in checks] == ["ok", "ok"]
    assert "torch" in python.packages


@pytest.mark.parametrize("is_cluster, level", [(True, "error"), (False, "warning")])
def test_a_machine_without_modules_is_an_error_only_where_slurm_is(
    tmp_path, monkeypatch, is_cluster, level
):
    monkeypatch.setenv("HOME", str(tmp_path))
    checks, _ = check_python(None, ("2024",), is_cluster=is_cluster)
    assert (checks[0].about, checks[0].level) == ("modules", level)


def test_lines_of_the_profile_that_bash_cannot_read_are_an_error_and_none_is_run(tmp_path):
    assert check_setup(["export A=1", f"touch {tmp_path}/ran"]) == []
    assert list(tmp_path.iterdir()) == []
    check = only(check_setup(["export A=1", 'export B="1']))
    assert (check.level, check.about) == ("error", "setup")
    assert "line 2: unexpected EOF" in check.told


def test_the_oldest_python_is_that_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == OLDEST


# ---- packages ----------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path):
    """A repository of ml-core that requires two packages and has tested three."""
    (tmp_path / "src" / "ml_core").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "ml-core"\ndependencies = ["numpy>=1.26", "Deep_Net>=2.0,<3"]\n'
    )
    (tmp_path / "requirements.lock").write_text(
        "deep-net==2.1\nhelper==1.0\nnumpy==2.0.1\nruff==1\n"
    )
    return tmp_path


def job_python(checkout, **versions):
    packages = {"ml-core": Package("0.1")}
    for name, version in versions.items():
        requires = ("helper>=1", "numpy; extra == 'fast'") if name == "deep_net" else ()
        packages[name] = Package(version, requires)
    return JobPython(Path("/venv/bin/python"), "3.12.3", packages, checkout / "src" / "ml_core")


def packages_told(checkout, **versions):
    return check_packages(job_python(checkout, **versions), checkout / "src" / "ml_core")


def test_packages_as_they_were_tested_are_one_line(checkout):
    check = only(packages_told(checkout, numpy="2.0.1", deep_net="2.1", helper="1.0"))
    assert check.level == "ok" and "all 2 that are required" in check.told


def test_every_missing_package_is_named_at_once_with_what_those_need(checkout):
    assert "missing: numpy, deep-net." in only(packages_told(checkout)).told
    check = only(packages_told(checkout, deep_net="2.1"))
    assert check.level == "error" and "missing: numpy, helper." in check.told
    assert f"-r {checkout}/requirements.lock -e {checkout}" in check.remedy


def test_what_only_developers_need_is_not_missed(checkout):
    needed = {"numpy": "2.0.1", "deep_net": "2.1", "helper": "1.0"}
    assert only(packages_told(checkout, **needed)).level == "ok"
    assert only(packages_told(checkout, **needed, ruff="2")).level == "ok"


def test_a_version_out_of_range_is_an_error_and_an_untested_one_a_warning(checkout):
    checks = packages_told(checkout, numpy="1.25", deep_net="2.9+cpu", helper="1.0")
    assert [check.level for check in checks] == ["error", "warning"]
    assert "numpy 1.25 (needed: >=1.26)" in checks[0].told
    assert "deep-net 2.9+cpu (tested: 2.1)" in checks[1].told


def test_a_python_without_ml_core_is_told_how_to_get_it(checkout):
    python = JobPython(Path("/venv/bin/python"), "3.12.3")
    check = only(check_packages(python, checkout / "src" / "ml_core"))
    assert f"uv pip install --python /venv/bin/python -e {checkout}" in check.remedy


def test_another_copy_of_ml_core_is_a_warning(checkout, tmp_path):
    python = job_python(checkout, numpy="2.0.1", deep_net="2.1", helper="1.0")
    check = only(check_packages(python, tmp_path / "other" / "ml_core"))
    assert check.level == "warning" and "Is that meant?" in check.remedy


def test_an_installed_copy_is_held_against_its_own_requirements(tmp_path):
    packages = {"ml-core": Package("0.1", ("numpy>=2", "pytest>=8; extra == 'dev'"))}
    ml_core = tmp_path / "lib" / "ml_core"
    python = JobPython(Path("/venv/bin/python"), "3.12.3", packages, ml_core)
    assert "missing: numpy." in only(check_packages(python, ml_core)).told


@pytest.mark.parametrize(
    "version, bounds, expected",
    [
        ("2.13.0+cpu", ">=2.11", True), ("2.9", ">=2.11", False), ("2.10", ">=2.9,<3", True),
        ("3.0", "<3", False), ("2.2.1", "~=2.2", True), ("3.0", "~=2.2", False),
        ("1.4.5", "==1.4.*", True), ("1.5", "!=1.4.*", True), ("1.0", "==1.0.0", True),
        ("1.0", "", True), ("5.0.0rc1", ">=5.0", True),
    ],
)  # fmt: skip
def test_versions_are_compared_by_their_numbers(version, bounds, expected):
    assert is_within(version, bounds) is expected


def test_every_requirement_of_this_project_is_understood_and_met():
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lock = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.M))
    tested = {normalised(name): version for name, version in lock.items()}
    for line in lines:
        requirement = parse_requirement(line)
        assert requirement.bounds and is_within(tested[requirement.name], requirement.bounds)
    assert is_same("2.13.0+cu128", "2.13.0") and not is_same("2.13.1", "2.13.0")


def test_the_doctor_loads_nothing_heavy():
    code = "import sys, ml_core.pipeline.doctor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "pandas", "sklearn", "matplotlib", "mlflow", "pyarrow"}
    assert heavy & set(done.stdout.split()) == set()
