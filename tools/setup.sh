#!/usr/bin/env bash
# Prepares .venv with everything kd_ext needs; safe to call again and again.
#
#   bash tools/setup.sh                       compiled operators, tests included
#   KD_EXT_OPS=lite bash tools/setup.sh       no compiler
#   KD_EXT_STACK=onedl bash tools/setup.sh    the maintained successors, in .venv-onedl
#
# Settings (environment variables):
#   KD_EXT_OPS     compiled: mmcv's operators are compiled, or taken from the cache
#                  lite: kd_ext computes them in torch, slower
#                  any: what is installed, else compiled if cached, else lite
#   KD_EXT_STACK   openmmlab (mmcv 2.1.0, mmdet 3.3.0) or onedl (their successors)
#   KD_EXT_EXTRAS  extras of kd_ext to install        (seg,tests,lint)
#   KD_EXT_TORCH   the torch requirement to install   (torch==2.13.0)
#   KD_EXT_PYTHON  the interpreter to build .venv on  (python3.11, else another)
#   KD_EXT_CACHE   where built mmcv wheels are kept   (~/.cache/kd_ext)
#   MAX_JOBS       parallel compilers for mmcv's ops  (number of cores)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

torch_spec=${KD_EXT_TORCH:-torch==2.13.0}
ops=${KD_EXT_OPS:-compiled}
stack=${KD_EXT_STACK:-openmmlab}
extras=seg,tests,lint
[ "$stack" = openmmlab ] || extras=tests,lint # mmsegmentation 1.2.2 refuses onedl-mmcv
extras=${KD_EXT_EXTRAS-$extras}
cache=${KD_EXT_CACHE:-${XDG_CACHE_HOME:-${HOME:-$root}/.cache}/kd_ext}
logs=$root/.setup_logs
export PIP_DISABLE_PIP_VERSION_CHECK=1
export PIP_COMPILE=0 # Python compiles a module when it is first imported, and most never are

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
        sleep 0.5
        waited=$((waited + 1))
        if ((waited % 40 == 0)); then
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

