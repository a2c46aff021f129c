"""Which data these are, to the bit: digests, manifests, PCam's official checksums."""
