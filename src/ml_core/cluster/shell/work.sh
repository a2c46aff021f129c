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
