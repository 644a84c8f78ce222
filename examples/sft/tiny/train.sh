#!/usr/bin/env bash
# Tunes the quickstart's model (make quickstart) to answer, with two processes of a laptop.
#
#   examples/sft/tiny/train.sh MedQuAD.tar.gz MTS-Dialog-TrainingSet.csv [section.field=value ...]
#
# https://github.com/abachaa/MedQuAD and https://github.com/abachaa/MTS-Dialog
set -euo pipefail
usage="give MedQuAD.tar.gz and MTS-Dialog-TrainingSet.csv"
medquad=$(realpath "${1:?$usage}") sections=$(realpath "${2:?$usage}")
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

mkdir -p runs/sft_tiny
python tools/prepare_conversations.py --format medquad --input "$medquad" --held-out 0.05 \
  --output runs/sft_tiny/medquad.jsonl
python tools/prepare_conversations.py --format mts-dialog --input "$sections" --held-out 0.05 \
  --output runs/sft_tiny/sections.jsonl
torchrun --standalone --nproc_per_node 2 tools/finetune.py \
  --config examples/sft/tiny/run.yaml "$@"
