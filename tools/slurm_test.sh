#!/usr/bin/env bash
# Scores a checkpoint as a slurm job; see the usage below.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_arguments 4 'bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [OPTIONS OF tools/test.py]
Environment: GPUS (8), GPUS_PER_NODE (8, or GPUS where that is less),
CPUS_PER_TASK (5), SRUN_ARGS (more options of srun)' "$@"
partition=$1 job=$2 config=$3 checkpoint=$4
shift 4
submit "$partition" "$job" "$root/tools/test.py" "$config" "$checkpoint" "$@"
