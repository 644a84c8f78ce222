"""Which preference loss a run has, and its constants."""

from dataclasses import dataclass

from megatron_biollm.config import UserError, option

PAIR_LOSSES = ("sigmoid", "cdpo", "robust", "ipo", "ipo_sum", "sigmoid_norm", "hinge")
LOSSES = (*PAIR_LOSSES, "kto")
SMOOTHED = ("cdpo", "robust")


@dataclass
class PreferenceLossConfig:
    """Which loss, and its constants.

    Raises:
        UserError: an unknown loss, or constants outside their range.
    """

    loss_type: str = option("sigmoid", f"one of {', '.join(LOSSES)}; sigmoid is DPO")
    beta: float = option(0.1, "strength of the tie to the reference model; IPO's tau")
    label_smoothing: float = option(0.0, "share of labels taken to be wrong, for cdpo and robust")
    sft_weight: float = option(0.0, "weight of -log p per token of the chosen answer, added")
    desirable_weight: float = option(1.0, "kto: weight of answers labelled good")
    undesirable_weight: float = option(1.0, "kto: weight of answers labelled bad")

    def __post_init__(self) -> None:
        if self.loss_type not in LOSSES:
            raise UserError(
                f"finetune.loss_type={self.loss_type!r} is unknown; use one of {', '.join(LOSSES)}"
            )
        if not self.beta > 0:
            raise UserError(f"finetune.beta={self.beta} must be above 0; 0.1 is usual")
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(
                f"finetune.label_smoothing={self.label_smoothing} is a share of wrong labels from "
                f"0 to below 0.5; with more the labels would say the opposite"
            )
        if self.label_smoothing and self.loss_type not in SMOOTHED:
            raise UserError(
                f"finetune.label_smoothing={self.label_smoothing} has no meaning for "
                f"finetune.loss_type={self.loss_type}; use cdpo or robust, or 0"
            )
        for name in ("sft_weight", "desirable_weight", "undesirable_weight"):
            if getattr(self, name) < 0:
                raise UserError(f"finetune.{name}={getattr(self, name)} is a weight: 0 or more")
