#!/usr/bin/env bash
# Sets up, then trains a small detector on few labels, alone and distilled.
# Options go to demo/quickstart.py; docs/quickstart.md explains them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# no compiler and no test tools are needed for this
KD_EXT_OPS=${KD_EXT_OPS:-any} KD_EXT_EXTRAS=${KD_EXT_EXTRAS-} bash tools/setup.sh
export PYTHONWARNINGS=ignore
exec .venv/bin/python -m demo.quickstart "$@"
