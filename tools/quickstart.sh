#!/usr/bin/env bash
# Sets up, then distils a small detector on generated data; about 12 minutes
# on 2 cores after the set-up. Options go to demo/quickstart.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# no compiler and no test tools are needed for this
KD_EXT_OPS=${KD_EXT_OPS:-any} KD_EXT_EXTRAS=${KD_EXT_EXTRAS-} bash tools/setup.sh
export PYTHONWARNINGS=ignore
exec .venv/bin/python -m demo.quickstart "$@"
