"""Whether exact arithmetic gives the committed bits on this machine, part by part and trained.

    python benchmarks/golden_hash.py
    python benchmarks/golden_hash.py --device cuda --out gpu.json
    python -m torch.distributed.run --nproc-per-node 2 benchmarks/golden_hash.py

It needs torch 2.11 or newer, no data, no network and nobody beside it; a minute on one core. Each
part and each training is compared with tests/golden/hashes.json; exit code 0 where all are the
same, 3 where not. "native" in the report is what torch's own arithmetic gives for the parts, and
--native takes it for the training, too. --write makes this machine's results the committed ones,
after a change that is meant to change them.
"""

from __future__ import annotations

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ml_core.data.augment import jitter_stains
from ml_core.distributed import process_group, ranks_from_environment
from ml_core.errors import ConfigError
from ml_core.numerics.elementary import exp, log
from ml_core.numerics.exact.cross_entropy import exact_cross_entropy
from ml_core.numerics.exact.known_answer import check_exact
from ml_core.numerics.exact_norm import exact_norms
from ml_core.numerics.exact_optim import ExactAdam, ExactAdamW, ExactSGD
from ml_core.numerics.initial_weights import draw_weights
from ml_core.numerics.keyed_dropout import dropout_words, keyed_dropout
from ml_core.numerics.portable_math import cos, power
from ml_core.numerics.state_hash import state_hash
from ml_core.reproducibility import Stream, philox_words
from ml_core.solver.witness import DEFAULT_RECIPE, Witness, draw_patches, run_witness

GOLDEN_PATH = Path(__file__).resolve().parents[1] / "tests" / "golden" / "hashes.json"

# What the default recipe leaves out: Nesterov, an L2 penalty, smoothed labels, another schedule, no
# clipping, and a last micro-batch that is smaller than the others.
SGD_RECIPE = {
    **DEFAULT_RECIPE,
    "batch_size": 28,
    "micro_batch": 8,
    "model": {
        **DEFAULT_RECIPE["model"],
        "options": {**DEFAULT_RECIPE["model"]["options"], "average_orientations": False},
    },
    "optimizer": {
        "name": "sgd",
        "lr": 0.05,
        "weight_decay": 1e-3,
        "momentum": 0.9,
        "nesterov": True,
    },
    "scheduler": {
        "name": "cosine",
        "epochs": 4,
        "steps_per_epoch": 1,
        "warmup_epochs": 1.0,
        "min_factor": 0.1,
    },
    "clip_grad_norm": None,
    "label_smoothing": 0.1,
}
RECIPES: Mapping[str, Mapping[str, Any]] = {"adamw": DEFAULT_RECIPE, "sgd": SGD_RECIPE}


# ---- parts ------------------------------------------------------------------------------------


