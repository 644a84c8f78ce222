"""Which choice a generated text names: a letter, the choice's own words, JSON, a chain of thought.

Where a text answers more than once, its last answer counts. A text that names several choices at
once, none, or one that is not offered, cannot be read: None.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Optional

from megatron_biollm.evaluation.items import ChoiceItem

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# A model that runs on makes up the next question.
_NEXT_QUESTION = re.compile(
    r"^[ \t]*(?:#+[ \t]*)?(?:next )?(?:question|case)[ \t]*\d*[ \t]*:", re.I | re.M
)
_EMPHASIS = re.compile(r"\*\*|__|`")
_JSON_ANSWER = re.compile(
    r'"(?:answer_choice|final_answer|answer|choice|prediction)"\s*:\s*"((?:[^"\\]|\\.)*)', re.I
)
# What announces an answer; an answer said to be wrong is none.
_IS = r"(?:is|would be|should be|must be)(?: therefore| thus| likely| clearly)?\b\s*:?"
_CUE = re.compile(
    rf"(?<!incorrect )(?<!wrong )\banswer(?: choice| option)?\)?\s*(?:{_IS}|[:=])"
    rf"|\b(?:correct|best|right|final)(?: answer)? (?:option|choice|diagnosis|one) {_IS}"
    r"|\b(?:therefore|thus|hence|in conclusion|so)\b,"
    r"|\\boxed\s*(?=\{)|<answer>|\b(?:i|we) (?:would )?(?:choose|select|pick)\b",
    re.I,
)
_VERDICT = re.compile(
    r"\b(?:option|choice|answer)?\s*\(?\b([A-Z])\b\)?(?:[.:)][^.\n]{0,120})? is "
    r"(?:thus |therefore )?(?:the |a )?(?:most |single |only )?"
    r"(?:correct|best|right|appropriate|(?<=most )likely)"
)
_REFUSAL = re.compile(
    r"\b(?:cannot|can't|can not|could not|unable|insufficient|sorry|not enough|not possible|"
    r"not determinable|none of|neither|no information|not|n't|except|rather than|instead of|"
    r"either|incorrect|wrong|false)\b|n't\b",
    re.I,
)
# A letter, and what may follow it where it stands for a choice.
_OPENING = r"^[\s\"'(\[{<]*(?:\\text\s*\{\s*)?(?:(?:option|choice|answer)\s*:?\s+)?[(\[\"']?"
_LETTER = re.compile(_OPENING + r"([A-Za-z])(?![\w'’])[ \t]*(.*)", re.I | re.S)
_AFTER_LETTER = re.compile(r"(?:$|[.):,;\]}\"'<\n]|[-–—]\s|(?:is|because|since|as)\b)", re.I)
_SECOND_LETTER = re.compile(
    r"^[\s.)\]]*(?:/|,|;|&|\+|>|\bor\b|\band\b)[\s(]*(?:option |choice )?([A-Z])(?![\w'’])"
)
_REJECTED = re.compile(r"(?:is|are|was|would be) (?:\w+ly )?(?:not|incorrect|wrong|false)\b", re.I)
_OR_LETTER = re.compile(r"\b(?:or|and) \(?([A-Z])[.)]")
_AFTER_WORDS = re.compile(
    r"\s*(?:$|[.,;:!)\]}\"'<\n(]|[-–—]\s)|\s+(?:it|there|this|that|they|the|because|since|as|in)\b",
    re.I,
)
_SHORTEST_MENTION = 4
_LONGEST_ANSWER = 1000
_MOST_CUES = 50


def read_choice(text: str, item: ChoiceItem) -> Optional[int]:
    """Index of the choice that a text names; None where it cannot be read.

    In this order: the answer's field in JSON, the last words that announce an answer ("The answer
    is: C"), a text that begins with an answer, one that ends with it.
    """
    text = _EMPHASIS.sub("", _first_answer(text)).strip()
    item = replace(item, choices=tuple(_EMPHASIS.sub("", choice) for choice in item.choices))
    fields = _JSON_ANSWER.findall(text)
    if fields:
        return _short(_unescaped(fields[-1]), item)
    found = _announced(text, item)
    if found is None and _distinct_letters(text, item) < 2:
        found = _short(text, item)
    if found is None:
        found = _at_the_end(text, item)
    return found


def vote(choices: Sequence[Optional[int]]) -> Optional[int]:
    """The choice that most of several answers name (self-consistency, Wang et al. 2022,
    https://arxiv.org/abs/2203.11171); of equally many, the one named first; None if none could
    be read."""
    counts = Counter(one for one in choices if one is not None)
    return counts.most_common(1)[0][0] if counts else None


def _first_answer(text: str) -> str:
    """The text up to where a next question begins."""
    text = text.strip()
    cut = _NEXT_QUESTION.search(text, 1)
    return text[: cut.start()] if cut else text


def _unescaped(text: str) -> str:
    try:
        return json.loads(f'"{text}"')
    except ValueError:
        return text


def _announced(text: str, item: ChoiceItem) -> Optional[int]:
    """The last answer that words announce or pass a verdict on."""
    for cue in list(_CUE.finditer(text))[:-_MOST_CUES:-1]:
        rest = text[cue.end() : cue.end() + _LONGEST_ANSWER].lstrip(" \n\t:")
        sentence = _sentences(rest)[0] if rest else ""
        found = _short(rest, item)
        found = _mentioned(sentence, item) if found is None else found
        if found is not None:
            return found
    verdicts = [_index(letter, item) for letter in _VERDICT.findall(text)]
    return verdicts[-1] if verdicts else None


def _at_the_end(text: str, item: ChoiceItem) -> Optional[int]:
    """The answer that the last line or sentence is, or the one choice that it mentions."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or _distinct_letters(text, item) > 2:
        return None
    last = _sentences(lines[-1])[-1]
    found = _short(lines[-1], item) if len(lines) > 1 else None
    found = _short(last, item) if found is None else found
    return _mentioned(last, item) if found is None else found


def _sentences(text: str) -> list[str]:
    """Pieces that end where a capital letter follows a full stop, or the line ends."""
    pieces = re.split(r"(?<=[^A-Z][.!?])\s+(?=[A-Z(\"])|\n", text)
    return [one for one in pieces if one.strip()] or [text]


def _short(text: str, item: ChoiceItem) -> Optional[int]:
    """The answer that a text begins with: a choice's own words, or its letter."""
    letter = _LETTER.match(text)
    bare = letter and not letter[2].strip(" .)") and _index(letter[1], item) is not None
    whole = [i for i, choice in enumerate(item.choices) if _plain(choice) == _plain(text)]
    if len(whole) == 1 and not bare:
        return whole[0]
    if letter:
        found, rest = _index(letter[1].upper(), item), letter[2]
        if _stands_alone(letter[1], rest, found, item):
            if _REJECTED.match(rest) or _names_another(rest, found, item):
                return None
            return _begins(rest.lstrip(".):, "), item) if found is None else found
    return _begins(text, item)


def _stands_alone(letter: str, rest: str, found: Optional[int], item: ChoiceItem) -> bool:
    """Whether a letter stands for a choice, and is no article or initial."""
    if found is not None and _plain(rest).startswith(_plain(item.choices[found])):
        return True
    if letter.islower():
        return bool(re.match(r"[.):\]\"'}\s]*$", rest))
    return bool(_AFTER_LETTER.match(rest) or _SECOND_LETTER.match(rest))


def _names_another(rest: str, found: Optional[int], item: ChoiceItem) -> bool:
    """Whether another choice's letter follows a letter, other than in the choice's own words."""
    if found is not None and _plain(rest.lstrip(" .):]")) == _plain(item.choices[found]):
        return False
    several = _SECOND_LETTER.match(rest) or _OR_LETTER.search(rest.split("\n")[0])
    return bool(several) and _index(several[1], item) not in (None, found)


def _begins(text: str, item: ChoiceItem) -> Optional[int]:
    """The longest choice whose own words the text begins with, and then pauses."""
    text = text.lstrip(" \n\t\"'([{<")
    fits = []
    for index, choice in enumerate(item.choices):
        words = choice.strip().rstrip(".")
        same = text[: len(words)].casefold() == words.casefold()
        if words and same and _AFTER_WORDS.match(text[len(words) :]):
            fits.append((len(words), index))
    best = [index for length, index in fits if length == max(fits)[0]]
    return best[0] if len(best) == 1 else None


def _mentioned(sentence: str, item: ChoiceItem) -> Optional[int]:
    """The one choice whose words, or whose letter in brackets, a sentence mentions."""
    if _REFUSAL.search(sentence):
        return None
    found = set(_mentions(sentence, item))
    return found.pop() if len(found) == 1 else None


def _mentions(sentence: str, item: ChoiceItem) -> Iterator[int]:
    """Choices mentioned in their own words, longest first, each place in the text once."""
    for letter in re.findall(r"\(([A-Z])\)|\b(?:[Oo]ption|[Cc]hoice) ([A-Z])\b", sentence):
        index = _index("".join(letter), item)
        if index is not None:
            yield index
    text = _plain(sentence)
    plain = [_plain(choice) for choice in item.choices]
    for words in sorted(set(plain), key=len, reverse=True):
        if len(words) < _SHORTEST_MENTION:
            break
        text, times = re.subn(rf"(?<!\w){re.escape(words)}(?!\w)", "|", text)
        if times:
            yield from (index for index, other in enumerate(plain) if other == words)


def _distinct_letters(text: str, item: ChoiceItem) -> int:
    """How many different letters of choices begin a line: a list of the choices is no answer."""
    letters = re.findall(r"^[ \t]*[(\[]?([A-Z])[.):\]]", text, re.M)
    return len({_index(letter, item) for letter in letters} - {None})


def _index(letter: str, item: ChoiceItem) -> Optional[int]:
    index = _LETTERS.find(letter)
    return index if 0 <= index < len(item.choices) else None


def _plain(text: str) -> str:
    """Words in small letters with single spaces, without quotes and full stop around them."""
    return " ".join(text.casefold().split()).strip(" .\"'")
