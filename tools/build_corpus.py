"""Turns source files into clean, deduplicated, de-identified text: JSONL shards by source.

One YAML says what is read, what is kept and where it runs (this machine, SLURM job arrays, Ray);
dotted overrides change single fields. The same command resumes after anything that stopped it and
repeats only what is missing; new source files cost their own work only. Everything lands in
output_dir: documents/SOURCE/NNNNN.jsonl.zst, manifest.json, report.json, and the stages.

Exit status: 0, all files were read whole; 3, finished, but some files or records were broken and
are named; 2, bad settings or failed tasks; 1, an error of this program.
"""

import argparse
import json
import sys

from megatron_biollm.config import dump_config, help_text, load_config
from megatron_biollm.corpus.seal import summary
from megatron_biollm.log import run_tool, setup_logging
from megatron_biollm.recipes.corpus import CorpusConfig, build_corpus

EXAMPLE = """examples:
  python tools/build_corpus.py --config corpus.yaml
  python tools/build_corpus.py 'paths=[downloads/pubmed, downloads/pmc]' output_dir=corpus
  python tools/build_corpus.py --config corpus.yaml executor.executor=slurm \\
      executor.partition=cpu executor.workers=200

fields:"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE + help_text(CorpusConfig),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", action="append", help="YAML file; later ones go over earlier")
    parser.add_argument("--print-config", action="store_true", help="show the settings and stop")
    parser.add_argument("--no-wait", action="store_true", help="SLURM: submit the jobs and return")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    parser.add_argument("overrides", nargs="*", metavar="field=value")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    setup_logging()
    config = load_config(CorpusConfig, arguments.config, arguments.overrides)
    if arguments.print_config:
        print(dump_config(config), end="")
        return 0
    result = build_corpus(config, wait_for_jobs=not arguments.no_wait)
    if result is None:
        print(f"submitted; {config.output_dir}/manifest.json is there when the last job is done")
        return 0
    print(json.dumps(result, indent=1) if arguments.json else summary(result))
    return 3 if result["files"]["faulty"] else 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
