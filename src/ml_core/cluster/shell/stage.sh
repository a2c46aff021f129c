# Data: copied once per node to its own disk, checked, and read from there.
staged=$scratch_dir/$staged_name
if [[ -z $scratch_dir ]]; then
  say "warning: \$$scratch is not set here, so the data are read where they lie: $data"
elif once_per_node "$python" -m ml_core data stage "$data" "$staged"; then
  also=(--set "data.local_copy=$staged")
else
  say "warning: not copied to $scratch_dir, so the data are read where they lie: $data"
fi
