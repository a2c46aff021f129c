"""Making PCam's files: from images or any HDF5, and divided into splits without leaks."""
