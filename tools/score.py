"""Scores answers with a reward model, or says how well it ranks judged pairs.

    python tools/score.py --checkpoint runs/reward --input chats.jsonl > scores.jsonl
    python tools/score.py --checkpoint runs/reward --pairs pairs/test.jsonl --json

--input: a conversation a line, {"messages": [...]}, which ends with the answer to score. Standard
output has {"id", "score"} of each, in order.
--pairs: a preference file (prompt, chosen, rejected). Standard output has the share of pairs in
which the score of chosen is above that of rejected, with its 95 % interval by resampling prompts.

Layouts other than the checkpoint's: parallel.tensor_model_parallel_size=2, under torchrun.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from megatron_biollm.finetune.conversations import read_conversations
from megatron_biollm.finetune.preferences import read_pairs
from megatron_biollm.imports import quick_imports
from megatron_biollm.log import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", required=True, type=Path, help="a reward run, or one of its checkpoints")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--input", help="JSON lines of conversations")
    given.add_argument("--pairs", help="JSON lines of judged pairs")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--micro-batch-size", type=int, default=8, help="conversations at once [8]")
    add("--json", action="store_true", help="the report on pairs as JSON")
    add("overrides", nargs="*", metavar="parallel.field=value")
    args = parser.parse_intermixed_args()
    pairs = read_pairs(args.pairs) if args.pairs else []
    read = [] if args.pairs else list(read_conversations(args.input))
    conversations = [one.messages for one in read]
    conversations += [[*pair.prompt, *answer] for pair in pairs for answer in pair.answers]
    with quick_imports():
        from megatron_biollm.recipes.score import rank_pairs, score  # seconds of imports

    options = (args.device, args.overrides, args.micro_batch_size)
    scores = score(args.checkpoint, conversations, *options)
    if os.environ.get("RANK", "0") != "0":
        return 0
    if pairs:
        report = rank_pairs(pairs, scores)
        print(json.dumps(report, indent=1) if args.json else _table(report))
    for one, value in zip(read, scores, strict=False):
        print(json.dumps({"id": one.id, "score": value}))
    return 0


def _table(report: dict) -> str:
    lines = [f"{report['pairs']} pairs of {report['prompts']} prompts"]
    for name, text in (("accuracy", "reward model"), ("longer_wins", "longer answer wins")):
        low, high = report[f"{name}_interval"]
        lines.append(f"{text:<20}{report[name]:.3f}  95 % interval {low:.3f} to {high:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_tool(main))
