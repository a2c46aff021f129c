"""A disk behind a server, as NFS is: bindfs, a file system in a process (FUSE) that is in our hand.

    with RemoteDisk(folder / "server", folder / "runs") as disk:
        disk.stop(); disk.go_on()       # who asks waits meanwhile
        disk.kill(); disk.start()       # who asks gets ENOTCONN, until it is mounted anew
        with disk.failing("fsync", "ESTALE", first=3): ...

What it lacks of NFS: a client that keeps writes back and attributes in memory, file handles that
outlive the server, several machines that see one disk, and their locks.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

NEEDED = ("bindfs", "strace", "umount")


class RemoteDisk:
    """`folder`, whose files lie in `server_dir`; mounted inside, and whatever happens not after.

    With `locks` the server is asked for them too, else the kernel gives them out by itself. Skips
    the test where bindfs is not installed or nothing may be mounted.
    """

    def __init__(self, server_dir: Path, folder: Path, *, locks: bool = False) -> None:
        if missing := [program for program in NEEDED if shutil.which(program) is None]:
            pytest.skip(f"a disk behind a server needs: apt-get install {' '.join(missing)}")
        self.server_dir, self.folder, self._locks = server_dir, folder, locks
        for each in (server_dir, folder):
            each.mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._unmount()

    def start(self) -> None:
        """Start the server again, once it was killed, and mount its disk anew."""
        self._unmount()
        self._mount()

    def _mount(self) -> None:
        # nothing of it is kept by the kernel: each call of a job is one of the server
        options = "attr_timeout=0,entry_timeout=0,negative_timeout=0,direct_io"
        command = ["bindfs", "-f", "-o", options]
        if self._locks:  # one thread alone would wait for a lock, and nobody would release it
            command += ["--multithreaded", "--enable-lock-forwarding"]
        self._server = subprocess.Popen([*command, str(self.server_dir), str(self.folder)])
        while not self.folder.is_mount():
            if self._server.poll() is not None:
                pytest.skip("bindfs cannot mount here")
            time.sleep(0.02)

    def stop(self) -> None:
        self._server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._server.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the server; the disk is gone until it is started again."""
        self._server.kill()
        self._server.wait()

    def _unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    @contextmanager
    def failing(self, call: str, error: str, *, first: int = 1) -> Iterator[None]:
        """Let the server's system `call` fail with `error`, from the `first` of them inside on."""
        inject = f"inject={call}:error={error}:when={first}+"
        strace = ["strace", "-f", "-q", "-p", str(self._server.pid), "-e", f"trace={call}"]
        tracer = subprocess.Popen(
            [*strace, "-e", inject, "-o", "/dev/null"], stderr=subprocess.DEVNULL
        )
        status = Path(f"/proc/{self._server.pid}/status")
        while "TracerPid:\t0\n" in status.read_text():
            assert tracer.poll() is None, "strace cannot trace the server"
            time.sleep(0.01)
        try:
            yield
        finally:
            tracer.terminate()
            tracer.wait()
