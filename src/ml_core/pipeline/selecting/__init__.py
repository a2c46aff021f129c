"""What `select` and `compare` read of runs and studies."""
