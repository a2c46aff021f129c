"""What the figures mean: what bounds a training, and what would help; nothing is measured here."""
