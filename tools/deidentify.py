"""De-identifies clinical notes, audits what is left, measures the rules, or learns their word list.

Reads JSONL documents ({"text", "id", "source", ...}), a CSV with a column of text, or plain text
(one note a file), and writes JSONL. The secret comes from the environment variable
BIOLLM_DEID_SECRET or from --secret-file; without it nothing is done. A note that cannot be
processed is dropped and counted, never passed.

example:
  BIOLLM_DEID_SECRET=$(cat secret.txt) python tools/deidentify.py notes.jsonl -o clean.jsonl --audit
  python tools/deidentify.py --measure synth_dataset_v2.json.gz --output measured.json
  python tools/deidentify.py --learn-words pubmed/ pmc/ --output words.txt.gz
"""

import argparse
import json
import sys
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.corpus.deidentify.config import DeidentifyConfig
from megatron_biollm.corpus.deidentify.learn_words import learn_words_file
from megatron_biollm.corpus.deidentify.run import deidentify_file, measure_file
from megatron_biollm.log import run_tool


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", nargs="?", help=".jsonl, .csv or .txt, also .gz")
    parser.add_argument("-o", "--output", help="JSONL file to write (with --measure: JSON)")
    parser.add_argument("--text-column", default="text", help="CSV: column of the note")
    parser.add_argument(
        "--patient-column", default="patient", help="CSV: column of the patient's key"
    )
    parser.add_argument("--secret-file", help="file that holds the secret")
    parser.add_argument("--dates", default="shift", choices=("shift", "year"))
    parser.add_argument("--audit", action="store_true", help="report what the second pass finds")
    parser.add_argument(
        "--drop-residual", action="store_true", help="drop notes in which the audit finds something"
    )
    parser.add_argument("--measure", metavar="LABELLED", help="measure on a labelled set instead")
    parser.add_argument(
        "--learn-words",
        nargs="+",
        metavar="PATH",
        help="write the words that these files and folders use in lower case, instead",
    )
    parser.add_argument("--record", action="store_true", help="keep the result in the package")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.measure:
        result, text = measure_file(arguments.measure, arguments.output, arguments.record)
    elif arguments.learn_words and arguments.output:
        result, text = learn_words_file(arguments.learn_words, Path(arguments.output))
    elif arguments.input and arguments.output:
        config = DeidentifyConfig(
            secret_file=arguments.secret_file,
            dates=arguments.dates,
            drop_residual=arguments.drop_residual,
        )
        columns = (arguments.text_column, arguments.patient_column)
        result, text = deidentify_file(
            Path(arguments.input), Path(arguments.output), config, columns, arguments.audit
        )
    else:
        raise UserError(
            "none of input, --learn-words (both with --output) and --measure is given; see --help"
        )
    print(json.dumps(result, indent=2) if arguments.json else text)


if __name__ == "__main__":
    sys.exit(run_tool(main))
