"""What a training program does besides the layout: overlap, fused kernels, flash attention."""

from dataclasses import dataclass

from megatron_biollm.model.config import ModelConfig

OVERLAPS = ("none", "backward", "full")
ATTENTIONS = ("scores", "flash2", "flash3")


@dataclass(frozen=True)
class Software:
    """Traits of a program that the layout does not say; the defaults are this project's own.

    Attributes:
        framework: whose constant for launching kernels holds; others share one default.
        tp_overlap: tensor-parallel collectives hidden behind matrix products: "none", "backward"
            (megatron-core: those of column-parallel layers, in the backward pass), or "full"
            (pipelined with their products: Transformer Engine's user buffers, asynchronous TP).
        fused: elementwise kernels fused (Transformer Engine, torch.compile) or not.
        attention: by materialised "scores"; by flash kernels of the second generation, made for
            the A100 ("flash2"); or by those for later GPUs ("flash3", cuDNN's among them).
        gradient_bytes: per parameter in the data-parallel reduction.
        defer_output_gradient: the output layer's weight gradient moves into the pipeline's end.
    """

    framework: str = "megatron"
    tp_overlap: str = "backward"
    fused: bool = True
    attention: str = "flash3"
    gradient_bytes: int = 4
    defer_output_gradient: bool = False

    def __post_init__(self) -> None:
        if self.tp_overlap not in OVERLAPS:
            raise ValueError(f"tp_overlap={self.tp_overlap}: one of {', '.join(OVERLAPS)}")
        if self.attention not in ATTENTIONS:
            raise ValueError(f"attention={self.attention}: one of {', '.join(ATTENTIONS)}")


def own_software(model: ModelConfig) -> Software:
    """This project's, by the layers that the run asks for; "auto" is taken to find Transformer
    Engine, as a GPU machine that is set up for training has it."""
    if model.transformer_impl == "local":
        return Software(fused=False, attention="flash2")
    return Software()
