"""Randomness as a function of (seed, epoch, index), and the record of code and machine."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ml_core.data.versions.digests import digest_file
from ml_core.reproducibility import (
    Stream,
    code_record,
    data_digests,
    derive_seed,
    hardware_record,
    installed_packages,
    numerics_record,
    package_versions,
    philox_words,
    seed_everything,
)
from ml_core.reproducibility import code as code_module
from ml_core.reproducibility.code import source_digest
from ml_core.reproducibility.data_digests import changed_rows
from ml_core.reproducibility.hardware import nvidia_driver
from ml_core.reproducibility.packages import parse_packages, render_packages
from ml_core.reproducibility.patches import patch_of_new, split_patches
from ml_core.reproducibility.processor import onednn_instruction_set
from ml_core.reproducibility.secret_text import why_secret
from ml_core.reproducibility.variables import VARIABLES
from ml_core.runs import write_text

GOLDEN_WORDS = [
    [11408586787642483226, 16669634987551789008, 14890202831606976669, 5842260721958116238],
    [16270798323102741502, 11699455595516253992, 14926514325872173646, 4362673750725874601],
]
GOLDEN_SEED = 5889864898936351606

# ---- random words ------------------------------------------------------------------------------


def test_the_words_are_those_of_earlier_versions():
    # Another mechanism would change every run: order, augmentation and bootstrap. If that is
    # meant, these numbers change, and the changelog says that old runs cannot be repeated.
    assert philox_words(42, 3, Stream.AUGMENT, 2).tolist() == GOLDEN_WORDS
    assert derive_seed(42, Stream.DROPOUT, 3, 17) == GOLDEN_SEED


def test_the_words_are_philox_by_its_own_definition():
    """Philox4x64-10 as Salmon et al. (SC 2011) define it, with numpy's counter from 1 on."""

    def philox(counter: list[int], key: list[int]) -> list[int]:
        mask = 2**64 - 1
        for _ in range(10):
            first, second = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
            counter = [
                second >> 64 ^ counter[1] ^ key[0],
                second & mask,
                first >> 64 ^ counter[3] ^ key[1],
                first & mask,
            ]
            key = [key[0] + 0x9E3779B97F4A7C15 & mask, key[1] + 0xBB67AE8584CAA73B & mask]
        return counter

    words = philox_words(7, 5, Stream.ORDER, 3)
    for row in range(3):
        assert words[row].tolist() == philox([row + 1, 0, 5, int(Stream.ORDER)], [7, 0])


def test_a_row_depends_on_its_index_and_not_on_how_many_rows_there_are():
    long = philox_words(1, 2, Stream.ORDER, 1000)
    assert long.shape == (1000, 4) and long.dtype == np.uint64
    for num_rows in (0, 1, 7, 999):
        assert np.array_equal(philox_words(1, 2, Stream.ORDER, num_rows), long[:num_rows])


def test_another_seed_epoch_or_stream_gives_other_words_everywhere():
    words = [
        philox_words(seed, epoch, stream, 50)
        for seed in (0, 1, 42, 2**62)
        for epoch in (0, 1, 2)
        for stream in Stream
    ]
    together = np.concatenate([array.ravel() for array in words])
    assert len(np.unique(together)) == len(together)


def test_the_words_are_spread_evenly():
    bits = np.unpackbits(philox_words(3, 1, Stream.ORDER, 4000).view(np.uint8))
    assert bits.mean() == pytest.approx(0.5, abs=4 * 0.5 / len(bits) ** 0.5)


def test_derived_seeds_differ_by_seed_stream_and_position_and_fit_torch():
    seeds = [
        derive_seed(seed, stream, epoch, step)
        for seed in (0, 1)
        for stream in Stream
        for epoch in range(1, 4)
        for step in range(20)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, Stream.INIT) == derive_seed(1, Stream.INIT)


def test_streams_have_numbers_of_their_own():
    numbers = [int(stream) for stream in Stream]
    assert numbers == [1, 2, 3, 4, 5, 6, 7, 8, 9]  # a renumbering would change every run


# ---- seeds -------------------------------------------------------------------------------------


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(1))


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5, 2**63 - 1])
def test_seeding_repeats_all_three_generators(seed):
    assert seed_everything(seed) == seed
    first = draw()
    draw()
    seed_everything(seed)
    assert draw() == first


def test_another_seed_changes_all_three_generators():
    seed_everything(1)
    first = draw()
    seed_everything(2)
    assert all(a != b for a, b in zip(first, draw(), strict=True))


# ---- the record --------------------------------------------------------------------------------


