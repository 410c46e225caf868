#!/usr/bin/env bash
# Trains on several GPUs; see the usage below.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_arguments 2 'bash tools/dist_train.sh CONFIG GPUS [OPTIONS OF tools/train.py]
Environment, for several nodes: NNODES (1), NODE_RANK (0), MASTER_ADDR
(127.0.0.1), PORT (29500)' "$@"
config=$1 gpus=$2
shift 2
launch "$gpus" "$root/tools/train.py" "$config" "$@"
