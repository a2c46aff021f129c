"""What `tune` is made of, from the plan of a study to its page."""
