# Sourced by the launch scripts: $root, $python, PYTHONPATH, need_arguments.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$root/.venv/bin/python" ]; then
    python=$root/.venv/bin/python
else
    python=python
fi
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

need_arguments() { # need_arguments HOW_MANY USAGE "$@"
    local needed=$1 usage=$2
    shift 2
    if [ "$#" -lt "$needed" ]; then
        printf 'Usage: %s\n' "$usage" >&2
        exit 2
    fi
}

launch() { # launch GPUS SCRIPT ARGUMENTS...: on this node
    local gpus=$1
    shift
    exec "$python" -m torch.distributed.run \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="${PORT:-29500}" \
        --nproc_per_node="$gpus" \
        "$@" --launcher pytorch
}

submit() { # submit PARTITION JOB_NAME SCRIPT ARGUMENTS...: through slurm
    local partition=$1 job=$2 gpus=${GPUS:-8} srun_args=()
    shift 2
    local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    read -ra srun_args <<<"${SRUN_ARGS:-}"
    set -x
    exec srun -p "$partition" \
        --job-name="$job" \
        --gres="gpu:$per_node" \
        --ntasks="$gpus" \
        --ntasks-per-node="$per_node" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${srun_args[@]+"${srun_args[@]}"} \
        "$python" -u "$@" --launcher slurm
}
