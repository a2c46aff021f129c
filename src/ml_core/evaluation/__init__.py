"""From a model to a predictions table, and from the table to metrics, figures and the report."""