def test_versions_of_what_can_change_a_number_are_recorded():
    versions = package_versions()
    assert versions["torch"] == torch.__version__
    assert versions["numpy"] == np.__version__
    assert "not installed" not in versions.values()


def test_the_hardware_record_says_what_this_process_may_use():
    record = hardware_record()
    assert record["cores_available"] == len(os.sched_getaffinity(0))
    assert record["torch_threads"] == torch.get_num_threads()
    assert 0.1 < record["memory_gib"] < 100_000
    assert (record["gpu"] is None) == (not torch.cuda.is_available())


def test_a_machine_without_affinity_has_its_cores_counted(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert hardware_record()["cores_available"] == os.cpu_count()


def test_the_driver_is_read_from_the_kernel_module_of_either_kind(tmp_path):
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar\nGCC: 12\n")
    assert nvidia_driver(file) == "550.54.15"
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release\n")
    assert nvidia_driver(file) == "570.86.15"
    assert nvidia_driver(tmp_path / "none") is None


# ---- packages ----------------------------------------------------------------------------------


def test_every_installed_package_is_recorded_with_the_version_that_is_imported():
    packages = installed_packages()
    assert packages["torch"] == torch.__version__ and packages["numpy"] == np.__version__
    assert len(packages) > len(package_versions())
    assert list(packages) == sorted(packages, key=str.lower)


def test_of_two_copies_of_a_package_the_first_on_the_path_is_recorded(tmp_path, monkeypatch):
    for folder, version in (("first", "2.0"), ("second", "1.0")):
        info = tmp_path / folder / f"twice-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: twice\nVersion: {version}\n")
    monkeypatch.setattr("sys.path", [str(tmp_path / "first"), str(tmp_path / "second")])
    assert installed_packages() == {"twice": "2.0"}


def test_packages_txt_holds_a_line_per_package_and_reads_back():
    packages = {"a": "1.0", "B": "2.0+cpu", "c": "2026.1.dev3"}
    text = render_packages(packages)
    assert text == "a==1.0\nB==2.0+cpu\nc==2026.1.dev3\n"
    assert parse_packages(text) == packages


# ---- numerics ----------------------------------------------------------------------------------


def test_the_numerics_record_names_libraries_instruction_set_and_team():
    record = numerics_record("elastic", 2, "cpu", 4, 16)
    recipe = {
        key: record[key] for key in ("level", "num_threads", "device", "ranks", "micro_batch")
    }
    assert recipe == {
        "level": "elastic",
        "num_threads": 2,
        "device": "cpu",
        "ranks": 4,
        "micro_batch": 16,
    }
    assert record["libraries"]["torch"] == torch.__version__
    for name in ("mkl", "onednn"):
        assert record["libraries"][name][0].isdigit()
    assert record["processor"]["aten"] == torch.backends.cpu.get_cpu_capability()
    assert json.loads(json.dumps(record)) == record


def test_fast_does_not_cut_batches_so_it_records_no_micro_batch():
    assert numerics_record("fast", 1, "cpu", 1, 16)["micro_batch"] is None


def test_of_the_environment_only_the_named_variables_are_recorded(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    for name in ("OMP_SECRET", "MKL_PASSWORD", "KAGGLE_KEY", "SLURM_JWT", "mkl_cbwr"):
        monkeypatch.setenv(name, "canary")
    record = numerics_record("fast", 1, "cpu")
    assert record["variables"] == {"MKL_CBWR": "COMPATIBLE"}
    assert "canary" not in json.dumps([record, hardware_record(), code_record()[0]])


AVX2_FLAGS = "fma sse4_1 avx avx2"
AVX512_FLAGS = f"{AVX2_FLAGS} avx_vnni avx512f avx512bw avx512vl avx512dq avx512_vnni avx512_bf16"


@pytest.mark.parametrize(
    ("flags", "cap", "expected"),
    [
        (AVX512_FLAGS, None, "AVX512_CORE_BF16"),
        # What oneDNN 3.12 prints on such a processor under ONEDNN_VERBOSE=1, for each cap.
        (AVX512_FLAGS, "SSE41", "SSE41"),
        (AVX512_FLAGS, "AVX", "AVX"),
        (AVX512_FLAGS, "AVX2", "AVX2"),
        (AVX512_FLAGS, "avx2", "AVX2"),
        (AVX512_FLAGS, "AVX2_VNNI", "AVX2_VNNI"),
        (AVX512_FLAGS, "AVX512_CORE", "AVX512_CORE"),
        (AVX512_FLAGS, "AVX512_CORE_AMX", "AVX512_CORE_BF16"),
        (AVX512_FLAGS, "bogus", "AVX512_CORE_BF16"),
        (AVX2_FLAGS, None, "AVX2"),
        (AVX2_FLAGS, "AVX512_CORE", "AVX2"),
        ("", None, None),
    ],
)
def test_onednns_instruction_set_is_the_processors_up_to_the_cap(flags, cap, expected):
    assert onednn_instruction_set({"flags": flags}, cap) == expected


# ---- data --------------------------------------------------------------------------------------


def write_patches(path: Path, patches: np.ndarray, **options) -> dict:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=patches, **options)
    return data_digests({"train_x": (path, digest_file(path))})


