"""What low-rank adapters are put beside, how large they are, and what their weights are called."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from megatron_biollm.config import UserError, option

if TYPE_CHECKING:  # a configuration must not wait for torch
    import torch

# core's linear layers, by their place in a transformer layer.
TARGETS = {
    "linear_qkv": "self_attention.linear_qkv",
    "linear_proj": "self_attention.linear_proj",
    "linear_fc1": "mlp.linear_fc1",
    "linear_fc2": "mlp.linear_fc2",
}
# Transformers' names, which users know from elsewhere.
_MEANT = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "linear_qkv"),
    "o_proj": "linear_proj",
    **dict.fromkeys(("gate_proj", "up_proj"), "linear_fc1"),
    "down_proj": "linear_fc2",
}
_SUFFIX = "_lora"


@dataclass
class LoraConfig:
    """Adapters of rank `rank`: `alpha / rank * B A` is added to each matrix, which stays as it is.

    Raises:
        UserError: numbers out of range, or layers that are none.
    """

    rank: int = option(0, "rank of the adapters, such as 16; 0 trains the whole model")
    alpha: float = option(32.0, "what they add is multiplied by alpha / rank")
    target_modules: list[str] = option(
        list(TARGETS), f"the layers that get one, of {', '.join(TARGETS)}"
    )

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise UserError(
                f"finetune.lora.rank={self.rank} must be 1 or more, or 0 for no adapters"
            )
        if not self.alpha > 0:
            raise UserError(f"finetune.lora.alpha={self.alpha} must be above 0; usual is 2 * rank")
        self._check_targets()

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / self.rank

    def merged(
        self, weight: "torch.Tensor", a: "torch.Tensor", b: "torch.Tensor"
    ) -> "torch.Tensor":
        """`weight + scale * B A` in fp32; of some rows, with those rows of B."""
        return weight.float().addmm(b.float(), a.float(), alpha=self.scale)

    def _check_targets(self) -> None:
        names = self.target_modules
        if not names or len(set(names)) < len(names):
            raise UserError(
                f"finetune.lora.target_modules={names} names no layer, or one twice; choose of "
                f"{', '.join(TARGETS)}"
            )
        for name in names:
            if name not in TARGETS:
                meant = f"{name} is a part of {_MEANT[name]}" if name in _MEANT else "not a layer"
                raise UserError(
                    f"finetune.lora.target_modules holds {name!r} ({meant}); choose of "
                    f"{', '.join(TARGETS)}"
                )


def adapter_name(layer: str) -> str:
    """What the adapter of a layer is called, beside it; `layer` may be a dotted path."""
    return layer + _SUFFIX


def adapter_keys(weight: str) -> tuple[str, str]:
    """The checkpoint keys of A and B that belong to the key of a layer's weight."""
    adapter = adapter_name(weight.removesuffix(".weight"))
    return f"{adapter}.a", f"{adapter}.b"


def is_adapter(key: str) -> bool:
    """Whether a weight of that name or checkpoint key is an adapter's."""
    return f"{_SUFFIX}." in key
