"""How far a run has come."""

from dataclasses import dataclass, field


@dataclass
class TrainState:
    """Attributes:
    step: optimizer steps done.
    consumed_samples: sequences trained on; decides, with the seed and the jumped samples, what
        comes next. Those of a step whose update was skipped count.
    consumed_tokens: tokens trained on, padding and masked tokens included.
    jumped_samples: half-open ranges of positions in the stream that the run leaves out.
    recent_losses, recent_grad_norms: of the last healthy steps, which a spike is measured by.
    skips_in_a_row: steps just before this one whose updates were skipped.
    """

    step: int = 0
    consumed_samples: int = 0
    consumed_tokens: int = 0
    jumped_samples: list[list[int]] = field(default_factory=list)
    recent_losses: list[float] = field(default_factory=list)
    recent_grad_norms: list[float] = field(default_factory=list)
    skips_in_a_row: int = 0

    def advance(self, samples: int, seq_length: int) -> None:
        """Counts one finished step."""
        self.step += 1
        self.consumed_samples += samples
        self.consumed_tokens += samples * seq_length
