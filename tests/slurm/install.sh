#!/bin/bash
# Install what the tests of this folder start for themselves: Debian's Slurm, munge and MariaDB.
#
#   sudo tests/slurm/install.sh
#
# No service is started or enabled: each test cluster runs in a private folder. Where all of it is
# there already, this does nothing.
set -euo pipefail

PROGRAMS=(slurmctld slurmd slurmdbd slurmstepd sbatch munged mariadbd)
PACKAGES=(slurmctld slurmd slurmdbd slurm-client munge mariadb-server)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing=()
for program in "${PROGRAMS[@]}"; do
    command -v "$program" > /dev/null || missing+=("$program")
done
if ((${#missing[@]} == 0)); then
    echo "Slurm, munge and MariaDB are here already."
    exit 0
fi

if ((EUID != 0)); then
    echo "error: ${missing[*]} not found, and only root can install them: sudo $0" >&2
    exit 2
fi
if ! command -v apt-get > /dev/null; then
    echo "error: ${missing[*]} not found; on this system, install the packages that hold them" >&2
    exit 2
fi

# Debian starts a service as it installs it, unless this file exists and says no (101).
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${PACKAGES[@]}"

# What was not here before shall not start with the machine either.
if command -v systemctl > /dev/null; then
    for program in "${missing[@]}"; do
        case $program in
            munged | mariadbd) systemctl disable --quiet "${program%d}" ;;
            slurmctld | slurmd | slurmdbd) systemctl disable --quiet "$program" ;;
        esac
    done
fi