def numbers(count: int, device: torch.device, stream: Stream = Stream.WITNESS) -> Tensor:
    """Return float32 from -1 to 1, multiples of 2^-23 from random words."""
    words = philox_words(0, 1, stream, -(-count // 4)).ravel()[:count]
    return (torch.from_numpy((words >> 40).astype("f4")) / 2**23 - 1).to(device)


def exp_and_log(device: torch.device, native: bool) -> Tensor:
    x = numbers(10_000, device).double()
    functions = (torch.exp, torch.log) if native else (exp, log)
    return torch.cat([functions[0](300 * x), functions[1](x.abs())])


def stains(device: torch.device, native: bool) -> Tensor:
    images, _ = draw_patches(0, 8, (3, 96, 96))
    images = images.to(device)
    if native:
        return ((images.float() + 1).log() * 0.9 + 0.1).exp()
    return jitter_stains(images, philox_words(0, 0, Stream.AUGMENT, 8)[:, 1:], 0.3)


def initial_weights(device: torch.device, native: bool) -> Tensor:
    torch.manual_seed(0)
    layer = nn.Linear(128, 64).to(device)
    if not native:
        draw_weights(layer, 0)
    return layer.weight.detach()


def dropout(device: torch.device, native: bool) -> Tensor:
    x = numbers(64 * 1000, device).view(64, 1000)
    torch.manual_seed(0)
    if native:
        return F.dropout(x, 0.2)
    with keyed_dropout(dropout_words(0, 1, 64), device):
        return F.dropout(x, 0.2)


def optimizers(device: torch.device, native: bool) -> Tensor:
    exact = (ExactAdamW, ExactAdam, ExactSGD)
    makers = (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD) if native else exact
    weights = []
    for make in makers:
        options = {"momentum": 0.9} if make in (torch.optim.SGD, ExactSGD) else {}
        weight = nn.Parameter(numbers(10_000, device))
        optimizer = make([weight], lr=0.01, weight_decay=0.1, **options)
        for step in range(1, 6):
            weight.grad = numbers(10_000, device, Stream.PROBE) / step
            optimizer.step()
        weights.append(weight.detach())
    return torch.cat(weights)


def norm(device: torch.device, native: bool) -> Tensor:
    x = numbers(1_000_000, device)
    return torch.linalg.vector_norm(x) if native else torch.tensor(exact_norms([x])).double()


def cross_entropy(device: torch.device, native: bool) -> Tensor:
    logits = (5 * numbers(2000, device)).view(-1, 2).requires_grad_()
    labels = torch.arange(1000, device=device) % 2
    if native:
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)
    else:
        losses = exact_cross_entropy(logits, labels, 0.1)
    return torch.cat([losses.detach(), torch.autograd.grad(losses.sum(), logits)[0].flatten()])


def schedule(device: torch.device, native: bool) -> Tensor:
    angles = [n / 100 for n in range(-300, 700)]
    if native:
        return torch.tensor(angles, dtype=torch.float64, device=device).cos()
    values = [cos(angle) for angle in angles] + [power(0.999, n) for n in range(1000)]
    return torch.tensor(values, dtype=torch.float64)


PARTS: dict[str, Callable[[torch.device, bool], Tensor]] = {
    "exp and log": exp_and_log,
    "stain jitter": stains,
    "initial weights": initial_weights,
    "dropout": dropout,
    "optimizers": optimizers,
    "norm": norm,
    "cross entropy": cross_entropy,
    "schedule": schedule,
}


def run_parts(device: torch.device, native: bool = False) -> dict[str, str]:
    """Return the digest of what each part gives, by its name."""
    return {name: state_hash({name: part(device, native)}) for name, part in PARTS.items()}


# ---- the whole --------------------------------------------------------------------------------


def main() -> int:
    arguments = parse_arguments()
    device = torch.device(arguments.device)
    torch.use_deterministic_algorithms(True)
    torch.backends.mkldnn.enabled = arguments.mkldnn == "on"
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    golden = {} if arguments.write else json.loads(GOLDEN_PATH.read_text(encoding="utf-8"))
    found: dict[str, Any] = {
        "machine": machine(device),
        "known_answers": known_answers(device),
        "parts": run_parts(device),
        "native": run_parts(device, native=True),
    }
    wanted = list(RECIPES) if arguments.optimizer == "all" else [arguments.optimizer]
    ranks = ranks_from_environment()
    with process_group(ranks, 300.0) as connected:
        for name in wanted:
            started = time.perf_counter()
            witness = run_witness(
                RECIPES[name] if arguments.write else golden[name]["recipe"],
                device=device,
                ranks=connected,
                reverse=arguments.reverse,
                precision="fp32" if arguments.native else "exact",
            )
            found[name] = witness.to_dict()
            found["machine"][f"seconds of {name}"] = round(time.perf_counter() - started, 1)
    if arguments.write:
        if connected.is_first:
            write(found)
        return 0
    differences = compare(found, golden, wanted)
    report = {**found, "differences": differences}
    if connected.is_first:
        print(json.dumps(report))
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 3 if differences else 0


def known_answers(device: torch.device) -> str:
    """Return what the test at the start of a portable run says; "as they should be" is good."""
    try:
        check_exact(device)
    except ConfigError as error:
        return str(error)
    return "as they should be"


def compare(found: Mapping[str, Any], golden: Mapping[str, Any], wanted: list[str]) -> list[str]:
    """Return in words what is not as committed."""
    different = [
        f"part: {name}" for name, digest in found["parts"].items()
        if digest != golden["parts"][name]
    ]  # fmt: skip
    if found["known_answers"] != "as they should be":
        different.insert(0, f"known answers: {found['known_answers']}")
    for name in wanted:
        committed = Witness.from_dict(golden[name]["witness"])
        difference = committed.first_difference(Witness.from_dict(found[name]))
        if difference is not None:
            different.append(f"{name}: {difference}")
    return different


def write(found: Mapping[str, Any]) -> None:
    golden = {"parts": found["parts"]} | {
        name: {"recipe": dict(recipe), "witness": found[name]} for name, recipe in RECIPES.items()
    }
    GOLDEN_PATH.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the bits might have depended on."""
    variables = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "WORLD_SIZE")
    return {
        "torch": torch.__version__,
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **{name: os.environ[name] for name in variables if name in os.environ},
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--optimizer", choices=[*RECIPES, "all"], default="all")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--mkldnn", choices=["on", "off"], default="on")
    parser.add_argument("--reverse", action="store_true", help="micro-batches from last to first")
    parser.add_argument("--native", action="store_true", help="torch's own arithmetic")
    parser.add_argument("--write", action="store_true", help="commit to this machine's results")
    parser.add_argument("--out", type=Path, help="write the report here as well, as JSON")
    arguments = parser.parse_args()
    if arguments.write and (arguments.optimizer != "all" or arguments.native):
        parser.error("--write takes all optimizers, in exact arithmetic")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
