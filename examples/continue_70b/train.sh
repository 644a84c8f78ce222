#!/usr/bin/env bash
# Trains without SLURM. On each of the 32 hosts, number 0 being the one at MASTER_ADDR:
#   NODE_RANK=0 MASTER_ADDR=node0 bash examples/continue_70b/train.sh --config corpus/blend.yaml
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec python tools/launch.py torchrun --run --nnodes 32 --nproc-per-node 8 \
  --node-rank "${NODE_RANK:?number of this host, from 0}" \
  --master-addr "${MASTER_ADDR:?address of host 0}" \
  --config examples/pretrain_70b/run.yaml --config examples/continue_70b/run.yaml "$@"
