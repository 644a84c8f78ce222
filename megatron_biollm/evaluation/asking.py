"""How benchmarks are put to a model: the options that change the score and belong to no benchmark.

They are stored and printed with every score, as conventions are.
"""

from dataclasses import dataclass

from megatron_biollm.config import UserError

METHODS = ("auto", "likelihood", "generate", "cot")
STORED = "stored"  # answers that were made elsewhere, nobody knows how
ROLLING = "rolling"  # the log-likelihood of whole texts, of which nothing is asked
CONTINUATIONS = ("auto", "letter", "text")
NORMALISATIONS = ("none", "characters")


@dataclass(frozen=True)
class Asking:
    """How a benchmark is asked.

    Attributes:
        method: "likelihood" takes the choice whose text is likeliest; "generate" has the answer
            written, greedily; "cot" asks for a chain of thought first (Wei et al. 2022,
            https://arxiv.org/abs/2201.11903). "auto" is likelihood where there are choices. What is
            no choice is written in any case.
        continuation: what stands for a choice: its "letter" or its whole "text". "auto" is the text
            where all questions have the same choices (yes or no; kinds of relation), else the
            letter.
        normalise: "characters" divides a choice's log-likelihood by its length (lm-eval's
            `acc_norm`).
        num_fewshot: examples in the prompt.
        seed: by which they are chosen, and texts are sampled.
        paraphrase: 0 for the benchmark's own instruction, else that of its paraphrases.
        chat: the prompt is a conversation, in the model's chat template.
        samples: answers to each question; the one given most often counts (self-consistency).
        temperature: of sampled answers; without effect for one sample.
        max_gen_toks: most tokens of an answer; 0 for what suits its kind.

    Raises:
        UserError: values that are none, or that exclude each other.
    """

    method: str = "auto"
    continuation: str = "auto"
    normalise: str = "none"
    num_fewshot: int = 0
    seed: int = 0
    paraphrase: int = 0
    chat: bool = False
    samples: int = 1
    temperature: float = 0.7
    max_gen_toks: int = 0

    def __post_init__(self) -> None:
        for name, known in (
            ("method", (*METHODS, STORED, ROLLING)),
            ("continuation", CONTINUATIONS),
            ("normalise", NORMALISATIONS),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"{name}={getattr(self, name)!r} is none of {', '.join(known)}")
        rules = {
            "num_fewshot": (self.num_fewshot >= 0, "0 or more"),
            "paraphrase": (self.paraphrase >= 0, "0 (the benchmark's own instruction) or more"),
            "samples": (self.samples >= 1, "at least 1"),
            "temperature": (self.temperature > 0, "above 0"),
            "max_gen_toks": (self.max_gen_toks >= 0, "0 (what suits the answer) or more"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise UserError(f"{name}={getattr(self, name)} must be {rule}")
        if self.samples > 1 and self.method != "cot":
            raise UserError(
                f"samples={self.samples} needs method=cot: only sampled chains of thought are "
                f"put to the vote; the other methods give the same answer every time"
            )
        if self.method == "cot" and self.num_fewshot:
            raise UserError(
                f"method=cot with num_fewshot={self.num_fewshot}: the benchmarks hold no chains "
                f"of thought that could be examples; ask without examples (num_fewshot=0)"
            )
