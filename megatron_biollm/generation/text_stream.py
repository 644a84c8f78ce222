"""Ids to text, one id at a time."""

from collections.abc import Sequence

from megatron_biollm.tokenizer.tokenizer import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Decodes the ids that follow a prompt, as they come.

    A character may be spread over several byte tokens, so text that ends in the middle of one is
    held back. A token's text depends on the one before it (a decoder drops the space that opens a
    text), so a new token is decoded together with the last ones that gave text, and what these
    gave is cut off. The pieces put together are the text of all ids, the prompt's text removed;
    only where bytes make no character may a decoder, which sees all of them at once, also give up
    characters beside them that are kept here.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]):
        self.tokenizer = tokenizer
        self.window, self.known = list(prompt), len(prompt)

    def add(self, token: int) -> str:
        """The text that this token completes; empty where it completes none."""
        self.window.append(token)
        text = self._new_text()
        if not text or text.endswith(REPLACEMENT):
            return ""
        self.window, self.known = self.window[self.known :], len(self.window) - self.known
        return text

    def finish(self) -> str:
        """What was held back: bytes that no further token will make a character."""
        text = self._new_text()
        self.window, self.known = [], 0
        return text

    def _new_text(self) -> str:
        old = self.tokenizer.decode(self.window[: self.known])
        return self.tokenizer.decode(self.window)[len(old) :]
