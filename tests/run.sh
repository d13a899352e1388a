#!/usr/bin/env bash
# Set up if need be and run the tests, files side by side on all cores; arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
prepare_environment test
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # there is a process for every core already
exec python -m pytest --numprocesses auto --dist loadfile "$@"
