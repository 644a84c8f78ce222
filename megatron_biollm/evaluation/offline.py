"""Evaluation asks no server: what libraries would look up elsewhere, they are told to leave."""

import logging
import os

from megatron_biollm.config import UserError

_SWITCHES = (
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "HF_EVALUATE_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
)


def prepare_lm_eval() -> None:
    """To be called before the first import of lm-eval, which takes seconds: none asks the hub.

    Raises:
        UserError: lm-eval is not installed.
    """
    os.environ.update(dict.fromkeys(_SWITCHES, "1"))
    # It warns of every prompt that is cut; here these are counted.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"scoring a model needs lm-eval ({error}): pip install 'megatron_biollm[eval]'"
        ) from error
