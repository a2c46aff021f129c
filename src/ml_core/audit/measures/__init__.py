"""What is measured of each patch, as it goes by: functions from a block of patches to columns."""
