#!/usr/bin/env bash
# Sets up, then distils a small detector on generated data; about 12 minutes
# on 2 cores after the set-up. Options go to demo/quickstart.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh
export PYTHONWARNINGS=ignore
exec .venv/bin/python -m demo.quickstart "$@"
