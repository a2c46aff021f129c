# A node that does not work is left out, and the job tried on another: on three at most.
bad_nodes=$folder/$SLURM_JOB_ID.bad-nodes
leave_out() {  # NODE...
  local left_out others
  printf '%s\n' "$@" >>"$bad_nodes"
  left_out=$(sort -u "$bad_nodes" | paste -sd ,)
  others=$(sinfo --noheader --Node --partition="$SLURM_JOB_PARTITION" --responding --format=%N |
    sort -u | grep -cvxFf "$bad_nodes" || true)
  if [[ $requeue == no ]] || (($(sort -u "$bad_nodes" | wc -l) >= max_nodes_tried)) ||
    ((others < SLURM_JOB_NUM_NODES)); then
    error "failed on $left_out and not tried again; what came first above says why"
    return
  fi
  say "leaving out $left_out, and trying another node"
  trap '' TERM  # which requeue sends at once, and the line after it must still run
  patiently scontrol requeue "$job"
  patiently scontrol update JobId="$job" ExcNodeList="$left_out${exclude:+,$exclude}"
}

# Each node is looked at before any work; it says in a line what does not work there.
check='
fails() { echo "bad node: $SLURMD_NODENAME $*"; exit; }
"$1" -c "" || fails "cannot start $1"
[[ -z $2 ]] || { mkdir -p "$2" && [[ -w $2 ]]; } || fails "cannot write $2"
[[ $3 == no ]] || ! command -v nvidia-smi >/dev/null || timeout 60 nvidia-smi -L >/dev/null ||
  fails "has GPUs that do not answer"
'
code=0
failing=$(once_per_node bash -c "$check" check "$python" "$scratch_dir" "$gpus" |
  sed -n 's/^bad node: //p') || code=$?
if [[ -n $failing ]]; then
  error "$failing"
  mapfile -t names < <(cut -d ' ' -f 1 <<<"$failing")
  leave_out "${names[@]}"
  exit 1
fi
# 138, 143: preempted already. Slurm starts again what it kills, and not what ends by itself.
if ((code != 0 && code != 138 && code != 143)); then
  error "srun cannot start anything on $SLURM_JOB_NODELIST (exit code $code); it says above why"
  exit "$code"
fi
found=$("$python" -c 'import platform; print(platform.python_version())')
[[ $found == "$python_version" ]] ||
  stop "$python is Python $found here, and was $python_version when this was submitted." \
    "Load the module that its environment was made with, or make it anew: uv venv."
