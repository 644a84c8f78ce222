#!/usr/bin/env bash
# Tunes without SLURM. On each of the 8 hosts, number 0 being the one at MASTER_ADDR:
#   NODE_RANK=0 MASTER_ADDR=node0 bash examples/dpo/70b/train.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
exec python tools/launch.py torchrun --run --nnodes 8 --nproc-per-node 8 \
  --node-rank "${NODE_RANK:?number of this host, from 0}" \
  --master-addr "${MASTER_ADDR:?address of host 0}" \
  --program tools/finetune.py --config examples/dpo/70b/run.yaml "$@"