find_python() { # prints the path of the first fitting interpreter
    local candidate version seen=
    local candidates=(python3.11 python3.12 python3.10 python3.9 python3)
    [ -z "${KD_EXT_PYTHON:-}" ] || candidates=("$KD_EXT_PYTHON")
    for candidate in "${candidates[@]}"; do
        version=$("$candidate" -c 'import sys, venv; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue
        case $version in
        "$oldest".* | 3.10.* | 3.11.* | 3.12.*)
            command -v "$candidate"
            return
            ;;
        esac
        seen="$seen, $candidate is $version"
    done
    seen=${seen#, }
    printf '%s' "${seen:-none with its venv module}"
    return 1
}

fingerprint() {
    { echo "$root $torch_spec $stack"; cat requirements/*.txt setup.py tools/setup.sh; } | sha256sum | cut -d' ' -f1
}

is_ready() { # what is installed, in the stamp's lines: fingerprint, operators, extras
    local installed=() extra
    [ -x "$py" ] && [ -f "$stamp" ] && mapfile -t installed <"$stamp"
    [ "${installed[0]:-}" = "$(fingerprint)" ] || return 1
    [ "$ops" = any ] || [ "$ops" = "${installed[1]:-}" ] || return 1
    for extra in ${extras//,/ }; do
        [[ ",${installed[2]:-}," == *",$extra,"* ]] || return 1
    done
}

kept_wheel() { # prints the path of a whole wheel of this mmcv, this torch and this Python
    local wheel
    wheel=$(compgen -G "$wheels/*mmcv-*.whl" | head -n 1) || return 1
    if ! "$py" -m zipfile -t "$wheel" >/dev/null 2>&1; then
        say "$wheel is damaged, as after a broken copy; removing it" >&2
        rm -f "$wheel"
        return 1
    fi
    printf '%s' "$wheel"
}

build_mmcv() { # leaves the wheel in $1
    local force_cuda=0 staging
    if "$py" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then force_cuda=1; fi
    "$py" -m pip install -r requirements/build.txt ninja cython
    staging=$(mktemp -d "$1/.building.XXXXXX")
    # --no-cache-dir: pip's own cache would hand out ops built for another torch
    MMCV_WITH_OPS=1 FORCE_CUDA=$force_cuda MAX_JOBS=${MAX_JOBS:-$(nproc)} \
        "$py" -m pip wheel -v --no-cache-dir --no-build-isolation --no-deps \
        --no-binary "$mmcv" -w "$staging" "$mmcv==$mmcv_version"
    mv "$staging"/*mmcv-*.whl "$1/"
    rmdir "$staging"
}

install_packages() { # install_packages MMCV
    local others
    "$py" -c 'import mmcv._ext' 2>/dev/null && [ "$ops" = compiled ] || "$py" -m pip uninstall -q -y mmcv mmcv-lite onedl-mmcv
    others=$(grep -vE '^#|mmcv' "$mminstall")
    # shellcheck disable=SC2086  # one requirement a word
    "$py" -m pip install $others "$1"
    "$py" -m pip install --no-build-isolation -e ".${extras:+[$extras]}"
}

use_headless_opencv() { # opencv-python wants libGL, which servers often lack
    "$py" -c 'import cv2' 2>/dev/null && return
    local version
    version=$("$py" -m pip list --format=freeze | sed -n 's/^opencv-python==//p')
    "$py" -m pip uninstall -y opencv-python
    "$py" -m pip install "opencv-python-headless==$version"
    "$py" -c 'import cv2'
}

case $stack in
openmmlab) venv=.venv mminstall=requirements/mminstall.txt mmcv=mmcv lite=mmcv-lite oldest=3.9 ;;
onedl) venv=.venv-onedl mminstall=requirements/onedl.txt mmcv=onedl-mmcv lite=onedl-mmcv oldest=3.10 ;;
*) fail 'read KD_EXT_STACK' "KD_EXT_STACK=openmmlab or KD_EXT_STACK=onedl, not $stack" ;;
esac
case $ops in lite | compiled | any) ;; *) fail 'read KD_EXT_OPS' "KD_EXT_OPS=lite, compiled or any, not $ops" ;; esac
mmcv_version=$(sed -n "s/^$mmcv==//p" "$mminstall")
stamp=$root/$venv/.kd_ext_ready
py=$root/$venv/bin/python

mkdir -p "$logs" 2>/dev/null && [ -w "$logs" ] || fail "write to $root" \
    'make the checkout writable for you, or copy it to a folder of yours and call tools/setup.sh there'
if command -v flock >/dev/null; then
    exec 9>"$logs/lock"
    flock -n 9 || { say 'another set-up is running here; waiting for it'; flock 9; }
fi
if ! { mkdir -p "$cache" && [ -w "$cache" ]; } 2>/dev/null; then
    say "cannot write to $cache; built wheels are kept in .setup_logs/wheels (another place: KD_EXT_CACHE)"
    cache=$logs/wheels
fi

if is_ready; then
    say "ready ($venv is up to date)"
    exit 0
fi

base=$(find_python) || fail "find Python $oldest to 3.12 (found: $base)" \
    'install Python 3.11 with its venv module, or name an interpreter: KD_EXT_PYTHON=/path/to/python3.11'
say "preparing $venv on $("$base" --version)"
if [ ! -x "$py" ] || ! "$py" -c '' 2>/dev/null; then
    rm -rf "$venv"
    run_step "create $venv" '5 s' "install the venv module of $base (Debian: apt-get install python3-venv)" \
        "$base" -m venv "$venv"
fi
network='check the network and pip settings (pip config list), then call this again: it goes on where it stopped'
run_step 'install torch' '1 min' "$network; another torch: KD_EXT_TORCH=torch==X.Y.Z" \
    "$py" -m pip install 'setuptools>=77,<81' wheel "$torch_spec"

abi=$("$py" -W ignore -c 'import platform, sys, torch; print(f"torch{torch.__version__}-cp{sys.version_info[0]}{sys.version_info[1]}-{platform.machine()}")')
wheels=$cache/$mmcv-$mmcv_version-$abi
source=$(kept_wheel) || source=
if [ "$ops" = any ]; then
    ops=lite
    if [ -n "$source" ] || "$py" -c 'import mmcv._ext' 2>/dev/null; then ops=compiled; fi
fi
if [ "$ops" = lite ]; then
    source=$lite==$mmcv_version
elif [ -z "$source" ]; then
    command -v gcc >/dev/null && command -v g++ >/dev/null || fail 'find a C++ compiler' \
        'install gcc and g++ (Debian: apt-get install build-essential), or do without: KD_EXT_OPS=lite bash tools/setup.sh'
    mkdir -p "$wheels"
    run_step "build $mmcv" '7 to 25 min on 2 cores' \
        'look for the first "error:" in the log; out of memory: MAX_JOBS=1; no Python headers: apt-get install python3-dev; no compiler at all: KD_EXT_OPS=lite' \
        build_mmcv "$wheels"
    source=$(kept_wheel) || fail "build $mmcv" 'free some disk space (df -h), then call this again'
fi
run_step 'install kd_ext' '1 min' "$network" install_packages "$source"
run_step 'check opencv' '5 s' 'install libGL (Debian: apt-get install libgl1 libglib2.0-0)' use_headless_opencv
run_step 'check the installation' '20 s' 'read the problems above; each names its fix' \
    "$py" tools/doctor.py

printf '%s\n' "$(fingerprint)" "$ops" "$extras" >"$stamp"
[ "$ops" = compiled ] || say "mmcv's operators are not compiled; kd_ext computes them in torch, slower. To compile: KD_EXT_OPS=compiled bash tools/setup.sh"
say "ready in $SECONDS s: source $venv/bin/activate, or call $venv/bin/python"
