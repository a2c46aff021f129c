"""What is said of the machine: its cores and their load, the GPU's slice and clocks, the job."""

import pytest
import torch
from fabricated_benchmark import MACHINE

from ml_core.pipeline.benchmarking.measuring import machine
from ml_core.pipeline.benchmarking.measuring.machine import (
    describe_machine,
    in_words,
    is_busy,
    mig_slice,
    read_clocks,
    slurm_job,
)

# nvidia-smi -L on a node with a sliced and a whole GPU, as NVIDIA's MIG User Guide shows it
LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb      Device  1: (UUID: MIG-0c757cd7-e942-5726-a0b8-0e8fb7067135)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-2b8a77aa-d33d-2b2c-524d-9e3d5d5ba0d6)
"""
GPU = {"name": "NVIDIA H200", "memory_gib": 139.8}


def test_this_machine_is_described_without_a_gpu():
    found = describe_machine(torch.device("cpu"))
    assert 1 <= found["cores_available"] <= found["cores_of_node"]
    assert found["whole_node"] == (found["cores_available"] == found["cores_of_node"])
    assert found["load"] >= 0


@pytest.mark.parametrize(
    ("name", "uuid", "slice_"),
    [
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "", "1g.5gb"),
        ("NVIDIA H100 MIG 1g.10gb+me", "", "1g.10gb+me"),
        ("NVIDIA A100-SXM4-40GB", "0c757cd7-e942-5726-a0b8-0e8fb7067135", "1g.5gb"),
        ("NVIDIA A100-SXM4-40GB", "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "3g.20gb"),
        ("NVIDIA A100-SXM4-40GB", "2b8a77aa-d33d-2b2c-524d-9e3d5d5ba0d6", None),
    ],
)
def test_a_slice_is_found_by_its_name_or_by_its_uuid(name, uuid, slice_):
    assert mig_slice(LISTED, name, uuid) == slice_


def test_clocks_are_numbers_or_none_and_of_one_gpu_only():
    assert read_clocks("1980, 1980, 3201, 3201, 700.00\n") == {
        "clocks.sm": 1980.0,
        "clocks.max.sm": 1980.0,
        "clocks.mem": 3201.0,
        "clocks.max.mem": 3201.0,
        "power.limit": 700.0,
    }
    assert read_clocks("[N/A], 1980, [N/A], 3201, [N/A]\n")["clocks.sm"] is None
    assert read_clocks("1, 2, 3, 4, 5\n1, 2, 3, 4, 5\n") is None
    assert read_clocks("") is None


def test_a_gpu_is_described_by_what_nvidia_smi_says_of_it(program, monkeypatch):
    program(
        "nvidia-smi",
        'case "$*" in\n'
        f"  -L) printf '%s' \"{LISTED}\" ;;\n"
        "  *--id=GPU-0c757cd7*) exit 6 ;;\n"  # a slice has no clocks of its own
        '  *--query-gpu=*) echo "345, 1410, 1215, 1215, 400.00" ;;\n'
        "esac",
    )
    properties = type("Properties", (), {"uuid": "0c757cd7-e942-5726-a0b8-0e8fb7067135"})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(machine, "gpu_record", lambda index: {"gpu": dict(GPU), "cuda": "13.0"})
    found = describe_machine(torch.device("cuda:0"))
    assert found["gpu"]["mig"] == "1g.5gb"
    assert found["gpu"]["clocks"]["clocks.max.sm"] == 1410.0
    assert in_words(found | MACHINE | {"gpu": found["gpu"]}) == (
        "A processor, 2 cores; NVIDIA H200, slice 1g.5gb, 140 GB, 345 of 1410 MHz"
    )


def test_without_nvidia_smi_slice_and_clocks_are_none(program, monkeypatch):
    properties = type("Properties", (), {"uuid": "0c757cd7"})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(machine, "gpu_record", lambda index: {"gpu": dict(GPU)})
    found = describe_machine(torch.device("cuda:0"))
    assert (found["gpu"]["mig"], found["gpu"]["clocks"]) == (None, None)
    assert "NVIDIA H200, 140 GB" in in_words(found)


def test_a_job_is_told_by_slurms_variables():
    assert slurm_job({"PATH": "/bin"}) is None
    environment = {"SLURM_JOB_ID": "17", "SLURM_JOB_PARTITION": "gpu_a100", "SLURM_PROCID": "0"}
    assert slurm_job(environment) == {"job_id": "17", "job_partition": "gpu_a100"}
    shared = {"cores_of_node": 72, "whole_node": False, "slurm": slurm_job(environment)}
    assert in_words(MACHINE | shared) == (
        "A processor, 2 of 72 cores; no GPU; a shared node of gpu_a100"
    )


@pytest.mark.parametrize(
    ("load", "cores", "words"),
    [
        (3.1, 2, "the machine was busy: load 3.1 on 2 cores"),
        (0.4, 1, "the machine was busy: load 0.4 on 1 core"),
        (0.4, 2, ""),
        (3.1, 72, ""),  # others on a node of 72 cores
        (None, 2, ""),
    ],
)
def test_a_machine_that_works_for_others_is_called_busy(load, cores, words):
    assert is_busy(MACHINE | {"load": load, "cores_of_node": cores}) == words
