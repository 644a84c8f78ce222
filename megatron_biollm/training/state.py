"""How far a run has come."""

from dataclasses import dataclass


@dataclass
class TrainState:
    """Attributes:
    step: optimizer steps done.
    consumed_samples: sequences trained on; decides, with the seed, what comes next.
    consumed_tokens: tokens trained on, padding and masked tokens included.
    """

    step: int = 0
    consumed_samples: int = 0
    consumed_tokens: int = 0

    def advance(self, samples: int, seq_length: int) -> None:
        """Counts one finished step."""
        self.step += 1
        self.consumed_samples += samples
        self.consumed_tokens += samples * seq_length
