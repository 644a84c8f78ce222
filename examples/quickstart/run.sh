#!/usr/bin/env bash
# From raw text to a model that transformers loads, on a laptop.
#
#   examples/quickstart/run.sh            an invented sample corpus
#   examples/quickstart/run.sh my/files   your own: plain text, JSONL(.gz), PubMed XML(.gz)
#
# WORK    folder for everything that is made [runs/quickstart]
# STEPS   optimizer steps, the first 60 % in one layout and the rest in another [300]
# PROMPT  what the exported model continues ["Patients with"]
set -euo pipefail

corpus=${1:-}
work=${WORK:-runs/quickstart}
steps=${STEPS:-300}
prompt=${PROMPT:-Patients with}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=$here/../../tools

# Four processes on a few cores: one thread each is fastest.
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
# megatron-core says so several times in each process; the run's log names the layers in use.
export PYTHONWARNINGS="ignore:Transformer Engine and Apex are not installed"

step=0
say() {
  step=$((step + 1))
  printf '\n[%d/9, %d s] %s\n' "$step" "$SECONDS" "$*" >&2
}

if [ -e "$work" ]; then
  # Only what this script has made is replaced.
  [ -e "$work/.quickstart" ] || { echo "error: $work exists; give another with WORK=..." >&2; exit 2; }
  rm -rf "$work"
fi
mkdir -p "$work" && touch "$work/.quickstart"

if [ -n "$corpus" ]; then
  vocab_size=4096
  say "reading $corpus"
  # One text file holds documents between blank lines; in a folder each text file is one.
  documents=file
  case $corpus in *.txt) documents=blank_line ;; esac
  python "$tools/read_corpus.py" --input "$corpus" --output "$work/corpus.jsonl" \
    --text-documents "$documents"
else
  vocab_size=2048
  say "writing a sample corpus of invented abstracts"
  python "$here/make_corpus.py" "$work/corpus.jsonl"
fi

say "training a tokenizer on it"
python "$tools/train_tokenizer.py" --input "$work/corpus.jsonl" --vocab-size $vocab_size \
  --output "$work/tokenizer"

say "encoding the text into indexed binaries"
python "$tools/preprocess_data.py" --input "$work/corpus.jsonl" --output-prefix "$work/corpus" \
  --tokenizer-type HuggingFaceTokenizer --tokenizer-model "$work/tokenizer" \
  --append-eod --workers 2

run=(--config "$here/tiny.yaml" "run_dir=$work/run" "data.data_path=[$work/corpus_text_document]"
  "tokenizer.tokenizer_model=$work/tokenizer" "training.train_iters=$steps")

say "building the sample index"
python "$tools/build_index.py" "${run[@]}"

say "training with four processes: two tensor-parallel ranks in each of two pipeline stages"
torchrun --standalone --nproc_per_node 4 "$tools/pretrain.py" "${run[@]}" \
  "training.exit_interval=$((steps * 6 / 10))"

say "resuming from its checkpoint in another layout: four pipeline stages"
torchrun --standalone --nproc_per_node 4 "$tools/pretrain.py" "${run[@]}" \
  parallel.tensor_model_parallel_size=1 parallel.pipeline_model_parallel_size=4 \
  parallel.sequence_parallel=false

say "exporting to Hugging Face, logits compared before anything is written"
python "$tools/convert_checkpoint.py" to-hf --input "$work/run/checkpoints" --output "$work/export"

say "transformers continues '$prompt'"
python "$here/generate.py" "$work/export" "$prompt"

say "drawing the loss curve"
python "$tools/plot_run.py" "$work/run" --output "$work/loss.png"

printf '\nall in %s, %d s: checkpoints in run/, the model in export/, the loss curve in loss.png\n' \
  "$work" "$SECONDS" >&2
