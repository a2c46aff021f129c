"""What `slice` and `explain` share: the run with its operating point, its patches, their facts."""
