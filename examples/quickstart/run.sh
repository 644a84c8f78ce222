#!/usr/bin/env bash
# From source files to a model that answers as people prefer, and that transformers loads; on a laptop.
#
#   examples/quickstart/run.sh            invented sample sources
#   examples/quickstart/run.sh my/files   your own: PubMed, PMC, ClinicalTrials.gov, clinical notes,
#                                         patents, JSONL, plain text; a file or a folder
#
# WORK    folder for everything that is made [runs/quickstart]
# STEPS   optimizer steps, the first 60 % in one layout and the rest in another [300]; where they
#         are fewer than 150 no stage of tuning has more
# PROMPT  what the exported model continues ["Patients with"]
# SOURCE  what your files are where their content cannot say it: clinical_notes for tables and text
# BIOLLM_DEID_SECRET  key of the surrogates in clinical notes [one for this run alone]
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
  printf '\n[%d/15, %d s] %s\n' "$step" "$SECONDS" "$*" >&2
}

# Exit status 3: all done, but some files or records were broken and have been named.
build_corpus() {
  local status=0
  python "$tools/build_corpus.py" "${curation[@]}" "$@" || status=$?
  [ "$status" = 0 ] || [ "$status" = 3 ] || exit "$status"
  [ "$status" = 0 ] || echo "what is named as broken is left out; the rest goes on" >&2
}

if [ -e "$work" ]; then
  # Only what this script has made is replaced, and never what it is to read.
  [ -e "$work/.quickstart" ] || { echo "error: $work exists; give another with WORK=..." >&2; exit 2; }
  case $(realpath -m "${corpus:-/}")/ in "$(realpath "$work")"/*)
    echo "error: $corpus lies in $work, which is replaced; give another with WORK=..." >&2; exit 2 ;;
  esac
  rm -rf "$work"
fi
mkdir -p "$work" && touch "$work/.quickstart"

if [ -n "$corpus" ]; then
  say "taking $corpus as the sources"
  paths=${SOURCE:+sources.$SOURCE.}paths
  curation=("$paths=['$corpus']" task_mb=8 buckets=2)
  # One text file holds documents between blank lines; in a folder each text file is one.
  case $corpus in *.txt) [ -n "${SOURCE:-}" ] || curation+=(text_documents=blank_line) ;; esac
else
  say "writing sample sources, all of them invented"
  python "$here/make_corpus.py" "$work/sources"
  curation=(--config "$here/corpus.yaml" "paths=['$work/sources']"
    "decontaminate.benchmarks=['$here/benchmark.jsonl']")
fi
curation+=("output_dir=$work/corpus")
if [ -z "${BIOLLM_DEID_SECRET:-}" ]; then
  echo "BIOLLM_DEID_SECRET is not set: clinical notes get surrogates by a secret of this run" >&2
  BIOLLM_DEID_SECRET=$(python -c 'import secrets; print(secrets.token_hex(32))')
  export BIOLLM_DEID_SECRET
fi

say "curating: parse, clean, de-identify, remove duplicates and benchmark questions"
build_corpus

say "training a base tokenizer on the clean text"
sizes=$(python "$here/sizes.py" "$work/corpus/manifest.json")
read -r vocab_size pieces frequency sources <<<"$sizes"
python "$tools/train_tokenizer.py" --input "$work/corpus/documents" --vocab-size "$vocab_size" \
  --output "$work/base_tokenizer"

say "extending its vocabulary, encoding the text, weighing the sources"
if [ "$pieces" = 0 ]; then
  encoding=("encode.tokenizer_model=$work/base_tokenizer")
else
  encoding=("vocabulary.base=$work/base_tokenizer" "vocabulary.add=$pieces"
    "vocabulary.min_frequency=$frequency" "vocabulary.sources=$sources")
fi
# Curation is done and is not repeated, nor need its summary be.
build_corpus "${encoding[@]}" >/dev/null

say "looking into what was encoded"
python "$tools/inspect_data.py" "$work/corpus/encoded" --top 5 --verify --plot "$work/lengths.png"

run=(--config "$here/tiny.yaml" --config "$work/corpus/blend.yaml" "run_dir=$work/run"
  "training.train_iters=$steps" "optimizer.lr_warmup_iters=$((steps < 40 ? steps / 2 : 20))")

tuned=()
[ "$steps" -ge 150 ] || tuned=("training.train_iters=$steps")

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

say "instruction tuning on invented questions and answers, two tensor-parallel ranks"
python "$here/make_conversations.py" "$work/conversations"
torchrun --standalone --nproc_per_node 2 "$tools/finetune.py" --config "$here/sft.yaml" \
  "run_dir=$work/sft" "checkpoint.load=$work/run" \
  "data.train_data_path=['$work/conversations/conversations.jsonl']" \
  "data.valid_data_path=['$work/conversations/conversations_heldout.jsonl']" "${tuned[@]}"

say "preference tuning (DPO): of two answers, the one that people prefer; two replicas"
torchrun --standalone --nproc_per_node 2 "$tools/finetune.py" --config "$here/dpo.yaml" \
  "run_dir=$work/dpo" "checkpoint.load=$work/sft" \
  "data.train_data_path=['$work/conversations/preferences.jsonl']" \
  "data.valid_data_path=['$work/conversations/preferences_heldout.jsonl']" "${tuned[@]}"

say "the same held-out questions before, after instructions, after preferences"
cat "$work/conversations/questions.jsonl"
for model in run sft dpo; do
  printf '%s:\n' "$model"
  python "$tools/generate.py" --checkpoint "$work/$model" --chat --greedy --max-new-tokens 40 \
    --prompt-file "$work/conversations/questions.jsonl"
done

say "exporting the assistant with its chat template; transformers answers with it"
python "$tools/convert_checkpoint.py" to-hf --input "$work/dpo/checkpoints" \
  --output "$work/assistant"
python "$here/generate.py" "$work/assistant" --chat "Tell me what veltaritinib acts on."

printf '\nall in %s, %d s: text and its page in corpus/report.html, checkpoints in run/, sft/ and dpo/, the\npretrained model in export/ and the tuned one in assistant/, the loss curve in loss.png\n' \
  "$work" "$SECONDS" >&2
