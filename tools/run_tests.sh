#!/usr/bin/env bash
# Lint, types and tests, after preparing .venv where that is needed.
#
#   bash tools/run_tests.sh                      all of it
#   bash tools/run_tests.sh -m 'not slow'        without trainings
#   bash tools/run_tests.sh tests/test_losses    options and paths are pytest's
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash tools/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# a worker a core, each with one thread: two threads in each of two processes
# on two cores mostly wait for one another
export OMP_NUM_THREADS=1
exec .venv/bin/python -m pytest -q --durations=10 -n auto --dist loadfile "$@"
