"""Where in a patch a model finds its answer, and what it answers when that part is hidden.

Loading this package does not load torch: figures and overlays of what was measured need none.
"""
