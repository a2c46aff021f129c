"""What several stages are made of: data, model, device, the gate before training."""
