#!/usr/bin/env bash
# Lint, types and tests, after preparing .venv where that is needed.
#
#   bash tools/run_tests.sh                      all of it
#   bash tools/run_tests.sh -m 'not slow'        without trainings
#   bash tools/run_tests.sh tests/test_losses    options and paths are pytest's
#   KD_EXT_OPS=lite bash tools/run_tests.sh      without compiled operators
#   KD_EXT_STACK=onedl bash tools/run_tests.sh   in .venv-onedl
# With compiled operators, tests/test_ops runs the other route too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash tools/setup.sh
# the report's page is looked at in a real browser; without one its tests skip
if [ -z "${KD_EXT_BROWSER:-}" ] && ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo '[tests] installing chromium'
    { timeout 60 apt-get update -qq && timeout 240 apt-get install -y -qq --no-install-recommends \
        chromium fonts-dejavu-core; } >/dev/null 2>&1 || echo '[tests] no chromium could be installed; tests that need one skip'
fi
venv=.venv
[ "${KD_EXT_STACK:-openmmlab}" = openmmlab ] || venv=.venv-$KD_EXT_STACK
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
# a worker a core, each with one thread: two threads in each of two processes
# on two cores mostly wait for one another
export OMP_NUM_THREADS=1
exec "$venv/bin/python" -m pytest -q --durations=10 -n auto --dist loadfile "$@"
