"""Best of n, and pairs for another round of DPO: a model's answers, judged by a reward model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.finetune.conversations import Messages, numbered_lines
from megatron_biollm.generation.sampling import SamplingOptions
from megatron_biollm.recipes.generate import generate
from megatron_biollm.recipes.score import score
from megatron_biollm.tokenizer.messages import check_prompt


@dataclass(frozen=True)
class Judged:
    """Answers of a model to one prompt.

    Attributes:
        prompt: messages.
        answers: different texts, the best first. scores: of each.
    """

    prompt: Messages
    answers: list[str]
    scores: list[float]

    def best(self) -> dict[str, Any]:
        """The answer with the highest score, as a conversation."""
        return {
            "messages": [*self.prompt, {"role": "assistant", "content": self.answers[0]}],
            "meta": {"score": self.scores[0], "answers": len(self.answers)},
        }

    def pair(self) -> dict[str, Any]:
        """Best and worst, in TRL's conversational preference form."""
        chosen, rejected = (
            [{"role": "assistant", "content": self.answers[place]}] for place in (0, -1)
        )
        scores = {"score_chosen": self.scores[0], "score_rejected": self.scores[-1]}
        meta = scores | {"answers": len(self.answers)}
        return {"prompt": self.prompt, "chosen": chosen, "rejected": rejected, "meta": meta}

    @property
    def gap(self) -> float:
        """Score of the best answer above that of the worst; 0 where there is one alone."""
        return self.scores[0] - self.scores[-1]


def judge_samples(
    policy: Path,
    reward: Path,
    prompts: Sequence[Messages],
    samples: int,
    options: SamplingOptions,
    device: str = "auto",
    batch_size: int = 32,
) -> list[Judged]:
    """Answers each prompt `samples` times and scores the answers; every rank gives the same.

    Answers that are empty or did not come to their end are left out, and so are copies; a prompt
    without any answer left is left out, too.

    Args:
        policy, reward: runs, or checkpoints, of a tuned language model and of a reward model.
        prompts: messages that end with the user's.
        options: how answers are drawn.
        batch_size: answers at once.

    Raises:
        UserError: as `generate` and `score`.
    """
    written = generate(
        policy, list(prompts), options, samples, device_name=device, batch_size=batch_size
    )
    found: list[list[str]] = []
    for number in range(len(prompts)):
        rows = written[number * samples : (number + 1) * samples]
        texts = (row.text.strip() for row in rows if row.finish_reason == "eod")
        found.append(list(dict.fromkeys(text for text in texts if text)))
    asked = [
        [*prompt, {"role": "assistant", "content": text}]
        for prompt, texts in zip(prompts, found, strict=True)
        for text in texts
    ]
    scores = iter(score(reward, asked, device) if asked else [])
    judged = []
    for prompt, texts in zip(prompts, found, strict=True):
        ranked = sorted(((next(scores), text) for text in texts), key=lambda pair: -pair[0])
        if ranked:
            values, answers = zip(*ranked, strict=True)
            judged.append(Judged(list(prompt), list(answers), list(values)))
    return judged


def read_prompts(path: str | Path) -> list[Messages]:
    """Prompts of a file of JSON lines: `prompt`, or `messages` up to the user's last.

    Raises:
        UserError: with file and line: no JSON, neither of both, or nothing to answer.
    """
    prompts = []
    for where, line in numbered_lines(Path(path)):
        try:
            row = json.loads(line)
            messages = row["prompt"] if "prompt" in row else row["messages"]
            while messages and messages[-1]["role"] == "assistant":
                messages = messages[:-1]
            check_prompt(messages)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{where} has no prompt ({error!r}); write {{"prompt": [messages]}} a line'
            ) from None
        prompts.append(messages)
    if not prompts:
        raise UserError(f"{path} holds no line; give JSON lines with prompt or messages")
    return prompts
