"""Two configs in turns, and the ratio of their rates."""
