#!/usr/bin/env bash
# A reward model and DPO on invented preferences, from an instruction-tuned small model.
#
#   examples/dpo/tiny/train.sh runs/sft_tiny/2_notes [section.field=value ...]
set -euo pipefail
start=$(realpath -e "${1:?give the run of an instruction-tuned model}")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

python examples/quickstart/make_conversations.py runs/dpo_tiny
run=(--config examples/dpo/tiny/run.yaml "checkpoint.load=$start" "$@")
torchrun --standalone --nproc_per_node 2 tools/finetune.py "${run[@]}" \
  finetune.recipe=reward run_dir=runs/dpo_tiny/reward
python tools/score.py --checkpoint runs/dpo_tiny/reward \
  --pairs runs/dpo_tiny/preferences_heldout.jsonl
torchrun --standalone --nproc_per_node 2 tools/finetune.py "${run[@]}"
