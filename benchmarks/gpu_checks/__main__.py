"""Answer one question in this process: python -m gpu_checks NAME --device cuda --answer FILE."""

from __future__ import annotations

import argparse
import importlib
import time
import traceback
from pathlib import Path

from gpu_checks.answer import Answer

OURS = ("ml_core", "gpu_checks")
MOST = 400  # characters of an error in one line


def main() -> None:
    options = parse_options()
    answer = Answer(options.answer)
    try:
        from gpu_checks.asked import Asked

        asked = Asked(
            options.device,
            data_dir=options.data,
            scratch=options.scratch,
            is_tiny=options.tiny,
            ends_at=time.monotonic() + 0.85 * options.seconds,  # what it has begun may take longer
        )
        importlib.import_module(f"gpu_checks.{options.name}").check(asked, answer)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and missing.partition(".")[0] not in OURS:
            answer.settle("left out", f"{missing} is not installed here")
            return
        traceback.print_exc()
        answer.settle("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:MOST]}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", type=Path, help="real patches; without, the check draws some")
    parser.add_argument("--scratch", type=Path, required=True, help="a folder to write into")
    parser.add_argument("--answer", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--seconds", type=float, required=True, help="before one is killed")
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
