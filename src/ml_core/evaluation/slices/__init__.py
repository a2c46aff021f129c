"""Groups of patches defined by what the patches are: facts, queries, and the usual slices."""
