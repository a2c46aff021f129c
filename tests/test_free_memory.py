"""What the system says is free: the machine's, and what the limits around a job leave."""

import pytest
import torch

from ml_core.data.free_memory import free_memory, free_memory_of

MIB = 2**20


@pytest.fixture
def system(tmp_path):
    """`system(cgroup, available)` writes what /proc says; returns the folders proc and cgroups."""

    def write(cgroup, available=1000 * MIB):
        proc = tmp_path / "proc"
        (proc / "self").mkdir(parents=True)
        (proc / "meminfo").write_text(
            f"MemTotal:  9999999 kB\nMemFree:  5 kB\nMemAvailable:  {available // 1024} kB\n"
        )
        (proc / "self" / "cgroup").write_text(cgroup)
        return proc, tmp_path / "cgroup"

    return write


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


def test_without_a_limit_it_is_what_the_machine_has(system):
    proc, cgroups = system("0::/job\n")
    group(cgroups / "job", max="max", high="max", current=700 * MIB)
    assert free_memory(proc, cgroups) == 1000 * MIB


def test_a_jobs_limit_counts_but_not_the_pages_of_files_in_it(system):
    proc, cgroups = system("0::/slurm/job_7\n")
    stat = f"anon 1\ninactive_file {100 * MIB}\nactive_file {50 * MIB}\nshmem {40 * MIB}"
    group(
        cgroups / "slurm" / "job_7",
        max=900 * MIB, high=600 * MIB, current=500 * MIB, stat=stat,
    )  # fmt: skip
    assert free_memory(proc, cgroups) == 250 * MIB


@pytest.mark.parametrize("narrow", ["slurm/job_7", "slurm"])
def test_the_narrowest_limit_counts_whichever_group_has_it(system, narrow):
    proc, cgroups = system("0::/slurm/job_7\n")
    for folder in ("slurm", "slurm/job_7"):
        limit = (80 if folder == narrow else 900) * MIB
        group(cgroups / folder, max="max", high=limit, current=10 * MIB)
    assert free_memory(proc, cgroups) == 70 * MIB


def test_a_limit_of_the_first_version_counts_with_the_pages_of_the_groups_inside(system):
    proc, cgroups = system("5:cpu,cpuacct:/\n9:memory:/slurm/job_7\n1:name=systemd:/\n")
    stat = f"inactive_file 0\ntotal_inactive_file {30 * MIB}\ntotal_active_file 0"
    group(
        cgroups / "memory" / "slurm" / "job_7",
        limit_in_bytes=200 * MIB, usage_in_bytes=150 * MIB, stat=stat,
    )  # fmt: skip
    assert free_memory(proc, cgroups) == 80 * MIB


def test_a_group_over_its_limit_leaves_nothing_and_not_less(system):
    proc, cgroups = system("0::/\n")
    group(cgroups, max=100 * MIB, current=130 * MIB)
    assert free_memory(proc, cgroups) == 0


def test_where_the_system_does_not_tell_nothing_is_made_up(tmp_path):
    assert free_memory(tmp_path / "none", tmp_path) is None


def test_of_this_machine_it_is_some():
    assert free_memory_of(torch.device("cpu")) > MIB
