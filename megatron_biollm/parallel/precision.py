"""FP8 matrix products: which kind, what they need, and which sizes they take.

Weights, main gradients and optimizer stay what they are in bf16, and so do checkpoints: one from an
FP8 run loads into a bf16 run, and generation and benchmarks compute in bf16.
"""

from dataclasses import dataclass
from importlib.metadata import version

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig

FORMATS = ("e4m3", "hybrid")
# What both sides of a matrix product must divide by, and the Transformer Engine that has it, by
# megatron-core's `fp8_utils.py` and Transformer Engine's `common/recipe/__init__.py`. The products
# of weight gradients run over tokens, so those count as a side.
DIVISORS = {"tensorwise": 16, "delayed": 16, "blockwise": 128, "mxfp8": 32}
LEAST_ENGINE = {"tensorwise": (2, 2), "delayed": (1, 0), "blockwise": (2, 3), "mxfp8": (2, 1)}


@dataclass(frozen=True)
class Fp8:
    """Attributes:
    format: `e4m3`, or `hybrid`: e4m3 forward, e5m2 for the gradients.
    recipe: what has a scale of its own: a whole tensor by its present values (`tensorwise`) or by
        those of steps before (`delayed`), or blocks of it (`blockwise`; `mxfp8` on Blackwell).
    amax_history_len: steps before, of `delayed`.
    """

    format: str = "hybrid"
    recipe: str = "tensorwise"
    amax_history_len: int = 1024

    @property
    def core_fields(self) -> dict[str, object]:
        """Of core's `TransformerConfig`."""
        return {
            "fp8": self.format,
            "fp8_recipe": self.recipe,
            "fp8_amax_history_len": self.amax_history_len,
            "fp8_amax_compute_algo": "max",
        }


def check_fp8_sizes(
    recipe: str, model: ModelConfig, parallel: ParallelConfig, micro_batch_size: int
) -> None:
    """Checks every side of the layers' matrix products on one rank.

    Raises:
        UserError: naming the side, its size and the divisor.
    """
    tensor, divisor = parallel.tensor_model_parallel_size, DIVISORS[recipe]
    keys = (model.num_attention_heads + 2 * model.num_query_groups) * model.kv_channels
    tokens = micro_batch_size * model.seq_length // parallel.context_parallel_size
    if parallel.sequence_parallel:
        tokens //= tensor
    sides = {
        "model.hidden_size": model.hidden_size,
        "hidden_size / tensor_model_parallel_size": model.hidden_size // tensor,
        "model.ffn_hidden_size / tensor_model_parallel_size": model.ffn_hidden_size // tensor,
        "columns of query, key and value / tensor_model_parallel_size": keys // tensor,
        "tokens of a micro-batch on one rank": tokens,
    }
    for name, size in sides.items():
        if size % divisor:
            raise UserError(
                f"training.fp8_recipe={recipe} multiplies matrices whose sides divide by "
                f"{divisor}, but {name} = {size} does not; change it, choose a recipe of smaller "
                f"parts (tensorwise: {DIVISORS['tensorwise']}), or leave training.fp8 out"
            )


def check_fp8_engine(recipe: str, transformer_impl: str, why: str) -> None:
    """Checks that the layers in use have the recipe.

    Args:
        recipe: wanted.
        transformer_impl: the layers in use.
        why: they are.

    Raises:
        UserError: naming what is lacking.
    """
    if transformer_impl != "transformer_engine":
        raise UserError(
            f"training.fp8 needs Transformer Engine's layers, but those in use are "
            f"{transformer_impl} ({why}); install it on a GPU machine, or leave training.fp8 out"
        )
    least, engine = LEAST_ENGINE[recipe], version("transformer-engine")
    if tuple(int(part) for part in engine.split(".")[:2] if part.isdigit()) < least:
        raise UserError(
            f"training.fp8_recipe={recipe} needs transformer-engine {least[0]}.{least[1]} or "
            f"later, but {engine} is installed; upgrade it, or choose another recipe"
        )
