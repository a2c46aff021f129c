"""What a level needs is set before the first step; what it cannot be given is refused by name."""

import copy
import json
import os
import re
import subprocess
import sys

import pytest
import torch

from ml_core.errors import ConfigError, RunError
from ml_core.reproducibility import numerics_record, prepare_numerics, refuse_other_numerics
from ml_core.reproducibility.compile_cache import OWNER_FILE
from ml_core.reproducibility.variables import VARIABLES

LEVELS = ("fast", "elastic", "portable")


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    """An environment without the variables; what torch was set to is put back afterwards."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    cudnn = torch.backends.cudnn
    flags = {name: getattr(cudnn, name) for name in ("benchmark", "deterministic", "allow_tf32")}
    precision = torch.get_float32_matmul_precision()
    yield
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)  # set by what is tested
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)
    torch.utils.deterministic.fill_uninitialized_memory = fills
    torch.set_float32_matmul_precision(precision)
    for name, value in flags.items():
        setattr(cudnn, name, value)


@pytest.fixture(scope="module")
def capped_process(tmp_path_factory):
    """What a fresh process records and imports where variables cap its instruction sets."""
    code = (
        "import json, os, pathlib, sys, torch;"
        "from ml_core.reproducibility import numerics_record, prepare_numerics;"
        "before = set(sys.modules); prepare_numerics('fast', 1, 'cpu');"
        "numerics = numerics_record('fast', 1, 'cpu');"
        "new = [m for m in set(sys.modules) - before if m.startswith(('torch._dynamo',"
        " 'torch._inductor'))];"
        "torch.optim.AdamW([torch.zeros(1)]);"  # imports the compiler, which sets the variable
        "folder = pathlib.Path(os.environ['TORCHINDUCTOR_CACHE_DIR']);"
        "folder.mkdir(parents=True, exist_ok=True);"
        "(folder / 'kernel.so').write_bytes(b'of another program');"
        "prepare_numerics('fast', 1, 'cpu');"
        "print(json.dumps({'numerics': numerics, 'compiler': new,"
        " 'deterministic': torch.are_deterministic_algorithms_enabled(),"
        " 'again': numerics_record('fast', 1, 'cpu')}))"
    )
    caps = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    caps["TMPDIR"] = str(tmp_path_factory.mktemp("tmp"))  # where torch's compiler keeps its code
    without = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**without, "OMP_NUM_THREADS": "1", **caps},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


# ---- what is set -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_computes_with_its_threads_and_deterministic_kernels(level):
    torch.backends.cudnn.benchmark = True
    torch.utils.deterministic.fill_uninitialized_memory = True
    prepare_numerics(level, 2, "cpu")
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory is False
    assert torch.backends.cudnn.benchmark is False and torch.backends.cudnn.deterministic is True
    prepare_numerics(level, None, "cpu")  # no number: the one that is
    assert torch.get_num_threads() == 2


def test_mkl_computes_with_the_threads_of_torch_whatever_mkl_num_threads_says(monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    prepare_numerics("fast", 2, "cpu")
    assert "mkl_get_max_threads() : 2" in torch.__config__.parallel_info()


def test_a_cpu_run_leaves_the_variables_of_a_gpu_alone():
    prepare_numerics("portable", 1, "cpu")
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_the_workspace_of_cublas_is_set_before_cuda_starts():
    prepare_numerics("fast", 1, "cuda:0")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("level", LEVELS)
def test_float32_is_float32_on_a_gpu_but_for_fast_which_leaves_it(level):
    torch.backends.cudnn.allow_tf32 = True
    prepare_numerics(level, 1, "cuda")
    assert torch.backends.cudnn.allow_tf32 == (level == "fast")
    assert torch.backends.cuda.matmul.fp32_precision in ("ieee", "none")


def test_preparing_and_recording_do_not_wait_for_torchs_compiler(capped_process):
    """torch.use_deterministic_algorithms(True) does the same and imports it, for 1.5 s."""
    assert capped_process["deterministic"]
    assert capped_process["compiler"] == []


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "levels", "device"),
    [
        ("OMP_THREAD_LIMIT", "1", LEVELS, "cpu"),
        ("OMP_MAX_ACTIVE_LEVELS", "0", LEVELS, "cpu"),
        ("OMP_DYNAMIC", "TRUE", ("fast", "elastic"), "cpu"),
        ("MKL_DYNAMIC", "1", ("fast", "elastic"), "cpu"),
        ("CUBLAS_WORKSPACE_CONFIG", ":0:0", LEVELS, "cuda"),
        ("NVIDIA_TF32_OVERRIDE", "1", ("elastic", "portable"), "cuda"),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1", ("elastic", "portable"), "cuda"),
    ],
)
def test_a_variable_that_breaks_the_level_is_refused_by_its_name(
    monkeypatch, variable, value, levels, device
):
    monkeypatch.setenv(variable, value)
    for level in LEVELS:
        if level in levels:
            with pytest.raises(ConfigError, match=f"^{variable} is {value}") as error:
                prepare_numerics(level, 2, device)
            assert "nset " in str(error.value) or "Set it to" in str(error.value)
        else:
            prepare_numerics(level, 2, device)


@pytest.mark.parametrize(
    ("variable", "value", "device"),
    [
        ("OMP_THREAD_LIMIT", "2", "cpu"),
        ("OMP_THREAD_LIMIT", "", "cpu"),
        ("OMP_MAX_ACTIVE_LEVELS", "1", "cpu"),
        ("OMP_DYNAMIC", "false", "cpu"),
        ("MKL_DYNAMIC", "FALSE", "cpu"),
        ("CUBLAS_WORKSPACE_CONFIG", ":16:8", "cuda"),
        ("CUBLAS_WORKSPACE_CONFIG", ":0:0", "cpu"),
        ("NVIDIA_TF32_OVERRIDE", "0", "cuda"),
        ("MKL_CBWR", "COMPATIBLE", "cpu"),
    ],
)
def test_a_value_that_the_level_can_live_with_is_left_as_it_is(
    monkeypatch, variable, value, device
):
    monkeypatch.setenv(variable, value)
    prepare_numerics("elastic", 2, device)
    assert os.environ[variable] == value


def test_a_refused_start_has_not_changed_the_number_of_threads(monkeypatch):
    prepare_numerics("fast", 1, "cpu")
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    with pytest.raises(ConfigError):
        prepare_numerics("fast", 2, "cpu")
    assert torch.get_num_threads() == 1


def test_a_number_of_threads_that_torch_does_not_take_is_refused(monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    with pytest.raises(ConfigError, match=r"^training\.num_threads is 7, but torch"):
        prepare_numerics("fast", 7, "cpu")


def test_a_workspace_missing_after_cuda_has_started_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(ConfigError, match=r"^CUBLAS_WORKSPACE_CONFIG was not set"):
        prepare_numerics("fast", 1, "cuda")
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


@pytest.mark.slow
def test_without_the_refusal_a_thread_limit_below_the_team_hangs():
    """What the refusal of OMP_THREAD_LIMIT is for: this gradient never ends."""
    convolve = (
        "import torch; torch.set_num_threads(4);"
        "conv = torch.nn.Conv2d(16, 32, 3); conv(torch.rand(16, 16, 64, 64)).sum().backward()"
    )
    run = [sys.executable, "-c", convolve]
    subprocess.run(run, check=True, timeout=60)
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(run, check=True, timeout=40, env={**os.environ, "OMP_THREAD_LIMIT": "2"})


# ---- the folder of compiled code ---------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "inductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    return folder


def test_an_empty_cache_becomes_ours_and_stays_so_as_it_fills(cache):
    prepare_numerics("fast", 1, "cpu")
    assert (cache / OWNER_FILE).is_file()
    (cache / "kernel.so").write_bytes(b"compiled here")
    prepare_numerics("fast", 1, "cpu")


def test_a_second_training_in_a_process_is_not_refused_for_the_folder_that_torch_chose(
    capped_process,
):
    """It was, between two seeds, wherever that folder held anything of another program."""
    assert capped_process["again"] == capped_process["numerics"]


def test_a_cache_that_nobody_signed_is_refused(cache):
    cache.mkdir()
    (cache / "kernel.so").write_bytes(b"compiled somewhere")
    with pytest.raises(ConfigError, match=r"^TORCHINDUCTOR_CACHE_DIR is .* nobody knows what"):
        prepare_numerics("portable", 1, "cpu")
    assert not (cache / OWNER_FILE).exists()


def test_a_cache_of_another_instruction_set_is_refused(cache, monkeypatch):
    prepare_numerics("fast", 1, "cpu")
    (cache / "kernel.so").write_bytes(b"compiled here")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    with pytest.raises(ConfigError, match=r"^TORCHINDUCTOR_CACHE_DIR is .* another\. Such code"):
        prepare_numerics("fast", 1, "cpu")


def test_a_damaged_signature_is_nobodys(cache):
    prepare_numerics("fast", 1, "cpu")
    (cache / OWNER_FILE).write_text("[]")
    with pytest.raises(ConfigError, match="nobody knows what"):
        prepare_numerics("fast", 1, "cpu")


def test_a_cache_that_is_a_file_is_refused_in_words(cache):
    cache.write_text("not a folder")
    with pytest.raises(ConfigError, match=r"^TORCHINDUCTOR_CACHE_DIR: cannot write"):
        prepare_numerics("fast", 1, "cpu")


# ---- going on with a run -----------------------------------------------------------------------

THEN = {
    "level": "fast",
    "num_threads": 2,
    "device": "cuda",
    "ranks": 1,
    "micro_batch": 16,
    "libraries": {"torch": "2.13.0", "mkl": "2024.2", "onednn": "3.12.0", "libc": "glibc-2.36"},
    "processor": {
        "name": "EPYC 9755",
        "vendor": "AuthenticAMD",
        "architecture": "x86_64",
        "aten": "AVX512",
        "onednn": "AVX512_CORE_BF16",
    },
    "flags": {"mkldnn": True, "deterministic_algorithms": True},
    "gpu": {"gpu": {"name": "H200", "driver": "550.1"}, "cuda": "12.8", "cudnn": 91002},
    "variables": {"OMP_NUM_THREADS": "2"},
}


def changed(key: str, value) -> dict:
    record = copy.deepcopy(THEN)
    place, names = record, key.split(".")
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = value
    return record


@pytest.mark.parametrize(
    ("key", "value", "named", "refused_at"),
    [
        ("level", "elastic", "training.numerics", LEVELS),
        ("micro_batch", 8, "training.micro_batch", LEVELS),
        ("num_threads", 1, "training.num_threads", ("fast", "elastic")),
        ("ranks", 2, "the number of ranks", ("fast",)),
        ("device", "cpu", "device", ("fast", "elastic")),
        ("libraries.torch", "2.14.0", "the version of torch", ("fast", "elastic")),
        ("libraries.mkl", "2025.0", "the version of MKL", ("fast", "elastic")),
        ("libraries.onednn", "3.13.0", "the version of oneDNN", ("fast", "elastic")),
        ("processor.aten", "AVX2", "torch's instruction set", ("fast", "elastic")),
        ("processor.onednn", "AVX2", "oneDNN's instruction set", ("fast", "elastic")),
        ("processor.vendor", "GenuineIntel", "the maker of the processor", ("fast", "elastic")),
        ("processor.name", "Xeon 8480", "the processor", ("fast", "elastic")),
        ("gpu.gpu.name", "A100", "the GPU", ("fast", "elastic")),
        ("gpu.cudnn", 90000, "the version of cuDNN", ("fast", "elastic")),
        ("flags.mkldnn", False, "flags.mkldnn", ("fast", "elastic")),
        ("variables.MKL_CBWR", "COMPATIBLE", "MKL_CBWR", ("fast", "elastic")),
        ("gpu.gpu.driver", "560.2", "", ()),
        ("libraries.libc", "glibc-2.40", "", ()),
        ("variables.OMP_NUM_THREADS", "8", "", ()),
        ("variables.HDF5_USE_FILE_LOCKING", "FALSE", "", ()),
    ],
)
def test_what_a_level_depends_on_must_be_as_it_was(key, value, named, refused_at):
    for level in LEVELS:
        if level in refused_at:
            with pytest.raises(RunError) as error:
                refuse_other_numerics(THEN, changed(key, value), level)
            assert str(error.value).startswith(f"{named} was ")
            assert f"is {value}" in str(error.value)
            assert re.search("new run|--elsewhere", str(error.value))
        else:
            refuse_other_numerics(THEN, changed(key, value), level)


def test_the_first_difference_is_the_one_that_is_named():
    now = changed("processor.aten", "AVX2")
    now["libraries"]["torch"] = "2.14.0"
    with pytest.raises(RunError, match=r"^the version of torch was 2\.13\.0 and is 2\.14\.0"):
        refuse_other_numerics(THEN, now, "fast")


def test_an_instruction_set_that_a_variable_capped_is_named_with_it():
    now = changed("processor.aten", "AVX2")
    now["variables"]["ATEN_CPU_CAPABILITY"] = "avx2"
    with pytest.raises(RunError, match=r"^torch's instruction set \(by ATEN_CPU_CAPABILITY\) was"):
        refuse_other_numerics(THEN, now, "elastic")


def test_a_cap_that_changes_no_instruction_set_is_no_difference():
    refuse_other_numerics(THEN, changed("variables.ATEN_CPU_CAPABILITY", "avx512"), "fast")


def test_nothing_is_guessed_about_a_run_that_recorded_less():
    refuse_other_numerics({}, THEN, "fast")
    older = {key: THEN[key] for key in ("level", "num_threads")}
    refuse_other_numerics(older, THEN, "fast")
    with pytest.raises(RunError, match=r"^training\.num_threads was 4 and is 2"):
        refuse_other_numerics({**older, "num_threads": 4}, THEN, "fast")


def test_the_same_process_may_always_go_on():
    for level in LEVELS:
        record = numerics_record(level, torch.get_num_threads(), "cpu", 1, 16)
        refuse_other_numerics(record, record, level)


def test_another_instruction_set_is_seen_in_a_real_process(capped_process):
    capped = capped_process["numerics"]
    assert capped["processor"]["onednn"] == "SSE41"
    prepare_numerics("fast", 1, "cpu")
    with pytest.raises(RunError, match="by ATEN_CPU_CAPABILITY"):
        refuse_other_numerics(numerics_record("fast", 1, "cpu"), capped, "fast")
