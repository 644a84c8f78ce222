"""Words broken at line ends, joined where the document itself shows how they are written.

No dictionary: a drug's or a gene's name is in none. The break treat-⏎ment is joined if the same
document writes "treatment" elsewhere, and becomes "treat-ment" on one line if it writes that;
where it shows neither or both, the break stays. Guessing from parts that are no words of the
document would join one in eight more breaks, and turn double-⏎blind into "doubleblind".
Figures and capitals at the break (IL-⏎6, 5-⏎HT, TNF-⏎alpha) are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from megatron_biollm.corpus.clean.edits import Edit

_BREAK = re.compile(r"\b([A-ZÀ-Þ]?[a-zß-öø-ÿ]{1,30})-[ \t]*\n[ \t]*([a-zß-öø-ÿ]{2,30})(?![\w-])")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")

# Dialogues, lists and table cells also end lines with hyphens, but not full lines.
SHORTEST_LINE = 30


def hyphenation(text: str) -> Iterator[Edit]:
    """Line breaks within words that are safe to take away."""
    if "-\n" not in text and "- \n" not in text:
        return
    breaks = [match for match in _BREAK.finditer(text) if _ends_full_line(text, match)]
    known = _words(text, breaks) if breaks else set()
    for match in breaks:
        whole, compound = match[1] + match[2], f"{match[1]}-{match[2]}"
        is_whole, is_compound = whole.lower() in known, compound.lower() in known
        if is_whole != is_compound:
            yield match.start(), match.end(), whole if is_whole else compound


def _ends_full_line(text: str, match: re.Match[str]) -> bool:
    start = text.rfind("\n", 0, match.start()) + 1
    return match.end(1) - start >= SHORTEST_LINE


def _words(text: str, breaks: list[re.Match[str]]) -> set[str]:
    """Words and hyphenated words of the text, without the halves of the breaks themselves."""
    pieces, at = [], 0
    for match in breaks:
        pieces.append(text[at : match.start()])
        at = match.end()
    pieces.append(text[at:])
    return {word.lower() for piece in pieces for word in _WORD.findall(piece)}
