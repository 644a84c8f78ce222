"""Continues prompts with a trained model, straight from its checkpoint.

    python tools/generate.py --checkpoint runs/my_run --prompt "Patients with" --greedy
    torchrun --nproc_per_node 4 tools/generate.py \\
        --checkpoint runs/my_run/checkpoints/step_00000100 --prompt-file prompt.txt \\
        --temperature 0.8 --top-p 0.95 --num-samples 3 --json \\
        parallel.tensor_model_parallel_size=2 parallel.pipeline_model_parallel_size=2

    python tools/generate.py --checkpoint runs/sft --chat --prompt "What is hepatitis?" --greedy
    python tools/generate.py --checkpoint runs/sft --chat --prompt-file held_out.jsonl --json

With --chat a prompt is what a user says, and the model answers in the form of its chat template,
up to the stop token; --prompt-file then has JSON lines, {"messages": [...]} or {"prompt": [...]},
and an answer that ends such a conversation is left out and given anew.

Model and tokenizer are those of the checkpoint, which is verified first; a run's folder means its
newest good one. Standard output has the continuations, without their prompts: a single one appears
as it is written, several follow one after another. The layout may be another than in training.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.imports import quick_imports
from megatron_biollm.log import run_tool


def main() -> None:
    arguments = parse_arguments()
    speaks = os.environ.get("RANK", "0") == "0"
    prompts = read_prompts(arguments) if speaks else []
    sampling = sampling_arguments(arguments)
    # Seconds of imports, not for --help or a slip on the command line.
    with quick_imports():
        from megatron_biollm.generation.sampling import SamplingOptions
        from megatron_biollm.recipes.generate import generate

    streams = not arguments.no_stream and not arguments.json
    single = len(prompts) * arguments.num_samples == 1
    rows = generate(
        arguments.checkpoint,
        prompts,
        SamplingOptions(**sampling),
        arguments.num_samples,
        arguments.device,
        arguments.overrides,
        writer(arguments.chat) if streams and single else None,
        arguments.batch_size,
    )
    if not speaks:
        return
    texts = [prompt for prompt in prompts for _ in range(arguments.num_samples)]
    if arguments.json:
        print(json.dumps([as_json(*pair) for pair in zip(texts, rows, strict=True)], indent=1))
    elif streams and single:
        print()
    else:
        for number, row in enumerate(rows):
            text = row.text.strip() if arguments.chat else row.text
            print(text if len(rows) == 1 else f"--- {number + 1} of {len(rows)}\n{text}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="run, its checkpoints/, or one step_*")
    add("--prompt", action="append", default=[], help="text to continue; may be given repeatedly")
    add("--prompt-file", help="file with one prompt, of any number of lines; - reads stdin")
    add("--chat", action="store_true", help="prompts are conversations to answer")
    add("--system", help="with --chat: message put before conversations that have none")
    add("--max-new-tokens", type=int, default=128, help="most tokens to write [128]")
    add("--greedy", action="store_true", help="always the likeliest token, nothing is drawn")
    add("--temperature", type=float, help="below 1 sharpens, above 1 flattens [1]")
    add("--top-k", type=int, help="draw from the k likeliest tokens; 0 from all [0]")
    add("--top-p", type=float, help="draw from the likeliest tokens that reach this [1]")
    add("--seed", type=int, help="the same text for the same seed, in every layout [1234]")
    add("--num-samples", type=positive, default=1, help="continuations of each prompt [1]")
    add("--batch-size", type=positive, default=32, help="rows at once, for memory [32]")
    add("--no-stream", action="store_true", help="print when all is written")
    add("--json", action="store_true", help="prompt, text, ids and why it ended, as JSON")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("overrides", nargs="*", metavar="parallel.field=value", help="the layout to generate in")
    return parser.parse_intermixed_args()


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return int(text)


def sampling_arguments(arguments: argparse.Namespace) -> dict:
    """What was given; the rest keeps its default."""
    names = ("temperature", "top_k", "top_p", "seed")
    given = {name: getattr(arguments, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.greedy and given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UserError(f"--greedy draws nothing, so {flags} has no effect; leave one of them out")
    return given | {"greedy": arguments.greedy, "max_new_tokens": arguments.max_new_tokens}


def read_prompts(arguments: argparse.Namespace) -> list:
    """Texts to continue; with --chat, the messages of conversations to answer."""
    if arguments.system is not None and not arguments.chat:
        raise UserError("--system is a message of a conversation; give --chat too")
    prompts = list(arguments.prompt)
    text = None if arguments.prompt_file is None else read_text(arguments.prompt_file)
    if arguments.chat:
        prompts = [[{"role": "user", "content": prompt}] for prompt in prompts]
        prompts += read_conversations(text or "", arguments.prompt_file)
        prompts = [with_system(messages, arguments.system) for messages in prompts]
    elif text is not None:
        prompts.append(text)
    if not prompts:
        raise UserError("no prompt; give --prompt TEXT, or --prompt-file FILE (- for stdin)")
    return prompts


def read_conversations(text: str, name: str) -> list[list[dict]]:
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            messages = row["messages"] if "messages" in row else row["prompt"]
            answered = messages[-1]["role"] == "assistant"
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"--prompt-file {name}, line {number}: {line[:60]!r} is no conversation; give "
                f'{{"messages": [{{"role": "user", "content": ...}}]}} a line'
            ) from error
        found.append(messages[:-1] if answered else messages)
    return found


def with_system(messages: list[dict], system: str | None) -> list[dict]:
    if system is None or (messages and messages[0].get("role") == "system"):
        return messages
    return [{"role": "system", "content": system}, *messages]


def read_text(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode("utf-8").removesuffix("\n")
    except OSError as error:
        raise UserError(
            f"--prompt-file {name} cannot be read ({error.strerror}); give a text file"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"--prompt-file {name} is not UTF-8 at byte {error.start}; convert it, for example "
            f"with iconv -f latin1 -t utf-8"
        ) from error


def writer(chat: bool):
    """Prints pieces as they come; of an answer without the space that its form begins with."""
    begun = not chat

    def write(row: int, piece: str) -> None:
        nonlocal begun
        text = piece if begun else piece.lstrip()
        begun = begun or bool(text)
        print(text, end="", flush=True)

    return write


def as_json(prompt: str | list[dict], row) -> dict:
    return {
        "prompt": prompt,
        "text": row.text if isinstance(prompt, str) else row.text.strip(),
        "finish_reason": row.finish_reason,
        "prompt_tokens": row.prompt_tokens,
        "tokens": row.tokens,
    }


if __name__ == "__main__":
    sys.exit(run_tool(main))
