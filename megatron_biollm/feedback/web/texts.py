"""How values look on a page: texts of any language, times, estimates."""

import re
from datetime import UTC, datetime
from typing import Optional

from flask import Flask

from megatron_biollm.feedback.agreement import text
from megatron_biollm.feedback.progress import last_words
from megatron_biollm.feedback.words import CATEGORIES, PREFERENCES, STRENGTHS

# HTML has no place for control characters other than tab and line ends. Marks that turn the
# direction of writing stay: each text stands in an isolated element.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def register_filters(app: Flask) -> None:
    app.jinja_env.filters |= {
        "text": lambda value: _CONTROL.sub("\ufffd", value),
        "when": _when,
        "percent": lambda value: "–" if value is None else f"{value:.0%}",
        "estimate": text,
        "share": lambda found: text(found, "{:.0%}"),
        "minutes": _minutes,
    }
    app.jinja_env.globals |= {
        "PREFERENCES": PREFERENCES,
        "STRENGTHS": STRENGTHS,
        "CATEGORIES": CATEGORIES,
        "last_words": last_words,
    }


def _when(seconds: Optional[float]) -> str:
    if seconds is None:
        return "–"
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _minutes(seconds: Optional[float]) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
