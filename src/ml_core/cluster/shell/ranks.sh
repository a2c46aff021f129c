# Where the ranks meet: this script runs on the first node, and rank 0 does too.
MASTER_ADDR=$(hostname)
MASTER_PORT=$((first_port + SLURM_JOB_ID % num_ports))  # jobs that share a node differ
export MASTER_ADDR MASTER_PORT
