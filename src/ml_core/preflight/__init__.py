"""What would end a job, seen before it is submitted, in seconds and without torch."""
