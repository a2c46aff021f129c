"""Secrets in the environment, the config and the address of the server: nowhere afterwards."""

import base64
import os
import subprocess
import sys
from urllib.parse import quote

import pytest
from mlflow_server import on_server
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.runs import RunDir

pytestmark = pytest.mark.faults

USER = "canary-user"
# Names under which secrets lie about in environments; each gets a value of its own.
NAMES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET",
    "DATABASE_URL", "DOCKER_AUTH_CONFIG", "GH_TOKEN", "GITHUB_TOKEN", "GITLAB_TOKEN", "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN", "KUBECONFIG", "NETRC", "NPM_TOKEN", "OPENAI_API_KEY", "PGPASSWORD",
    "PIP_INDEX_URL", "S3_SECRET", "SLURM_JWT", "SSH_AUTH_SOCK", "SUDO_PASSWORD", "WANDB_API_KEY",
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_USERNAME", "OMP_SECRET", "MKL_SECRET", "MY_KEY",
)  # fmt: skip


def canary(name):
    return f"canary-{name.lower().replace('_', '-')}-5e1f"


PASSWORD = canary("the address of the server".replace(" ", "_"))


def environment():
    """Return this environment with a secret under each name."""
    secrets = {name: canary(name) for name in NAMES}
    return {**os.environ, "OMP_NUM_THREADS": "1", **secrets}


def disguises(secret):
    """Return the ways in which a secret may be written."""
    pair = f"{USER}:{secret}".encode()
    return {
        "as it is": secret.encode(),
        "in base64": base64.b64encode(pair).rstrip(b"="),
        "in a URL": quote(secret.replace("-", "%2D")).encode(),
        "in hexadecimal": secret.encode().hex().encode(),
    }


def found_in(content, secrets):
    """Return which secrets `content` (bytes) holds, and in which disguise."""
    return [
        f"{secret} {how}"
        for secret in secrets
        for how, text in disguises(secret).items()
        if text in content
    ]


def files_below(*folders):
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def do(*arguments):
    command = [sys.executable, "-m", "ml_core.cli", *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def told(tmp_path_factory, real_mlflow, draw):
    """What the commands printed, where they wrote, and the run: a whole run and its mishaps."""
    folder = tmp_path_factory.mktemp("leaks")
    data = write_tiny_pcam(folder / "data")
    tracking = {"mlflow_uri": real_mlflow.uri, "tensorboard": True}
    training = {"epochs": 1, "num_threads": 1}
    config = write_config(folder / "config.yaml", data, tracking=tracking, training=training)
    tracking["mlflow_uri"] = real_mlflow.uri.replace("//", f"//{USER}:{PASSWORD}@")
    with_password = write_config(folder / "pw.yaml", data, tracking=tracking, training=training)
    uri = tracking["mlflow_uri"]
    whole = do("run" if draw == "full" else "train", config)
    assert whole.returncode == 0, whole.stderr.decode()
    (run,) = (folder / "runs" / "tiny").iterdir()
    commands = {
        "a whole run": whole,
        "a password in the config": do("train", with_password),
        "a password after --set": do("train", config, "--set", f"tracking.mlflow_uri={uri}"),
        "a mistake beside a password": do("train", config, "--set", f"tracking.mlflow_ur={uri}"),
        "a password in no address": do("train", config, "--set", f"tracking.mlflow_uri=x{uri}"),
        "track sync": do("track", "sync", run, "--uri", f"http://{USER}:{PASSWORD}@127.0.0.1:9"),
    }
    return commands, (folder / "runs", data), RunDir(run)


def test_no_secret_is_printed(told, fault):
    printed = fault(23, "secrets in what each command prints")
    secrets = [PASSWORD, *map(canary, NAMES)]
    for name, done in told[0].items():
        with printed.case(name):
            assert found_in(done.stdout + done.stderr, secrets) == []


def test_no_secret_is_written_into_runs_or_beside_the_data(told, fault):
    written = fault(23, "each secret in run directories, audits and tables")
    files = {path: path.read_bytes() for path in files_below(*told[1])}
    assert len(files) > 20
    for secret in [PASSWORD, *map(canary, NAMES)]:
        with written.case(secret):
            leaks = [str(path) for path, content in files.items() if found_in(content, [secret])]
            assert leaks == []


def test_no_secret_reaches_mlflow(told, real_mlflow, mlflow_dir, fault):
    assert on_server(real_mlflow.uri, told[2]).data.params["seed"] == "42"  # it did get the run
    sent = fault(23, "each secret in MLflow's database, artifacts and log")
    files = {path: path.read_bytes() for path in files_below(mlflow_dir)}
    for secret in [PASSWORD, *map(canary, NAMES)]:
        with sent.case(secret):
            leaks = [str(path) for path, content in files.items() if found_in(content, [secret])]
            assert leaks == []


@pytest.mark.parametrize("how", disguises("x"))
def test_a_secret_would_be_found_in_any_disguise(how, fault):
    secret = canary("HF_TOKEN")
    content = b"x" * 100 + disguises(secret)[how] + b"y" * 100
    assert found_in(content, [canary("NETRC"), secret])
    fault(24, "leaks: the search for secrets").held(how)
