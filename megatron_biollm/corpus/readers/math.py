"""Formulas as one line of text: TeX where the source has it, else MathML written linearly.

MathML: https://www.w3.org/TR/MathML3/chapter3.html (presentation elements). No library turns
MathML into plain text; those that turn it into TeX need XSLT sheets of their own.
"""

from __future__ import annotations

import re

from lxml import etree

from megatron_biollm.corpus.readers.xml import local_name

# Function application, invisible times, separator and plus.
_INVISIBLE = dict.fromkeys(range(0x2061, 0x2065))
_LEFT_OUT = ("annotation", "annotation-xml", "mphantom", "none", "mprescripts", "maligngroup")
_SCRIPTS = {"msup": ("^",), "msub": ("_",), "msubsup": ("_", "^"), "munderover": ("_", "^"),
            "munder": ("_",), "mover": ("^",)}  # fmt: skip
_BODY = re.compile(r"\\begin\{document\}(.*?)\\end\{document\}", re.DOTALL)
_SIMPLE = re.compile(r"[\w.]+|.", re.UNICODE)
_ACCENT = re.compile(r"[^\w\s(]")


def tex_text(source: str) -> str:
    """``$...$`` around the formula of a TeX source, without the preamble that sets it."""
    body = _BODY.search(source)
    formula = " ".join((body[1] if body else source).split())
    for left, right in (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)")):
        if len(formula) > len(left) + len(right) and formula.startswith(left):
            formula = formula.removeprefix(left).removesuffix(right).strip()
    return f"${formula}$" if formula else ""


def mathml_text(element: etree._Element) -> str:
    """``(a+b)/c``, ``x_i^2``, ``√(x)``: what a person would type.

    Args:
        element: a MathML element, in any namespace.
    """
    return " ".join(_linear(element).split())


def _linear(element: etree._Element) -> str:
    name = local_name(element)
    if name in _LEFT_OUT:
        return ""
    if name == "mspace":
        return " "
    if name == "mtable":
        return f"[{'; '.join(_linear(row) for row in element)}]"
    if name in ("mtr", "mlabeledtr"):
        return ", ".join(_linear(cell) for cell in element)
    children = [text for child in element if (text := _linear(child)) or local_name(child)]
    if name in _SCRIPTS and len(children) == len(_SCRIPTS[name]) + 1:
        return _scripts(children, _SCRIPTS[name])
    if name == "mfrac" and len(children) == 2:
        return f"{_grouped(children[0])}/{_grouped(children[1])}"
    if name == "msqrt":
        return f"√{_grouped(_joined(children))}"
    if name == "mroot" and len(children) == 2:
        return f"{_grouped(children[0])}^(1/{children[1]})"
    if name == "mfenced":
        inside = (element.get("separators", ",").strip()[:1] or "").join(children)
        return f"{element.get('open', '(')}{inside}{element.get('close', ')')}"
    return _joined([_own_text(element), *children])


def _scripts(children: list[str], marks: tuple[str, ...]) -> str:
    text = children[0]
    for mark, script in zip(marks, children[1:], strict=True):
        if script and _ACCENT.fullmatch(script) and mark == "^" and script not in "+-−*":
            text += script
        elif script:
            text += mark + _grouped(script)
    return text


def _grouped(text: str) -> str:
    """In brackets unless it is one symbol or number."""
    text = text.strip()
    return text if not text or _SIMPLE.fullmatch(text) else f"({text})"


def _joined(parts: list[str]) -> str:
    """Side by side, with a space where two names would become one."""
    text = ""
    for part in filter(None, parts):
        words = re.search(r"[^\W\d_]+$", text), re.match(r"[^\W\d_]+", part)
        if all(words) and max(len(word[0]) for word in words) > 1:
            text += " "
        text += part
    return text


def _own_text(element: etree._Element) -> str:
    return (element.text or "").strip("\n\t\r").translate(_INVISIBLE)
