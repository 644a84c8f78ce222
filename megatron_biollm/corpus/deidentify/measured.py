"""The recall that was measured, to be said wherever a text is called de-identified."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def measured() -> dict[str, Any] | None:
    """The result that `tools/deidentify.py --measure ... --record` wrote; None before the first."""
    file = files("megatron_biollm.corpus.deidentify").joinpath("data", "measured.json")
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def measured_line() -> str:
    """One sentence with recall, precision and leak rate, and what they were measured on."""
    result = measured()
    if result is None:
        return "recall not measured: treat the text as containing identifiers"
    total = result["identifiers"]
    return (
        f"measured recall {total['recall']:.3f}, precision {total['precision']:.3f}, "
        f"{result['leak_rate']:.1%} of texts with any identifier missed "
        f"({total['labelled']} identifiers in {result['texts']} synthetic sentences; "
        f"{result['caveat']}; recall on real notes may be lower)"
    )
