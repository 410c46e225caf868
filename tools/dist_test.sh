#!/usr/bin/env bash
# Scores a checkpoint on several GPUs; see the usage below.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_arguments 3 'bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [OPTIONS OF tools/test.py]
Environment, for several nodes: NNODES (1), NODE_RANK (0), MASTER_ADDR
(127.0.0.1), PORT (29500)' "$@"
config=$1 checkpoint=$2 gpus=$3
shift 3
launch "$gpus" "$root/tools/test.py" "$config" "$checkpoint" "$@"
