"""`python -m ml_core`, as torchrun and srun start it, is `ml-core`."""

from ml_core.cli import main

if __name__ == "__main__":
    main()
