"""How long do `explain`, `slice` and `report` take on as many patches as PCam's test split has?

    python benchmarks/where_it_fails.py [--keep DIR] [--out where_it_fails.json]

Makes 4,000 synthetic training and 32,768 validation patches, audits them, trains a small network
for an epoch, and then types each verb: seconds of wall time and the largest resident memory, both
of the whole process. Wanted on two cores: `slice` (about 30 slices, the search for others, errors,
uncertainty) below 60 s and 2 GB, `report` below 10 s and its page below 5 MB. `explain` is not
bounded: it asks the model about some 40,000 patches, whatever a patch costs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from ml_core.reproducibility import hardware_record
from ml_core.runs import read_json

NUM_TRAIN, NUM_VALID = 4_000, 32_768
CONFIG = {
    "experiment_name": "where_it_fails",
    "data": {"data_path": "data", "batch_size": 64},
    "model": {"name": "cnn", "widths": [8, 16]},
    "training": {"epochs": 1},
    "tracking": {"tensorboard": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="work there, and leave everything behind")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        result = measure(folder)
    finally:
        if not options.keep:
            shutil.rmtree(folder)
    for verb, figures in result["verbs"].items():
        print(f"{verb:8} {figures['wall_s']:6.1f} s  {figures['peak_mib']:7.0f} MiB")
    print(f"{result['num_slices']} slices; report.html {result['report_mib']:.2f} MiB")
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(folder: Path) -> dict:
    """Prepare what is missing in `folder`, and return the figures of the three verbs."""
    if not (folder / "data").is_dir():
        sizes = {"train": NUM_TRAIN, "valid": NUM_VALID, "test": 100}
        type_(folder, "data", "synth", "data", *(f"--{name}={num}" for name, num in sizes.items()))
        type_(folder, "audit", "data", "--fail-on=error")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    if not (folder / "runs").is_dir():
        type_(folder, "train", "config.yaml")
    (run,) = (folder / "runs" / CONFIG["experiment_name"]).glob("*/")
    type_(folder, "evaluate", str(run))
    verbs = {verb: type_(folder, verb, str(run)) for verb in ("explain", "slice", "report")}
    return {
        "num_patches": NUM_VALID,
        "num_slices": len(read_json(run / "slices.json")["slices"]),
        "report_mib": (run / "report.html").stat().st_size / 2**20,
        "verbs": verbs,
        "machine": hardware_record(),
    }


def type_(folder: Path, *arguments: str) -> dict[str, float]:
    """Run a command in `folder`; return how long it took and how much memory it held at most."""
    started = time.monotonic()
    command = [sys.executable, "-c", "from ml_core.cli import main; main()", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 3):  # 3: the audit has something to say
        raise SystemExit(f"{' '.join(arguments)} failed")
    return {"wall_s": time.monotonic() - started, "peak_mib": usage.ru_maxrss / 1024}


if __name__ == "__main__":
    main()
