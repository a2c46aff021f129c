"""How scores change as patches are turned, blurred, saved again, relit and restained."""
