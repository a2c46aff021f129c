"""What of runs, studies and champions MLflow is sent."""
