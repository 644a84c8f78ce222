"""Characters: composed forms, ligatures, invisible signs, odd spaces, escapes and mojibake.

Unicode normal form C, not KC: form KC turns 10⁶ into 106, CO₂ into CO2, ½ into 1⁄2 and the
micro sign of a dose into the Greek letter, so it would change numbers and units. Of the
compatibility characters only the printer's ligatures (ﬁ, ﬂ) are taken apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from html.entities import html5

import ftfy

from megatron_biollm.corpus.clean.edits import Edit, cuts, shrink

# A character beyond ASCII may compose with the one before it, never with an ASCII one after it.
_COMPOSABLE = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")

_LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ft", "ﬆ": "st"}
_LIGATURE = re.compile("[ﬀ-ﬆ]")

_LINE_BREAKS = "\r\v\x85\u2028\u2029"
_LINE_BREAK = re.compile(f"\r\n?|[{_LINE_BREAKS}]")
# The form feed stays: it tells where the pages of a PDF-like text end.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")

# A soft hyphen at a line end goes with the line break: there it broke a word.
_SOFT_HYPHEN = re.compile("\u00ad(?:[ \t]*\n[ \t]*)?")
# Zero-width space, byte order mark, word joiner, invisible operators, direction marks, joiners.
_INVISIBLE = re.compile("[\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_JOINERS = "\u200c\u200d"
# Arabic, Indic and later scripts, and emoji, are spelt with joiners; Latin, Greek and Cyrillic not.
_FIRST_JOINED = "\u0600"
_ODD_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")

_ENTITY = re.compile(r"&(?:amp;)*(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_TAG = re.compile(r"<(sup|sub|inf|i|b|em|strong|u|sc)>([^<>]{0,200})</\1>")
_RAISED = str.maketrans("0123456789+-−–=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻⁼⁽⁾ⁿ")
_RAISABLE = re.compile(r"[0-9+\-−–=()n]+")

# UTF-8 read as Latin-1 or Windows-1252: a lead byte's letter and one that continues it.
_MOJIBAKE = re.compile(
    "[\x80-\x9fÂÃÎÏâï](?:(?<=[\x80-\x9f])|(?<=[ÂÃÎÏ])[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
    "|(?<=[âï])[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]{2})"
)
# Only encodings are mended; ftfy's other habits (straight quotes, widths, ligatures) change text.
_FTFY = ftfy.TextFixerConfig(
    unescape_html=False,
    remove_terminal_escapes=False,
    restore_byte_a0=True,
    replace_lossy_sequences=True,
    decode_inconsistent_utf8=True,
    fix_c1_controls=True,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    fix_surrogates=False,
    remove_control_chars=False,
    normalization=None,
)


def mojibake(text: str) -> Iterator[Edit]:
    """Lines whose UTF-8 was read as another encoding, mended by ftfy: Î² to β, â‰¥ to ≥."""
    if text.isascii():
        return
    done = 0
    for match in _MOJIBAKE.finditer(text):
        if match.start() < done:
            continue
        start = text.rfind("\n", 0, match.start()) + 1
        done = text.find("\n", match.end())
        done = len(text) if done < 0 else done
        line = text[start:done]
        mended = ftfy.fix_encoding(line, config=_FTFY)
        if mended != line:
            yield shrink(text, start, done, mended)


def entities(text: str) -> Iterator[Edit]:
    """HTML escapes that stayed in the text, also when escaped twice: &amp;lt; to <."""
    if "&" not in text:
        return
    for match in _ENTITY.finditer(text):
        if plain := _character(match[1]):
            yield match.start(), match.end(), plain


def _character(name: str) -> str | None:
    """What an entity stands for; None where it stands for nothing that can be printed."""
    if not name.startswith("#"):
        return html5.get(name + ";")
    number = int(name[2:], 16) if name[1] in "xX" else int(name[1:])
    known = 31 < number < 0x110000 and not 0xD800 <= number < 0xE000
    return chr(number) if known else None


def tags(text: str) -> Iterator[Edit]:
    """Inline tags that stayed in the text; a raised number stays raised (10<sup>6</sup>: 10⁶)."""
    if "</" not in text:
        return
    for match in _TAG.finditer(text):
        inside = match[2]
        if match[1] == "sup" and _RAISABLE.fullmatch(inside):
            inside = inside.translate(_RAISED)
        yield match.start(), match.end(), inside


def composed(text: str) -> Iterator[Edit]:
    """Unicode normal form C, stretch by stretch."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return
    for match in _COMPOSABLE.finditer(text):
        new = unicodedata.normalize("NFC", match[0])
        if new != match[0]:
            yield match.start(), match.end(), new


def ligatures(text: str) -> Iterator[Edit]:
    """Printer's ligatures to their letters."""
    if text.isascii():
        return ()
    return ((m.start(), m.end(), _LIGATURES[m[0]]) for m in _LIGATURE.finditer(text))


def line_breaks(text: str) -> Iterator[Edit]:
    """All kinds of line break to one."""
    return cuts(_LINE_BREAK, text, "\n") if any(sign in text for sign in _LINE_BREAKS) else ()


def controls(text: str) -> Iterator[Edit]:
    """Control characters other than tab, line feed and form feed are cut."""
    return cuts(_CONTROL, text)


def soft_hyphens(text: str) -> Iterator[Edit]:
    """Soft hyphens are cut, at a line end with the break."""
    return cuts(_SOFT_HYPHEN, text) if "\u00ad" in text else ()


def invisible(text: str) -> Iterator[Edit]:
    """Zero-width signs are cut, joiners only where the script does not need them."""
    if text.isascii():
        return
    for match in _INVISIBLE.finditer(text):
        start, end = match.span()
        beside = text[max(0, start - 1) : start] + text[end : end + 1]
        if match[0] not in _JOINERS or all(sign < _FIRST_JOINED for sign in beside):
            yield start, end, ""


def odd_spaces(text: str) -> Iterator[Edit]:
    """No-break, thin and wide spaces to plain ones."""
    return () if text.isascii() else cuts(_ODD_SPACE, text, " ")
