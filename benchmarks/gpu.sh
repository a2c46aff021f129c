#!/usr/bin/env bash
# All that can only be checked on a GPU, unattended, in under 9 minutes. README: benchmarks/gpu.py.
#
#   benchmarks/gpu.sh [--data FOLDER] [--only NAME ...] [--cpu]
#
# From a bare checkout: nothing is installed and nothing fetched. PYTHON says which interpreter, by
# default python3; it needs Python 3.11, torch 2.11 with CUDA, h5py, and pydantic for most checks.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "benchmarks/gpu.sh needs Python 3.11 or later; say which: PYTHON=python3.12 $0" >&2
    exit 2
fi
exec "$python" "$here/gpu.py" "$@"
