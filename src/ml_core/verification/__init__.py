"""Two runs, or a run and the present, laid side by side until the first difference."""