def test_a_changed_pixel_is_found_to_its_1024_rows(tmp_path):
    patches = np.arange(2500 * 12, dtype=np.uint8).reshape(2500, 2, 2, 3)
    then = write_patches(tmp_path / "a_x.h5", patches)
    entry = then["files"]["train_x"]
    assert (entry["name"], len(entry["groups"])) == ("a_x.h5", 3)
    assert entry["size"] == (tmp_path / "a_x.h5").stat().st_size
    patches[1024, 1, 1, 2] ^= 1
    now = write_patches(tmp_path / "a_x.h5", patches)
    assert changed_rows(then, now, "train_x") == (1024, 2047)
    assert changed_rows(then, then, "train_x") is None
    shorter = write_patches(tmp_path / "a_x.h5", patches[:2048])
    assert changed_rows(now, shorter, "train_x") == (2048, 3071)


def test_a_file_packed_otherwise_has_the_rows_it_had(tmp_path):
    patches = np.arange(2500 * 12, dtype=np.uint8).reshape(2500, 2, 2, 3)
    then = write_patches(tmp_path / "a_x.h5", patches)
    now = write_patches(tmp_path / "a_x.h5", patches, compression="gzip")
    assert then["files"]["train_x"]["sha256"] != now["files"]["train_x"]["sha256"]
    assert changed_rows(then, now, "train_x") is None


# ---- code --------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str, as_bytes: bool = False) -> str | bytes:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True
    )
    return done.stdout if as_bytes else done.stdout.decode()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A repository with a package in src/package; return the package's folder."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "repository" / "src" / "package"
    folder.mkdir(parents=True)
    (folder / "module.py").write_text("x = 1\n", encoding="utf-8")
    (folder.parent / "other.py").write_bytes(b"a = 1\r\n\nb = 2\n\n")
    git(tmp_path, "init", "-q", str(tmp_path / "repository"))
    git(folder, "add", "-A", ":/")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def applied_to_the_commit(package: Path, diff: str) -> dict[str, bytes]:
    """Return every file of a fresh copy of the commit, after `git apply` of the difference."""
    clone = package.parents[2] / "clone"
    git(package, "clone", "-q", str(package.parents[1]), str(clone))
    write_text(clone.parent / "changes.diff", diff)
    if diff:
        git(clone, "apply", str(clone.parent / "changes.diff"))
    files = (path for path in (clone / "src").rglob("*") if path.is_file())
    return {str(path.relative_to(clone / "src")): path.read_bytes() for path in files}


def test_clean_code_is_its_commit(package):
    record, diff = code_record(package)
    assert record == {
        "commit": git(package, "rev-parse", "HEAD").strip(),
        "dirty": False,
        "untracked": [],
        "left_out": {},
        "source_sha256": source_digest(package),
    }
    assert diff == ""


def test_changed_code_is_its_commit_and_a_diff_that_git_can_apply(package):
    changed = package.parent / "other.py"
    changed.write_bytes(b"a = 3\r\n\nb = 2\n\n")  # the diff ends in a blank line
    settings = ("color.ui=always", "diff.noprefix=true", "diff.external=false")
    for setting in (*settings, "diff.mnemonicPrefix=true", "diff.renames=copies"):
        git(package, "config", *setting.split("="))
    record, diff = code_record(package)
    assert record["dirty"] is True
    assert applied_to_the_commit(package, diff)["other.py"] == b"a = 3\r\n\nb = 2\n\n"


def test_the_diff_alone_gives_back_new_moved_and_removed_files(package):
    write = {
        "new.py": b"y = 2\n\n\n",
        "empty.py": b"",
        "no_newline.py": b"z = 3",
        "deep/with space.py": b"# \xc3\xa4\r\n",
        "umlaut_\u00e4.py": b"u = 1\n",
    }
    for name, content in write.items():
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_bytes(content)
    (package / "module.py").rename(package / "moved.py")
    git(package, "add", str(package / "moved.py"))
    (package.parent / "other.py").unlink()
    record, diff = code_record(package)
    assert sorted(record["untracked"]) == sorted(write)
    assert "+x = 1" in diff  # a moved file whole, not as "rename from", which names two files
    found = applied_to_the_commit(package, diff)
    assert found == {
        **{f"package/{name}": content for name, content in write.items()},
        "package/moved.py": b"x = 1\n",
    }


