"""Pretrains a model, and resumes it.

    torchrun --nproc_per_node 4 tools/pretrain.py --config run.yaml training.train_iters=300
    torchrun --nproc_per_node 4 tools/pretrain.py --config run.yaml --config corpus/blend.yaml

Goes on from the newest good checkpoint in run_dir. One process needs no torchrun.

    touch RUN_DIR/stop     save, stop with exit status 0; so do SIGUSR1, SIGTERM and SIGINT
    touch RUN_DIR/save     save and go on

RUN_DIR/status.json tells how the run stands: running, finished, stopped or refused.
"""

import sys

from megatron_biollm.config import config_parser, dump_config
from megatron_biollm.imports import quick_imports
from megatron_biollm.log import run_tool
from megatron_biollm.recipes.run_config import RunConfig, load_run_config
from megatron_biollm.training.signals import StopSignals


def main() -> int:
    args = config_parser(RunConfig, __doc__).parse_intermixed_args()
    config = load_run_config(args.config, args.overrides)
    if args.print_config:
        print(dump_config(config), end="")
        return 0
    with StopSignals() as signals:
        with quick_imports():  # seconds of them, not for --help
            from megatron_biollm.recipes.pretrain import pretrain

        pretrain(config, signals)
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
