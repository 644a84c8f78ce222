"""Fine-tunes a pretrained model on conversations, and goes on where it was stopped.

    torchrun --nproc_per_node 4 tools/finetune.py --config run.yaml checkpoint.load=runs/pretrained
    torchrun --nproc_per_node 4 tools/finetune.py --config run.yaml data.packing=false

checkpoint.load names the run to start from, or one of its checkpoints, or one that
tools/convert_checkpoint.py made from Hugging Face's format. It tells the model's sizes, the
tokenizer and the chat template, where the configuration does not. With `stages` the run is several,
one after another, each from the last one's weights; a finished stage is not repeated.

    touch RUN_DIR/stop     save, stop with exit status 0; so do SIGUSR1, SIGTERM and SIGINT
    touch RUN_DIR/save     save and go on

RUN_DIR/status.json tells how the run (or stage) stands: running, finished, stopped or refused;
RUN_DIR/data.json what it trains on, and how many conversations were too long for it.
"""

import os
import sys

from megatron_biollm.config import config_parser, dump_config
from megatron_biollm.imports import quick_imports
from megatron_biollm.log import run_tool
from megatron_biollm.recipes.finetune_config import FinetuneConfig, load_stages
from megatron_biollm.training.signals import StopSignals


def main() -> int:
    args = config_parser(FinetuneConfig, __doc__).parse_intermixed_args()
    with StopSignals() as signals:
        stages = load_stages(args.config, args.overrides)
        if args.print_config:
            print("---\n".join(dump_config(stage) for stage in stages), end="")
            return 0
        with quick_imports():  # seconds of them, not for --help
            from megatron_biollm.recipes.finetune import finetune

        if finetune(stages, signals) is None and os.environ.get("RANK", "0") == "0":
            print("every stage is finished already", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
