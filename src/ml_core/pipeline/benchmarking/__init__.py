"""How fast a config reads, computes and trains on this machine, and what holds it back."""
