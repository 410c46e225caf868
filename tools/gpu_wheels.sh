#!/usr/bin/env bash
# Collects what tools/gpu_check.sh installs on a machine without network.
#
#   bash tools/gpu_wheels.sh FOLDER [--python 3.12]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_arguments 1 'bash tools/gpu_wheels.sh FOLDER [--python 3.12]' "$@"
exec "$python" -m benchmarks.gpu_check.wheels collect "$@"
