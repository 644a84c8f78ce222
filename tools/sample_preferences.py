"""Draws answers of a tuned model, has a reward model judge them, and writes the outcome.

    python tools/sample_preferences.py --policy runs/dpo --reward runs/reward \\
        --prompts questions.jsonl --samples 8 --pairs round2.jsonl --best best.jsonl

--pairs gets the best and the worst answer to each prompt, as preference pairs for another round of
tools/finetune.py with finetune.recipe=dpo, which starts from the same policy. --best gets the best
of n as conversations. Prompts are JSON lines with "prompt" or "messages". Answers that did not come
to their end are left out. Works in any layout that the checkpoints load into, under torchrun too.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError
from megatron_biollm.imports import quick_imports
from megatron_biollm.log import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--policy", required=True, type=Path, help="run or checkpoint that answers")
    add("--reward", required=True, type=Path, help="run or checkpoint of a reward model")
    add("--prompts", required=True, help="JSON lines with prompt or messages")
    add("--samples", type=int, default=8, help="answers to each prompt [8]")
    add("--pairs", help="preference pairs to write")
    add("--best", help="best answers to write, as conversations")
    add("--min-gap", type=float, default=0.0, help="smallest difference of scores in a pair [0]")
    add("--max-new-tokens", type=int, default=256, help="most tokens of an answer [256]")
    add("--temperature", type=float, default=1.0, help="of drawing [1]")
    add("--top-p", type=float, default=1.0, help="likeliest tokens up to this probability [1]")
    add("--seed", type=int, default=1234, help="of drawing [1234]")
    add("--batch-size", type=int, default=32, help="answers at once [32]")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    args = parser.parse_args()
    if args.samples < 1 or not (args.pairs or args.best):
        raise UserError("give --samples of 1 or more, and --pairs or --best (or both) to write")
    with quick_imports():
        from megatron_biollm.generation.sampling import SamplingOptions
        from megatron_biollm.recipes.sample_preferences import judge_samples, read_prompts

    options = SamplingOptions(
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
    )
    prompts = read_prompts(args.prompts)
    judged = judge_samples(
        args.policy, args.reward, prompts, args.samples, options, args.device, args.batch_size
    )
    pairs = [one.pair() for one in judged if one.gap > args.min_gap]
    if os.environ.get("RANK", "0") == "0":
        for path, rows in ((args.pairs, pairs), (args.best, [one.best() for one in judged])):
            if path:
                write(path, rows)
        report = {"prompts": len(prompts), "answered": len(judged), "pairs": len(pairs)}
        if judged:
            report["mean_score_of_best"] = sum(one.scores[0] for one in judged) / len(judged)
            everything = [value for one in judged for value in one.scores]
            report["mean_score"] = sum(everything) / len(everything)
        print(json.dumps(report, indent=1))
    return 0


def write(path: str, rows: list[dict]) -> None:
    with whole_file(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(run_tool(main))
