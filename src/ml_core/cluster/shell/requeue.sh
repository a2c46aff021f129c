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
