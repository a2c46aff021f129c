"""What is known of jobs on a cluster, and how it is told."""
