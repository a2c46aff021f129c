"""How fast the default CNN predicts on this CPU: ours against eager torch, compiled, ONNX Runtime.

    python benchmarks/inference.py [--threads 2 1] [--rounds 9] [--out results.json]

All turn the same uint8 patches in memory into the same logits in fp32, on as many threads, and keep
what they free (see `ml_core.reused_memory`) unless `--default-memory` is given. Each of the others
is first tried at every batch size (eager in both memory formats); then its best one and ours run in
alternation. A ratio is the median over the rounds of our rate by theirs in that round.
What is not installed (a C++ compiler for torch.compile, onnx, onnxruntime) is said and left out.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import io
import json
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ml_core.data.loader import Batch
from ml_core.evaluation.predictor import predict
from ml_core.models import PatchClassifier, build_model
from ml_core.pipeline.parts.splits import INFERENCE_BATCH_SIZE
from ml_core.reproducibility import hardware_record
from ml_core.reused_memory import reuse_memory

NUM_PATCHES = 512
BATCH_SIZES = (1, 4, 8, 16, 32, 64, 256, 512)
COMPILED_SIZES = (8, 32)  # half a minute of compiling each; larger ones were slower
TRIAL_S = 0.5  # per way and batch size
TOLERANCE = 1e-4  # of a logit: other orders of summation
BAR = 1.0

Way = Callable[[Tensor], Tensor]  # patches (N, 3, 96, 96) uint8 -> logits (N, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--default-memory", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = {}
    for threads in arguments.threads:  # compiled code and ONNX Runtime keep the number they met
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
            results[threads] = process.submit(
                measure, threads, arguments.rounds, keep=not arguments.default_memory
            ).result()
        print(json.dumps({threads: results[threads]}, indent=1), flush=True)
    document = {"machine": hardware_record(), "bar": BAR, "threads": results}
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")


def measure(threads: int, rounds: int, *, keep: bool) -> dict[str, Any]:
    """Return rates in patches per second and our ratio to the best way of each kind."""
    if keep:
        reuse_memory()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (NUM_PATCHES, 96, 96, 3), dtype=torch.uint8)
    patches = pixels.permute(0, 3, 1, 2)  # as the loader gives them
    expected = _ours()(patches)
    kinds: dict[str, Callable[[], dict[str, Way]]] = {
        "eager": _eager_ways,
        "compiled": _compiled_ways,
        "onnxruntime": lambda: _onnx_ways(threads),
    }
    best, tried, absent = {"ours": _ours()}, {}, {}
    for kind, ways_of in kinds.items():
        try:
            ways = ways_of()
            tried[kind] = {name: _trial_rate(way, patches, expected) for name, way in ways.items()}
        except Exception as error:  # whatever a missing compiler or package raises
            absent[kind] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            continue
        best[kind] = ways[max(tried[kind], key=tried[kind].__getitem__)]
    rates = _rates_in_turns(best, patches, rounds)
    ours = rates["ours"]
    return {
        "patches_per_s": {name: round(statistics.median(each)) for name, each in rates.items()},
        "ours_over": {
            name: round(statistics.median(a / b for a, b in zip(ours, each, strict=True)), 3)
            for name, each in rates.items()
            if name != "ours"
        },
        "tried_patches_per_s": tried,
        "absent": absent,
        "rounds": rounds,
    }


def _rates_in_turns(ways: dict[str, Way], patches: Tensor, rounds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way(patches)
            if number > 0:  # the first round warms up
                rates[name].append(NUM_PATCHES / (time.perf_counter() - started))
    return rates


def _trial_rate(way: Way, patches: Tensor, expected: Tensor) -> int:
    """Return patches per second, of the fastest pass in a short while; raises for wrong logits."""
    torch.testing.assert_close(way(patches), expected, rtol=0, atol=TOLERANCE)
    seconds: list[float] = []
    started = time.perf_counter()
    while not seconds or time.perf_counter() - started < TRIAL_S:
        before = time.perf_counter()
        way(patches)
        seconds.append(time.perf_counter() - before)
    return round(NUM_PATCHES / min(seconds))


def _model() -> PatchClassifier:
    torch.manual_seed(0)
    return build_model("cnn").eval()


def _ours() -> Way:
    """Return what `ml-core evaluate` does with batches that are in memory."""
    model = _model().to(memory_format=torch.channels_last)

    def ours(patches: Tensor) -> Tensor:
        rows = torch.arange(len(patches))
        batches = [
            Batch(patches[part], None, part)  # type: ignore[arg-type]
            for part in rows.split(INFERENCE_BATCH_SIZE)
        ]
        logit = predict(model, batches, "cpu").logit
        return torch.from_numpy(logit).float()

    return ours


def _eager_ways() -> dict[str, Way]:
    contiguous, last = _model(), _model().to(memory_format=torch.channels_last)
    ways = {}
    for size in BATCH_SIZES:
        ways[f"channels_last {size}"] = _in_batches(last, size)
        ways[f"contiguous {size}"] = _in_batches(contiguous, size)
    return ways


def _compiled_ways() -> dict[str, Way]:
    import torch._inductor.config

    torch._inductor.config.freezing = True  # weights become constants, laid out for the kernels
    model = _model().to(memory_format=torch.channels_last)
    compiled = torch.compile(model, dynamic=False)
    return {str(size): _in_batches(compiled, size) for size in COMPILED_SIZES}


def _onnx_ways(threads: int) -> dict[str, Way]:
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(
        _model(),
        (torch.zeros(2, 3, 96, 96, dtype=torch.uint8),),
        file,
        input_names=["patches"],
        output_names=["logits"],
        dynamic_axes={"patches": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )

    def run(patches: Tensor) -> Tensor:
        (logits,) = session.run(None, {"patches": np.ascontiguousarray(patches.numpy())})
        return torch.from_numpy(logits)

    return {str(size): _in_batches(run, size) for size in BATCH_SIZES}


def _in_batches(model: Callable[[Tensor], Tensor], size: int) -> Way:
    """Return `model` over batches of `size`, as the difference of its two logits (N,)."""

    def way(patches: Tensor) -> Tensor:
        with torch.inference_mode():
            logits = torch.cat([model(part) for part in patches.split(size)])
            return logits[:, 1] - logits[:, 0]

    return way


if __name__ == "__main__":
    main()
