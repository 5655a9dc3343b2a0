#!/bin/bash
# A search on machines that SLURM lends: sbatch examples/cluster/slurm.sh
#SBATCH --job-name=nasseg
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=25:30:00
#SBATCH --signal=B:TERM@600
set -eu

# The environment with nasseg, on all machines at this path.
source "$HOME/nasseg/bin/activate"
run="$HOME/runs/search-$SLURM_JOB_ID"
head=$(hostname --ip-address | cut -d' ' -f1)
address=$head:6379
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

# The first machine is the head, and searches; the others join.
ray start --head --node-ip-address="$head" --port=6379 --include-dashboard=false --disable-usage-stats
srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$(hostname)" \
    ray start --address="$address" --disable-usage-stats --block &

# SLURM's signal, ten minutes before the end, is passed on: the search stops, and says how to go on.
nasseg search --space dpc --data "folder:$HOME/data/cityscapes" --weights imagenet --budget 200gpu-h \
    --ray-address "$address" --out "$run" &
search=$!
trap 'kill -TERM $search' TERM
wait $search || wait $search
