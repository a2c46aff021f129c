# Started again: it goes on with the run that it had begun, if that has saved anything.
if ((restarts > 0)); then
  run=$("$python" -m ml_core.cluster.run_of_job "$runs" "$SLURM_JOB_ID")
  [[ -z $run ]] || words=("${words[0]}" --resume "$run")
fi
