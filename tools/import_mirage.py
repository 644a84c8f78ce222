"""Brings the answers of GPT-3.5 and GPT-4 that MIRAGE has published beside a model's own.

    python tools/import_mirage.py --answers MIRAGE/answers --data benchmarks --out answers/gpt-4 \\
        --model gpt-4-32k
    python tools/evaluate.py --answers answers/gpt-4 --data benchmarks ...

ANSWERS holds medqa, medmcqa, pubmedqa and bioasq, each a folder or a .tar.gz of one, with
`<model>/<split>_<question>.json` in it (https://github.com/Teddy-XiongGZ/MIRAGE, prediction/*/cot/
OpenAI). The questions come from the original files in DATA. Texts are read by MIRAGE's own rule, or
with --rule own as any model's are. They are stored with what was asked: the question alone, without
abstracts or snippets (context=without). Printed for each: answers, those that cannot be read, and
the accuracy where these count as wrong or, as published, as the first choice.
"""

import argparse
import json
import sys
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.mirage import (
    READERS,
    closed_book,
    import_answers,
    open_folder,
    stored_texts,
)
from megatron_biollm.evaluation.suite import choose
from megatron_biollm.log import run_tool

ANSWERED = ("medqa", "medmcqa", "pubmedqa", "bioasq")


def main() -> int:
    args = _parser().parse_args()
    rows = [_import(args, benchmark) for benchmark in choose(args.benchmark or ANSWERED)]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    print(f"{'benchmark':<12}{'answers':>8}{'unreadable':>12}{'as wrong':>10}{'as first':>10}")
    for row in rows:
        shares = "".join(f"{100 * row[f'accuracy_{how}']:>10.2f}" for how in ("wrong", "first"))
        print(f"{row['benchmark']:<12}{row['answers']:>8}{row['unreadable']:>12}{shares}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--answers", required=True, type=Path, help="folder with the published answers")
    add("--data", required=True, type=Path, help="folder with the benchmarks' folders")
    add("--out", required=True, type=Path, help="folder of stored answers to write")
    add("--model", default="gpt-4-32k", help="whose answers, as its folder is called [gpt-4-32k]")
    add("--benchmark", action="append", choices=ANSWERED, help="only this one; may be repeated")
    add("--rule", default="mirage", choices=tuple(READERS), help="how texts are read [mirage]")
    add("--json", action="store_true", help="print the table as JSON")
    return parser


def _import(args: argparse.Namespace, benchmark: Benchmark) -> dict:
    items = benchmark.read(benchmark.source(args.data), closed_book(benchmark))
    texts = stored_texts(_place(args.answers, benchmark.name), args.model, items)
    return import_answers(benchmark, items, texts, args.rule, open_folder(args.out, args.model))


def _place(answers: Path, name: str) -> Path:
    """The folder of a benchmark's answers, or the archive of it."""
    for place in (answers / name, answers / f"{name}.tar.gz", answers / f"{name}.tar"):
        if place.exists():
            return place
    raise UserError(
        f"{answers / name} is missing, and {name}.tar.gz beside it; download prediction/{name}/cot/"
        f"OpenAI of https://github.com/Teddy-XiongGZ/MIRAGE there, or leave it out (--benchmark)"
    )


if __name__ == "__main__":
    sys.exit(run_tool(main))
