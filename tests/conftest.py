import fcntl
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ProgramsAlone

SHARED_PCAM = Path(__file__).resolve().parents[2] / "shared" / "pcam"


@pytest.fixture(scope="session")
def real_pcam(tmp_path_factory):
    """A folder of real patches in PCam's layout: 20,000 train, 1,500 valid, 1,500 test."""
    if not (SHARED_PCAM / "unpack.py").is_file():
        pytest.skip(f"real patches are needed: {SHARED_PCAM} is absent")
    # xdist's workers share one copy: whoever comes first unpacks, the others wait for the lock
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    folder /= "real_pcam"
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            aside = folder.with_suffix(".part")
            unpack = [sys.executable, str(SHARED_PCAM / "unpack.py"), str(aside)]
            subprocess.run(unpack, check=True, capture_output=True)
            aside.rename(folder)
    return folder


@pytest.fixture
def said(caplog, monkeypatch):
    """The lines that a user sees, with their levels."""
    monkeypatch.setattr(logging.getLogger("ml_core"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture
def program(tmp_path, monkeypatch):
    """`program(name, lines)` puts one on PATH, where none of the machine's own is."""
    programs = ProgramsAlone(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(programs.folder))
    return programs


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own of 256 KiB."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a real full disk needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
