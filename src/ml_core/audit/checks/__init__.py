"""The checks: functions from the table of patches to findings, none of which knows another."""
