#!/usr/bin/env bash
# A job that goes on by itself when its time is over or others need its nodes: sbatch slurm.sh, with what follows `featviz`.
#
#   sbatch slurm.sh sweep squeezenet1_0 'features.*:all' --weights /shared/squeezenet1_0.pth -o /shared/atlas
#   sbatch slurm.sh render squeezenet1_0 features.9:33 --views 64 --resume -o /shared/unit.png
#
#SBATCH --job-name=featviz
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --output=featviz-%j.log
set -euo pipefail

# Two minutes before the end this shell is told, and puts the job back into the queue; SLURM then ends the processes. Pictures that a
# sweep has made are whole, and `render --resume` keeps a checkpoint, so nothing but the signal has to arrive.
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1

export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
srun featviz "$@" --num-nodes "$SLURM_NNODES" --devices "$SLURM_NTASKS_PER_NODE" &
running=$!
# A signal ends `wait` before the processes have ended: wait again for as long as they are there.
code=0
wait "$running" || code=$?
while kill -0 "$running" 2>/dev/null; do
    code=0
    wait "$running" || code=$?
done
exit "$code"