# What a name or a content can do to a patch.
NEW_FILES = {
    "plain.py": b"y = 2\n",
    "empty.py": b"",
    "no_newline.py": b"a\nb",
    "blank.py": b"\n\n\n",
    "returns.py": b"a\r\nb\rc\r\n",
    "patch_like.py": b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n",
    "with space.py": b"s\n",
    "umlaut_\u00e4.py": b"u\n",
    'quote"back\\tab\t.py': b"q\n",
    "b/and b/this.py": b"b\n",
    "picture.png": b"\x89PNG\0\1",
}


@pytest.mark.parametrize("name", NEW_FILES)
def test_the_patch_of_a_new_file_is_gits_own(package, name):
    path = package / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(NEW_FILES[name])
    top = package.parents[1]
    git(top, "add", "--intent-to-add", "-A")
    theirs = git(top, "diff", "--no-color", as_bytes=True)
    lines = theirs.splitlines(keepends=True)
    expected = b"".join(line for line in lines if not line.startswith(b"index "))
    patch = patch_of_new(top, path.relative_to(top))
    assert patch == expected
    where = f"src/package/{name}"
    assert split_patches(theirs) == {where: theirs}
    assert split_patches(patch + patch_of_new(top, Path("src/other.py")))[where] == patch


def test_new_links_and_programs_are_recorded_as_such(package):
    (package / "program.sh").write_text("true\n")
    (package / "program.sh").chmod(0o755)
    (package / "link.py").symlink_to("module.py")
    (package / ".#module.py").symlink_to("nobody@nowhere")  # an editor's lock
    (package / "nowhere.py").symlink_to("not-there.py")
    record, diff = code_record(package)
    assert len(record["untracked"]) == 4 and record["left_out"] == {}
    clone = package.parents[2] / "clone"
    assert applied_to_the_commit(package, diff)["package/link.py"] == b"x = 1\n"
    assert str((clone / "src/package/nowhere.py").readlink()) == "not-there.py"
    assert os.access(clone / "src/package/program.sh", os.X_OK)


def test_a_repository_within_is_named_and_a_file_that_is_gone_by_then_too(package, monkeypatch):
    git(package, "init", "-q", "within")
    (package / "gone.py").write_text("g = 1\n")
    new = code_module.patch_of_new
    monkeypatch.setattr(
        code_module,
        "patch_of_new",
        lambda top, path: ((package / "gone.py").unlink(), new(top, path))[1],
    )
    record, diff = code_record(package)
    assert record["left_out"] == {
        "src/package/gone.py": "cannot be read",
        "src/package/within": "cannot be read",
    }
    assert diff == ""


def test_as_many_processes_are_started_for_many_new_files_as_for_none(package, monkeypatch):
    started = []
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda *args, **kwargs: (started.append(args), run(*args, **kwargs))[1]
    )
    code_record(package)
    for_none = len(started)
    for number in range(30):
        (package / f"new{number}.py").write_text("x = 1\n", encoding="utf-8")
    _, diff = code_record(package)
    assert diff.count("new file mode") == 30
    assert len(started) == 2 * for_none


