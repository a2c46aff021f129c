#!/bin/bash
# ml-core tune --resume /runs/pcam_cnn/study-1 --workers 1 (written by ml-core submit)
#SBATCH --job-name=pcam_cnn
#SBATCH --output=/jobs/pcam_cnn/pcam_cnn-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --chdir=/jobs/pcam_cnn
#SBATCH --export=NONE
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32768M
#SBATCH --time=04:00:00
#SBATCH --array=0-1%1
#SBATCH --signal=USR1@120
#SBATCH --requeue

set -euo pipefail
export SLURM_EXPORT_ENV=ALL  # srun hands on what is exported below, in spite of --export=NONE

# What was asked for.
folder=/jobs/pcam_cnn
python=/venvs/pcam/bin/python
python_version=3.12.3
words=(tune --resume /runs/pcam_cnn/study-1 --workers 1)
also=()
gpus=yes
requeue=yes
exclude=''
max_nodes_tried=3
at_once_s=60
warned_s=210
scratch_dir=''

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

# Python as it was when this was submitted, with nobody else's packages.
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1
export PYTHONUNBUFFERED=1  # so that a line is in the log when it is printed
# Threads: the cores that a task was given, not those that the node has.
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
export MKL_NUM_THREADS=$OMP_NUM_THREADS OPENBLAS_NUM_THREADS=$OMP_NUM_THREADS

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

# The work, as a step: Slurm warns steps of the time limit, and never this script. A rank that has
# saved and leaves with 130 is no reason to kill others that still save; a death they notice. Nor
# is one that is done while the first still evaluates: some sites' WaitTime ends what is left.
say "ml-core ${words[*]@Q} ${also[*]@Q}"
began=$SECONDS
code=0
srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  "$python" -m ml_core "${words[@]}" "${also[@]}" || code=$?
state=$(patiently ask State || true)
say "ml-core ended with exit code $code after $((SECONDS - began)) s, job ${state:-state unknown}"
# When the node is lost, srun says 0 though the work never ended, and the job starts elsewhere.
# SIGNALING: Slurm is still sending what ended the work.
if [[ ${state:-RUNNING} != @(RUNNING|SIGNALING) || $(ask RestartCnt || echo "$restarts") != "$restarts" ]]; then
  error "Slurm has taken job $job from this node: what it did here is not its result"
  exit 1
fi

# 130: told to stop, it has saved. 138 and 143: the signal killed it before it could. Who sent it?
if ((code == 130 || code == 138 || code == 143)); then
  ends=$(patiently ask EndTime || true)
  left_s=$(($(date -d "${ends:-now}" +%s) - $(date +%s)))
  if [[ $ends == "$ends_at" ]] && ((left_s > warned_s)); then
    say "told to stop by a person, long before $ends: not requeued"
  elif [[ $ends == "$ends_at" ]] && ((code != 130)); then
    error "the time limit came before anything was saved, as it would again: ask for more time"
  else
    say "asks to be started again, since it must end at ${ends:-?}"
    patiently scontrol requeue "$job" && exit
    error "Slurm does not requeue it; go on by hand: ml-core ${words[0]} --resume RUN"
  fi
fi

# Ended within a minute, and not as ml-core ends (0, 2, 3, 130) nor killed (KILL, USR1, TERM)?
if ((SECONDS - began < at_once_s && SLURM_JOB_NUM_NODES == 1)); then
  case $code in
    0 | 2 | 3 | 130 | 137 | 138 | 143) ;;
    *) leave_out "$SLURMD_NODENAME" ;;
  esac
fi
exit "$code"
