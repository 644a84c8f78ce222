"""Where a chat template's text comes from, and what is put before and taken out of it.

Text of a message must never become a token of the template. A tokenizer that reads a rendered
chat cannot tell one from the other, so the template itself breaks such words up: a loop before
its own text writes a space after the first character of every special token and of every role
marker that stands in a message ("</s>" becomes "< /s>"). Whoever renders the template, training,
Transformers or vLLM, then gets the same ids, and a message cannot end a turn or forge another.
"""

import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.config import UserError

DEFAULT = "default"
TEMPLATE_FILE = "chat_template.jinja"
# Beside an export's template, which is without marks: the one to train on with.
TRAINING_TEMPLATE_FILE = "chat_template_training.jinja"

_TEMPLATES = resources.files("megatron_biollm.tokenizer") / "templates"
_GENERATION = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")
_ROLE_MARKERS = re.compile(r"\{#-?\s*role markers:(.*?)-?#\}", re.DOTALL)
# Nothing but what engines other than Python's know too (string methods, list addition).
_GUARD = (
    "{%- set guarded = namespace(messages=[]) -%}"
    "{%- for message in messages -%}"
    "{%- set guarded.messages = guarded.messages + [MESSAGE] -%}"
    "{%- endfor -%}"
    "{%- set messages = guarded.messages -%}\n"
)
_PLAIN = "{'role': message['role'], 'content': message['content']CUTS}"
# Where messages have more fields, of which content may be no text.
_RICH = "dict(message, content=message['content']CUTS) if message['content'] is string else message"
_MORE_FIELDS = re.compile("tool|reasoning|thinking")


def built_in_names() -> list[str]:
    """Names of the templates that come with the program."""
    files = [Path(file.name) for file in _TEMPLATES.iterdir()]
    return sorted(file.stem for file in files if file.suffix == ".jinja")


def named_template(name_or_path: str) -> str:
    """The text of a built-in template, of a .jinja file, or of a tokenizer's folder.

    Raises:
        UserError: none of these.
    """
    if name_or_path in built_in_names():
        return (_TEMPLATES / f"{name_or_path}.jinja").read_text(encoding="utf-8")
    path = Path(name_or_path)
    text = folder_template(path) if path.is_dir() else None
    if path.is_file() and path.suffix == ".jinja":
        text = _read(path)
    if text is None:
        raise UserError(
            f"chat template {name_or_path!r} is neither built in ({', '.join(built_in_names())}), "
            f"nor a .jinja file, nor a folder with {TEMPLATE_FILE}; give one of these"
        )
    return text


def folder_template(folder: Path) -> Optional[str]:
    """The template in a tokenizer's folder, None where it has none.

    The one to train with goes first, then chat_template.jinja, then the tokenizer's config.

    Raises:
        UserError: a file that cannot be read, or two templates that render differently.
    """
    training, plain = (folder / name for name in (TRAINING_TEMPLATE_FILE, TEMPLATE_FILE))
    if training.is_file():
        text = _read(training)
        if plain.is_file() and _read(plain) != without_marks(text):
            raise UserError(
                f"{plain} is not {training.name} without its generation marks, and both must "
                f"render the same; remove {training.name}, or change both"
            )
        return text
    return _read(plain) if plain.is_file() else _in_config(folder / "tokenizer_config.json")


def without_marks(text: str) -> str:
    """The template without `{% generation %}`, which programs that only generate do not know.

    A condition that always holds stands in its place: it renders the same, spaces included.
    """
    return _GENERATION.sub(
        lambda mark: f"{{%{mark[1]} {'endif' if mark[2] else 'if true'} {mark[3]}%}}", text
    )


def has_marks(text: str) -> bool:
    """Whether the template says which part of a turn the assistant writes."""
    return _GENERATION.search(text) is not None


def role_markers(text: str) -> list[str]:
    """The plain-text markers that the template names in its comment `role markers: ...`."""
    return [marker for found in _ROLE_MARKERS.findall(text) for marker in found.split()]


def guarded(text: str, words: Sequence[str]) -> str:
    """The template, changed so that no message contains one of `words` when it is rendered."""
    cuts = "".join(f".replace({_literal(word)}, {_literal(cut(word))})" for word in words)
    message = _RICH if _MORE_FIELDS.search(text) else _PLAIN
    guard = _GUARD.replace("MESSAGE", message).replace("CUTS", cuts) if words else ""
    return text if text.startswith(guard) else guard + text


def cut(word: str) -> str:
    """A word that must not stand in a message, as the template writes it."""
    return f"{word[0]} {word[1:]}"


def _literal(word: str) -> str:
    return json.dumps(word, ensure_ascii=False)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"chat template {path} cannot be read ({error}); copy it again") from error


def _in_config(path: Path) -> Optional[str]:
    """What older versions of `transformers` keep in tokenizer_config.json."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return None
    if isinstance(found, list):
        found = {each["name"]: each["template"] for each in found}.get("default")
    return found
