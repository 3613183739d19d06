#!/bin/bash
# Run a stage on the nodes of a SLURM job.
#
# sbatch configs/slurm/stage.sh predict -c configs/extract/niah.yaml --store stores/niah
# sbatch --nodes 1 configs/slurm/stage.sh fit -c configs/probe.yaml --store stores/niah
#
# Options of sbatch go before the script and win over those below: change these for your cluster (partition, account).
# Submit from the folder that the paths are relative to, with the environment active in which `lightning` is installed.
#SBATCH --job-name=heads
#SBATCH --nodes=2
# One task a GPU:
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%x-%j.log
# A job that starts again continues its log:
#SBATCH --open-mode=append
# After a node has failed, or a preemption, SLURM starts the job again:
#SBATCH --requeue
# 180 seconds before the time limit the stage is asked to have itself requeued:
#SBATCH --signal=SIGUSR1@180
set -euo pipefail
: "${1:?usage: sbatch [OPTIONS OF SBATCH] stage.sh STAGE -c CONFIG …}"

# Since SLURM 22.05 srun does not take this from sbatch.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
export OMP_NUM_THREADS="$SRUN_CPUS_PER_TASK"
# Nodes that compute often have no network: download the model before, where there is one.
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"

# A process that fails ends the others, which would wait for it.
code=0
srun --kill-on-bad-exit=1 lightning "$@" \
    --trainer.num_nodes "$SLURM_NNODES" \
    --trainer.devices "${SLURM_NTASKS_PER_NODE:?start it with --ntasks-per-node}" \
    --trainer.strategy ddp || code=$?

# A preempted job that has stopped before its grace time is over would count as failed.
if [ "$code" -eq 143 ] && scontrol show job "$SLURM_JOB_ID" | grep -q "PreemptTime=[0-9]"; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
