"""Scores a model on biomedical benchmarks: a checkpoint, an exported folder, or stored answers.

    python tools/evaluate.py --checkpoint runs/my_run --suite biollm15 --data benchmarks \\
        --output scores/my_run
    torchrun --nproc_per_node 8 tools/evaluate.py --checkpoint runs/sft/checkpoints/step_00002000 \\
        --suite medqa,pubmedqa --data benchmarks --num-fewshot 5 --seeds 3 --chat \\
        --output scores/sft parallel.tensor_model_parallel_size=2
    python tools/evaluate.py --hf export --suite ncbi_disease --split ncbi_disease=dev \\
        --convention ncbi_disease.mentions=pubtator --data benchmarks --output scores/export
    python tools/evaluate.py --answers scores/my_run/answers --data benchmarks --output again
    python tools/evaluate.py --checkpoint runs/my_run --perplexity 'pubmed=held_out/pubmed*.zst' \\
        --perplexity 'pmc=held_out/pmc*.zst' --limit 1000 --output scores/texts
    python tools/evaluate.py --watch runs/my_run --suite medqa --limit 200 --data benchmarks \\
        --output scores/curve

--suite takes names of suites (biollm15, extras) and of benchmarks, with commas; --list tells all of
them with their splits and conventions. A checkpoint runs in the layout of its training or in the
one given, with replicas on the ranks that remain. What --output holds of the same questions to the
same model is not asked again, so a scoring that was cut off is started anew by the same command.

--perplexity NAME=PATTERN, repeatable, has texts foretold beside --suite or, alone, in its place:
JSON lines (.gz, .zst too) with `text`, --limit documents of each.

--output gets answers/ (what was asked and answered), results.json with tallies.npz, and the report:
report.html, report.md, report.json and pictures. --compare names other such folders that stand
beside it. With --watch every checkpoint that a run commits is scored, until the run is done, and
curve.jsonl grows by its scores: for a job of its own beside the training.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.options import add_places, pairs, places
from megatron_biollm.log import run_tool


def main() -> None:
    arguments = parse_arguments()
    # Seconds of imports, not for --help.
    from megatron_biollm.evaluation.suite import all_benchmarks

    if arguments.list:
        print("\n".join(described(one) for one in all_benchmarks().values()))
        return
    check(arguments)
    plan = plan_of(arguments)
    from megatron_biollm.evaluation.contamination import read_findings
    from megatron_biollm.recipes.evaluate import score
    from megatron_biollm.recipes.evaluate_steps import Where, report
    from megatron_biollm.recipes.watch import watch

    where = Where(
        arguments.output,
        arguments.name,
        arguments.device,
        arguments.overrides,
        arguments.batch_tokens,
        read_findings(arguments.contamination) if arguments.contamination else None,
    )
    if arguments.watch:
        watch(arguments.watch, plan, where, arguments.poll, not arguments.once)
        return
    source = {name: getattr(arguments, name) for name in ("checkpoint", "hf", "answers")}
    if score(source, plan, where) is not None:
        found = report(arguments.output, arguments.compare)
        print(json.dumps(found.numbers, indent=1) if arguments.json else found.table)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, help="run, its checkpoints/, or one step_* to score")
    add("--hf", type=Path, help="exported folder to score, with lm-eval's own hf")
    add("--answers", type=Path, help="folder of stored answers to score")
    add("--watch", type=Path, help="run whose checkpoints are scored as they are committed")
    add("--suite", default="", help="suites and benchmarks, with commas [biollm15]")
    add(
        "--perplexity",
        action="append",
        default=[],
        metavar="NAME=PATTERN",
        help="texts to foretell",
    )
    add("--output", type=Path, help="folder to write")
    add("--name", default="", help="of the model in tables [its folder and step]")
    add("--list", action="store_true", help="tell the benchmarks, and do nothing")
    add_what(parser)
    add_how(parser)
    add("--contamination", type=Path, help="of tools/contamination.py: scores with and without")
    add("--compare", type=Path, action="append", default=[], help="another --output, repeatable")
    add("--json", action="store_true", help="the results as JSON on standard output")
    add("--poll", type=float, default=60.0, help="with --watch: seconds between looks [60]")
    add("--once", action="store_true", help="with --watch: score what is there, and end")
    add("--batch-tokens", type=int, default=4096, help="tokens at once, for memory [4096]")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("overrides", nargs="*", metavar="parallel.field=value", help="the layout to score in")
    return parser.parse_intermixed_args()


def add_what(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is asked")
    add_places(group)
    add = group.add_argument
    add("--limit", type=int, help="so many items of each benchmark, drawn evenly [all]")
    add("--fewshot-split", action="append", default=[], metavar="NAME=SPLIT", help="of examples")


def add_how(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is asked")
    add = group.add_argument
    methods = ("auto", "likelihood", "generate", "cot")
    add("--method", choices=methods, default="auto", help="cot: chain of thought [auto]")
    add("--continuation", choices=("auto", "letter", "text"), default="auto", help="of a choice")
    add("--normalise", choices=("none", "characters"), default="none", help="by length [none]")
    add("--num-fewshot", type=int, default=0, help="examples in the prompt [0]")
    add("--seeds", type=int, default=1, help="draws of examples, over which is averaged [1]")
    add("--seed", type=int, default=0, help="the first of them [0]")
    add("--paraphrases", action="store_true", help="score other instructions too")
    add("--chat", action="store_true", help="prompts are conversations in the chat template")
    add("--samples", type=int, default=1, help="with cot: answers that vote [1]")
    add("--temperature", type=float, default=0.7, help="of these [0.7]")
    add("--max-gen-toks", type=int, default=0, help="most tokens of an answer [by its kind]")


def check(arguments: argparse.Namespace) -> None:
    """Checks what argparse does not.

    Raises:
        UserError: nothing or several things to score, or no folders.
    """
    sources = ("checkpoint", "hf", "answers", "watch")
    given = [f"--{name}" for name in sources if getattr(arguments, name)]
    if len(given) != 1:
        raise UserError(
            f"{' and '.join(given) or 'nothing'} to score; give one of "
            f"{', '.join(f'--{name}' for name in sources)}"
        )
    if (arguments.hf or arguments.answers) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"{given[0]} is scored by one process; start it without torchrun")
    texts_alone = arguments.perplexity and not arguments.suite
    for name in ("output",) if texts_alone else ("data", "output"):
        if getattr(arguments, name) is None:
            raise UserError(f"--{name} is not given; name a folder")
    if arguments.data and not arguments.data.is_dir():
        raise UserError(f"--data {arguments.data} is no folder; it holds those of the benchmarks")
    if arguments.seeds < 1:
        raise UserError(f"--seeds {arguments.seeds} must be at least 1")


def plan_of(arguments: argparse.Namespace) -> Any:
    from megatron_biollm.evaluation.asking import Asking
    from megatron_biollm.evaluation.perplexity import TASK as TEXTS
    from megatron_biollm.evaluation.plan import Plan

    benchmarks = benchmarks_of(arguments)
    how = (
        *("method", "continuation", "normalise", "num_fewshot", "chat", "samples"),
        *("temperature", "max_gen_toks", "seed"),
    )
    return Plan(
        benchmarks,
        arguments.data or Path(),
        Asking(**{name: getattr(arguments, name) for name in how}),
        tuple(range(arguments.seed, arguments.seed + arguments.seeds)),
        arguments.paraphrases,
        arguments.limit,
        fewshot_splits=pairs(arguments.fewshot_split, "--fewshot-split"),
        **places(arguments, [one.name for one in benchmarks if one.task != TEXTS]),
    )


def benchmarks_of(arguments: argparse.Namespace) -> list[Any]:
    """What --suite names, and the texts of --perplexity; where nothing is named, all that stored
    answers hold, or the suite."""
    from megatron_biollm.evaluation.answers import Answers
    from megatron_biollm.evaluation.suite import all_benchmarks, choose
    from megatron_biollm.recipes.texts import text_benchmarks

    texts = text_benchmarks(pairs(arguments.perplexity, "--perplexity"))
    if arguments.suite or texts:
        return choose(arguments.suite.split(",") if arguments.suite else []) + texts
    if arguments.answers:
        answered = {run.benchmark for run in Answers.open(arguments.answers).runs}
        return choose([name for name in all_benchmarks() if name in answered])
    return choose(["biollm15"])


def described(benchmark: Any) -> str:
    """A benchmark with its splits and conventions, the standard ones first."""
    lines = [
        f"{benchmark.name}: {benchmark.title} ({benchmark.task})",
        f"  splits: {', '.join(benchmark.splits)}; scored: {benchmark.test_split}; "
        f"examples: {benchmark.fewshot_split or 'none'}",
    ]
    for one in benchmark.conventions:
        lines.append(f"  {one.name}={'|'.join(one.values)}: {one.help}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_tool(main))