def test_the_repository_is_that_of_the_package_whatever_the_environment_names(
    package, tmp_path, monkeypatch
):
    here = code_record(package)
    git(tmp_path, "init", "-q", "other")
    git(tmp_path / "other", "commit", "-q", "--allow-empty", "-m", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert code_record(package) == here


def test_where_git_cannot_say_what_differs_the_code_is_not_called_clean(package, monkeypatch):
    ask = code_module._git
    monkeypatch.setattr(
        code_module, "_git", lambda folder, *a: None if a[0] == "diff" else ask(folder, *a)
    )
    record, diff = code_record(package)
    assert (record["dirty"], diff) == (None, "")
    assert record["why"] == "git could not say what differs from the commit"


def test_staged_changes_and_new_files_are_recorded(package):
    (package.parent / "other.py").write_text("a = 4\n", encoding="utf-8")
    git(package, "add", "-A", ":/")
    (package / "new.py").write_text("", encoding="utf-8")
    record, diff = code_record(package)
    assert (record["dirty"], record["untracked"]) == (True, ["new.py"])
    assert "+a = 4" in diff


def test_a_new_file_alone_makes_the_code_another_than_its_commit(package):
    (package / "new.py").write_text("y = 1\n", encoding="utf-8")
    assert code_record(package)[0]["dirty"] is True


def test_what_may_hold_a_secret_is_named_and_not_copied(package):
    for name in (".env", "id_rsa", "deploy.pem"):
        (package / name).write_text("canary\n", encoding="utf-8")
    token = "ghp" + "_" + "canary" * 6
    (package / "client.py").write_text(f'TOKEN = "{token}"\n', encoding="utf-8")
    (package / "module.py").write_text("password = " + '"canary-canary"\n', encoding="utf-8")
    (package / "fine.py").write_text("x = 2\n", encoding="utf-8")
    record, diff = code_record(package)
    assert "canary" not in diff and "canary" not in json.dumps(record)
    assert "+x = 2" in diff
    assert {name.rpartition("/")[2]: why for name, why in record["left_out"].items()} == {
        ".env": "may hold a secret, by its name",
        "id_rsa": "may hold a secret, by its name",
        "deploy.pem": "may hold a secret, by its name",
        "client.py": "may hold a secret, by what it says",
        "module.py": "may hold a secret, by what it says",
    }


@pytest.mark.parametrize(
    ("text", "is_secret"),
    [
        ("-----BEGIN " + "RSA PRIVATE KEY-----", True),
        ("key AKIA" + "ABCDEFGHIJKLMNOP", True),
        ("hf_" + "a" * 34, True),
        ("uri = http://user:" + "hunter22@host/", True),
        ("api_key: " + '"0123456789"', True),
        ("token = os.environ[name]", False),
        ("password = getpass()", False),
        ('f"http://{user}:{word}@{host}"', False),
        ("for token in tokens:", False),
        ("http://localhost:5000/a@b", False),
    ],
)
def test_keys_tokens_and_passwords_are_known_by_how_they_look(text, is_secret):
    assert (why_secret("a.py", text) is not None) == is_secret


def test_our_own_source_holds_nothing_that_looks_like_a_secret():
    for path in code_module.PACKAGE.rglob("*.py"):
        name = str(path.relative_to(code_module.PACKAGE))
        assert why_secret(name, path.read_text(encoding="utf-8")) is None, name


def test_binary_and_too_large_changes_are_named_and_the_rest_is_kept(package, monkeypatch):
    monkeypatch.setattr(code_module, "LARGEST_PATCH", 2000)
    (package / "picture.png").write_bytes(b"\x89PNG\0\1\2")
    (package / "latin.py").write_bytes(b"# \xe4\n")
    (package / "large.py").write_text("x = 1\n" * 1000, encoding="utf-8")
    (package / "module.py").write_text("x = 2\n" * 1000, encoding="utf-8")
    (package / "new.py").write_text("y = 1\n", encoding="utf-8")
    record, diff = code_record(package)
    assert record["left_out"] == {
        "src/package/picture.png": "binary",
        "src/package/latin.py": "not UTF-8 text",
        "src/package/large.py": "too large",
        "src/package/module.py": "too large",
    }
    assert set(applied_to_the_commit(package, diff)) == {
        "other.py",
        "package/module.py",
        "package/new.py",
    }


def test_many_new_files_are_bounded_and_each_is_named(package, monkeypatch):
    monkeypatch.setattr(code_module, "MOST_NEW_FILES", 2)
    for number in range(5):
        (package / f"new{number}.py").write_text("x = 1\n", encoding="utf-8")
    record, diff = code_record(package)
    assert len(record["untracked"]) == 5 and len(record["left_out"]) == 3
    assert diff.count("new file mode") == 2


def test_the_digest_of_the_source_changes_with_a_name_or_a_byte_and_with_nothing_else(package):
    digest = source_digest(package)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "module.pyc").write_bytes(b"compiled")
    copied = shutil.copytree(package, package.parents[2] / "installed")
    assert source_digest(package) == source_digest(copied) == digest
    (package / "module.py").rename(package / "renamed.py")
    assert source_digest(package) != digest
    (copied / "module.py").write_text("x = 2\n", encoding="utf-8")
    assert source_digest(copied) != digest


def test_code_outside_a_repository_or_untracked_in_one_has_no_commit(package, tmp_path):
    installed = package.parents[1] / "venv" / "site-packages"
    for folder in (installed, tmp_path / "elsewhere"):
        shutil.copytree(package, folder)
        record, diff = code_record(folder)
        assert (record["commit"], record["dirty"], diff) == (None, None, "")
        assert record["source_sha256"] == source_digest(package)


def test_a_machine_without_git_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    record, diff = code_record()
    assert (record["commit"], diff) == (None, "")
