"""Conversations and a template small enough to count by hand."""

import hashlib
import json
from types import SimpleNamespace

from megatron_biollm.config import UserError

STOP = 2


class Numbers:
    """A template that writes a message as the numbers in it: user's, assistant's, stop token."""

    def __init__(self, text="numbers"):
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()
        self.calls = 0

    def encode(self, messages):
        self.calls += 1
        tokens, mask = [1], [False]
        for message in messages:
            answers = message["role"] == "assistant"
            ids = [int(word) for word in message["content"].split()]
            if 0 in ids:
                raise UserError("0 is no number that this template writes")
            tokens += ids + [STOP] * answers
            mask += [answers] * (len(ids) + answers)
        return SimpleNamespace(tokens=tokens, loss_mask=mask)


def chat(question, answer):
    return {
        "messages": [
            {"role": "user", "content": " ".join(map(str, question))},
            {"role": "assistant", "content": " ".join(map(str, answer))},
        ]
    }


def write_chats(path, chats):
    path.write_text("".join(json.dumps(one) + "\n" for one in chats), encoding="utf-8")
    return str(path)


def chats_of_lengths(*lengths):
    """Conversations that take so many places in a row, half of them the assistant's."""
    made = []
    for number, length in enumerate(lengths):
        first, answer = 10 + 3 * number, length // 2
        made.append(chat(range(first, first + length - answer - 1), [first + 1] * answer))
    return made
