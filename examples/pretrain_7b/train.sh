#!/usr/bin/env bash
# Trains on this machine of eight GPUs, without SLURM; further settings as section.field=value:
#   bash examples/pretrain_7b/train.sh 'data.data_path=[CORPUS]' tokenizer.tokenizer_model=TOKENIZER
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec python tools/launch.py torchrun --run --nproc-per-node 8 \
  --config examples/pretrain_7b/run.yaml "$@"
