"""What arithmetic a training computes in, and how its state is named by a digest."""
