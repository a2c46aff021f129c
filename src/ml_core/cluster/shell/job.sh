say() { printf '%s  %s\n' "$(date +%FT%T)" "$*"; }
error() { echo "error: $*"; }
stop() { error "$*" && exit 2; }

# What Slurm calls this job: of an array, the bare number may be that of the whole array too.
job=$SLURM_JOB_ID
[[ -z ${SLURM_ARRAY_TASK_ID:-} ]] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
restarts=${SLURM_RESTART_COUNT:-0}
ask() { squeue --noheader --jobs="$job" --Format="$1:50" | tr -d ' '; }
patiently() {  # Slurm's controller may be restarting
  for _ in {1..6}; do "$@" && return; sleep 10; done
  return 1
}
once_per_node() {
  srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    --cpus-per-task=1 "$@"
}

ends_at=$(ask EndTime || true)
say "job $job, start $((restarts + 1)), on $SLURM_JOB_NODELIST, must end at ${ends_at:-?}"
