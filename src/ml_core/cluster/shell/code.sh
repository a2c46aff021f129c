# Is the code still what was submitted? The job goes on either way; the log must say so.
"$python" -m ml_core.cluster.same_code "$code_sha256" ||
  say "warning: cannot say whether the code is the one that was submitted"
