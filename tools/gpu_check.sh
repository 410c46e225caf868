#!/usr/bin/env bash
# Checks and measures kd_ext on a GPU, without network and in one call of at most 8 minutes.
#
#   bash tools/gpu_check.sh [FOLDER OF WHEELS]      see docs/gpu.md
#
# Settings (environment variables):
#   KD_EXT_DEVICE       cuda, or cpu for small sizes        (cuda)
#   KD_EXT_GPU_JSON     what to write, and to go on from    (results/gpu_check.json)
#   KD_EXT_GPU_SECONDS  for everything                      (470)
#   KD_EXT_GPU_PARTS    names, see python -m benchmarks.gpu_check --help   (all)
#   KD_EXT_GPU_COMPILE  1: compiles mmcv's ops for this GPU if time is left (1)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
folder=${1:-}
json=${KD_EXT_GPU_JSON:-results/gpu_check.json}
seconds=${KD_EXT_GPU_SECONDS:-470}
least_to_compile=200
read -ra parts <<<"${KD_EXT_GPU_PARTS:-}"
left() { echo $((seconds - SECONDS)); }

if [ -z "${VIRTUAL_ENV:-}" ] && ! command -v "$python" >/dev/null; then python=python3; fi
if [ -n "$folder" ]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m benchmarks.gpu_check.wheels install "$folder" "$site/first" || exit
    export PYTHONPATH=$site/first:$PYTHONPATH
fi

check() { # check JSON
    "$python" -W ignore -m benchmarks.gpu_check --json "$1" --seconds "$(left)" ${parts[@]+--parts "${parts[@]}"}
}

status=0
check "$json" || status=$?
[ "$status" -le 1 ] || exit "$status"

source_of_ops=$(ls "$folder"/mmcv-*.tar.gz 2>/dev/null | head -n 1 || true)
if [ -z "$folder" ] || [ "${KD_EXT_DEVICE:-cuda}" != cuda ] || [ "${KD_EXT_GPU_COMPILE:-1}" != 1 ] ||
    [ -z "$source_of_ops" ] || ! grep -q '"ops": "stand-in"' "$json"; then
    exit "$status"
fi
if [ "$(left)" -lt "$least_to_compile" ]; then
    echo "Compiled ops: left out, $(left) s are left. The same call again goes on with them."
    exit "$status"
fi
arch=$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
echo "Compiling mmcv's ops for $arch, at most $(($(left) - 60)) s ..."
if MMCV_WITH_OPS=1 FORCE_CUDA=1 MAX_JOBS=${MAX_JOBS:-16} TORCH_CUDA_ARCH_LIST=$arch timeout "$(($(left) - 60))" \
    "$python" -m pip install -q --no-index --no-deps --no-build-isolation --no-compile \
    --target "$site/ops" "$source_of_ops" >"$site/ops.log" 2>&1; then
    PYTHONPATH=$site/ops:$PYTHONPATH check "${json%.json}_compiled.json" || status=$?
else
    tail -n 5 "$site/ops.log"
    echo "Compiled ops: not built in time, or not for this torch; what the first step found is in $json."
fi
exit "$status"
