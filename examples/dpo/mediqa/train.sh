#!/usr/bin/env bash
# Trains a small reward model on MEDIQA 2019 and ranks the pairs of its test questions; ten minutes
# of one core.
#
#   examples/dpo/mediqa/train.sh FOLDER [section.field=value ...]
#
# FOLDER holds the four files of https://github.com/abachaa/MEDIQA2019, MEDIQA_Task3_QA; they may be
# gzipped.
set -euo pipefail
files=$(realpath "${1:?give the folder of the four files}")/MEDIQA2019-Task3-QA
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
work=runs/mediqa

pairs() { python tools/prepare_preferences.py mediqa2019 --output "$work/$1.jsonl" "${@:2}"; }
pairs train "$files"-TrainingSet1-LiveQAMed.xml* "$files"-TrainingSet2-Alexa.xml*
pairs valid "$files"-ValidationSet.xml*
pairs test "$files"-TestSet-wLabels.xml*
python - "$work" <<'PYTHON'
import json
import sys
from pathlib import Path

work, texts = Path(sys.argv[1]), {}
for line in (work / "train.jsonl").open():
    row = json.loads(line)
    for name in ("prompt", "chosen", "rejected"):
        texts[row[name][0]["content"]] = None
(work / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
PYTHON
[ -d "$work/tokenizer" ] || python tools/train_tokenizer.py --input "$work/text.jsonl" \
  --vocab-size 4096 --output "$work/tokenizer"
python tools/finetune.py --config examples/dpo/mediqa/run.yaml "$@"
python tools/score.py --checkpoint "$work/reward" --pairs "$work/test.jsonl"
