"""No network, an empty home, a run that may only be read: predict and verify work all the same."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from tiny_pcam import make_patches, write_config, write_split, write_tiny_pcam

from ml_core.config import Config
from ml_core.data.layout import split_paths
from ml_core.pipeline.train import train
from ml_core.runs import RunDir

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (shutil.which("strace") and shutil.which("unshare")),
        reason="a world without network needs strace, unshare and the rights of root",
    ),
]

# In namespaces of its own: the mounts of the test vanish with it, and there is no network at all.
WORLD = """
set -e
mount --bind "$RUN" "$RUN"
mount -o remount,ro,bind "$RUN"
mount -t tmpfs tmpfs "$HOME"
strace -f -qq -e signal=none -e trace=connect -o "$TRACE" "$@"
test -z "$(ls -A "$HOME")" || { echo "something was written into the empty home" >&2; exit 99; }
"""
# libc asks its own cache of user names, on this machine, for the name of this user; that goes
# nowhere, and is not ours to prevent.
CONNECT = re.compile(r"\bconnect\((?!.*/nscd/socket)")


class World:
    """A place without network in which `run` can be read only; counts connect() calls."""

    def __init__(self, run, folder):
        self.run, self.folder = run, folder
        self.trace, self.home = folder / "trace", folder / "home"
        self.home.mkdir(exist_ok=True)

    def do(self, *command):
        """Run a command there; return it as it ended, and how often anything called connect()."""
        bare = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HOME": str(self.home)}
        bare |= {"RUN": str(self.run), "TRACE": str(self.trace), "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(
            ["unshare", "--net", "--mount", "sh", "-c", WORLD, "sh", *map(str, command)],
            env=bare, cwd=self.folder, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        return done, len(CONNECT.findall(self.trace.read_text()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    data = write_tiny_pcam(folder / "data")
    training = {"epochs": 1, "num_threads": 1}
    config = Config.load(write_config(folder / "config.yaml", data, training=training))
    return RunDir.open(train(config, command="a test")["runs"][0]["run"])


def ml_core(*arguments):
    return [sys.executable, "-m", "ml_core.cli", *arguments]


def patch_files(folder):
    """Return the kinds of files that predict reads, by name."""
    labels = [0, 1] * 40
    patches = make_patches(labels, seed=5)
    write_split(folder, "valid", patches, labels)
    images = []
    for number, patch in enumerate(patches[:5]):
        images.append(folder / f"patch-{number}.png")
        Image.fromarray(patch).save(images[-1])
    return {"an HDF5 file": [split_paths(folder, "valid").x], "images": images}


def test_predict_needs_no_network_and_gives_the_same_bits(run, tmp_path, draws, fault):
    alone = fault(22, "predict: no network, empty home, run read-only")
    world = World(run.path, tmp_path)
    kinds = patch_files(tmp_path)
    for kind, files in list(kinds.items())[: draws(full=2, short=1)]:
        tables = [tmp_path / f"{kind}-{place}.csv" for place in ("here", "there")]
        here = subprocess.run(
            ml_core("predict", run.path, *files, "--out", tables[0]), capture_output=True, text=True
        )
        with alone.case(kind):
            assert here.returncode == 0, here.stderr
            there, num_connects = world.do(
                *ml_core("predict", run.path, *files, "--out", tables[1])
            )
            assert there.returncode == 0, there.stderr
            assert num_connects == 0
            assert tables[0].read_bytes() == tables[1].read_bytes()


def test_verify_needs_no_network_and_writes_nothing_into_the_run(run, tmp_path, fault):
    alone = fault(22, "verify: no network, empty home, run read-only")
    with alone.case("the whole run"):
        done, num_connects = World(run.path, tmp_path).do(*ml_core("verify", run.path, "--full"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert num_connects == 0


def test_a_command_that_asks_the_network_is_seen(run, tmp_path, fault):
    code = "import socket; socket.socket({}).connect_ex({})"
    asking = {"socket.AF_INET": ("10.0.0.1", 80), "socket.AF_UNIX": "/run/other/socket"}
    for family, address in asking.items():
        asked = code.format(family, repr(address))
        _, num_connects = World(run.path, tmp_path).do(sys.executable, "-c", asked)
        assert num_connects == 1
    done, _ = World(run.path, tmp_path).do("touch", run.path / "new")
    assert "Read-only file system" in done.stderr
    done, _ = World(run.path, tmp_path).do("sh", "-c", "touch $HOME/new")
    assert done.returncode == 99
    fault(24, "no network: the count of connects, the locked run, the empty home").held("all three")
