"""The course's entry point: `python experiments/train.py --config FILE` is `ml-core train FILE`."""

import argparse

from ml_core.cli import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file, see docs/config.md")
    known, others = parser.parse_known_args()
    main(["train", known.config, *others])
