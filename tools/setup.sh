#!/usr/bin/env bash
# Prepares .venv with everything kd_ext needs; safe to call again and again.
#
#   bash tools/setup.sh
#
# Settings (environment variables):
#   KD_EXT_TORCH   the torch requirement to install   (torch==2.13.0)
#   KD_EXT_PYTHON  the interpreter to build .venv on  (python3.11, else python3)
#   KD_EXT_CACHE   where built mmcv wheels are kept   (~/.cache/kd_ext)
#   MAX_JOBS       parallel compilers for mmcv's ops  (number of cores)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

torch_spec=${KD_EXT_TORCH:-torch==2.13.0}
mmcv_version=$(sed -n 's/^mmcv==//p' requirements/mminstall.txt)
cache=${KD_EXT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kd_ext}
logs=$root/.setup_logs
stamp=$root/.venv/.kd_ext_ready
py=$root/.venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '[setup] %s\n' "$*"; }

fail() { # fail STEP FIX
    say "FAILED at step: $1"
    say "Fix: $2"
    exit 1
}

run_step() { # run_step NAME USUAL_TIME FIX COMMAND...
    local name=$1 usual=$2 fix=$3 log start pid waited=0 last
    shift 3
    log=$logs/${name// /_}.log
    start=$SECONDS
    say "$name ... (usually $usual; log: ${log#"$root"/})"
    "$@" >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        waited=$((waited + 1))
        if ((waited % 20 == 0)); then
            last=$(grep -oE '^ *\[[0-9]+/[0-9]+\]' "$log" | tail -n 1 | tr -d ' ' || true)
            say "  still at it after $((SECONDS - start)) s ${last:+, $last files compiled}"
        fi
    done
    if ! wait "$pid"; then
        tail -n 25 "$log" | sed 's/^/    /'
        fail "$name" "$fix"
    fi
    say "$name: done in $((SECONDS - start)) s"
}

find_python() {
    local candidate
    for candidate in ${KD_EXT_PYTHON:-} python3.11 python3; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys, venv; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

fingerprint() {
    { echo "$root $torch_spec"; cat requirements/*.txt setup.py tools/setup.sh; } | sha256sum | cut -d' ' -f1
}

build_mmcv() { # leaves the wheel in $1
    local force_cuda=0 staging
    if "$py" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then force_cuda=1; fi
    mkdir -p "$1"
    staging=$(mktemp -d "$1/.building.XXXXXX")
    # --no-cache-dir: pip's own cache would hand out ops built for another torch
    MMCV_WITH_OPS=1 FORCE_CUDA=$force_cuda MAX_JOBS=${MAX_JOBS:-$(nproc)} \
        "$py" -m pip wheel -v --no-cache-dir --no-build-isolation --no-deps \
        --no-binary mmcv -w "$staging" "mmcv==$mmcv_version"
    mv "$staging"/mmcv-*.whl "$1/"
    rmdir "$staging"
}

install_package() {
    "$py" -m pip install -r requirements/mminstall.txt -r requirements/runtime.txt
    "$py" -m pip install --no-build-isolation -e '.[seg,tests,lint]'
}

use_headless_opencv() { # opencv-python wants libGL, which servers often lack
    "$py" -c 'import cv2' 2>/dev/null && return
    local version
    version=$("$py" -m pip list --format=freeze | sed -n 's/^opencv-python==//p')
    "$py" -m pip uninstall -y opencv-python
    "$py" -m pip install "opencv-python-headless==$version"
    "$py" -c 'import cv2'
}

mkdir -p "$logs"
if command -v flock >/dev/null; then
    exec 9>"$logs/lock"
    flock -n 9 || { say 'another set-up is running here; waiting for it'; flock 9; }
fi

want=$(fingerprint)
if [ -x "$py" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
    say 'ready (.venv is up to date)'
    exit 0
fi

base=$(find_python) || fail 'find Python' \
    'install Python 3.11 with its venv module, or name an interpreter: KD_EXT_PYTHON=/path/to/python3.11'
command -v gcc >/dev/null && command -v g++ >/dev/null || fail 'find a C++ compiler' \
    'install gcc and g++ (Debian: apt-get install build-essential): mmcv compiles its ops'
say "preparing .venv on $("$base" --version); a first set-up usually takes 10 to 30 minutes on 2 cores, most of it compiling mmcv"

if [ ! -x "$py" ] || ! "$py" -c '' 2>/dev/null; then
    rm -rf .venv
    run_step 'create .venv' '5 s' "install the venv module of $base (Debian: apt-get install python3-venv)" \
        "$base" -m venv .venv
fi
network='check the network and pip settings (pip config list), then call this again: it goes on where it stopped'
run_step 'install build tools' '20 s' "$network" \
    "$py" -m pip install -r requirements/build.txt
run_step 'install torch' '1 min' "$network; another torch: KD_EXT_TORCH=torch==X.Y.Z" \
    "$py" -m pip install -c requirements/build.txt "$torch_spec"

abi=$("$py" -c 'import platform, sys, torch; print(f"torch{torch.__version__}-cp{sys.version_info[0]}{sys.version_info[1]}-{platform.machine()}")')
wheels=$cache/mmcv-$mmcv_version-$abi
if ! compgen -G "$wheels/mmcv-*.whl" >/dev/null; then
    run_step 'build mmcv' '7 to 25 min on 2 cores' \
        'look for the first "error:" in the log; out of memory: MAX_JOBS=1; no Python headers: apt-get install python3-dev' \
        build_mmcv "$wheels"
fi
run_step 'install mmcv' '40 s' "$network; if the wheel is damaged: rm -rf $wheels" \
    "$py" -m pip install "$(compgen -G "$wheels/mmcv-*.whl" | head -n 1)"
run_step 'install kd_ext' '1 min' "$network" install_package
run_step 'check opencv' '5 s' 'install libGL (Debian: apt-get install libgl1 libglib2.0-0)' use_headless_opencv
run_step 'check the installation' '20 s' 'read the problems above; each names its fix' \
    "$py" tools/doctor.py

echo "$want" >"$stamp"
say "ready in $SECONDS s: source .venv/bin/activate, or call .venv/bin/python"
