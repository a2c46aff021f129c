# Ended within a minute, and not as ml-core ends (0, 2, 3, 130) nor killed (KILL, USR1, TERM)?
if ((SECONDS - began < at_once_s && SLURM_JOB_NUM_NODES == 1)); then
  case $code in
    0 | 2 | 3 | 130 | 137 | 138 | 143) ;;
    *) leave_out "$SLURMD_NODENAME" ;;
  esac
fi
exit "$code"
