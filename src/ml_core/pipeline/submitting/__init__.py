"""The steps of a submission: read what was typed, plan the jobs, try them, queue them, wait."""
