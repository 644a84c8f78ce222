"""Language codes of the sources as ISO 639-1, the two-letter ones."""

from __future__ import annotations

# The codes of MEDLINE's language table that have a two-letter form; both of ISO 639-2's codes
# where a language has two. https://www.nlm.nih.gov/bsd/language_table.html
_TWO_LETTERS = {
    "af": "afr", "am": "amh", "ar": "ara", "az": "aze", "be": "bel", "bg": "bul", "bn": "ben",
    "bo": "tib bod", "bs": "bos", "ca": "cat", "cs": "ces cze", "cy": "cym wel", "da": "dan",
    "de": "deu ger", "el": "ell gre", "en": "eng", "eo": "epo", "es": "spa", "et": "est",
    "eu": "eus baq", "fa": "fas per", "fi": "fin", "fr": "fra fre", "ga": "gle", "gd": "gla",
    "gl": "glg", "he": "heb", "hi": "hin", "hr": "hrv scr", "hu": "hun", "hy": "arm hye",
    "id": "ind", "is": "ice isl", "it": "ita", "ja": "jpn", "ka": "geo kat", "kk": "kaz",
    "kn": "kan", "ko": "kor", "ku": "kur", "ky": "kir", "la": "lat", "lb": "ltz", "lt": "lit",
    "lv": "lav", "mi": "mri mao", "mk": "mac mkd", "ml": "mal", "mn": "mon", "mr": "mar",
    "ms": "may msa", "my": "bur mya", "nb": "nob", "nl": "dut nld", "nn": "nno", "no": "nor",
    "pa": "pan", "pl": "pol", "ps": "pus", "pt": "por", "ro": "ron rum", "ru": "rus", "rw": "kin",
    "sa": "san", "sk": "slk slo", "sl": "slv", "so": "som", "sq": "alb sqi", "sr": "scc srp",
    "sv": "swe", "sw": "swa", "ta": "tam", "te": "tel", "tg": "tgk", "th": "tha", "tk": "tuk",
    "tr": "tur", "tt": "tat", "ug": "uig", "uk": "ukr", "ur": "urd", "uz": "uzb", "vi": "vie",
    "vo": "vol", "wo": "wol", "xh": "xho", "zh": "chi zho", "zu": "zul",
}  # fmt: skip
_THREE_LETTERS = {code: two for two, codes in _TWO_LETTERS.items() for code in codes.split()}


def iso_639_1(code: str | None) -> str | None:
    """``eng`` and ``en-GB`` to ``en``; None for what has no two-letter code (``und``, ``mul``)."""
    if not code:
        return None
    primary = code.strip().lower().replace("_", "-").partition("-")[0]
    if len(primary) == 2 and primary.isascii() and primary.isalpha():
        return primary
    return _THREE_LETTERS.get(primary)
