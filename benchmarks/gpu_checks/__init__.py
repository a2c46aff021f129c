"""What benchmarks/gpu.py checks, a module for each question: `check(asked, answer)`."""
