"""Options of the command line that say which benchmarks are read, and from where."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError


def add_places(group: Any, data_required: bool = False) -> None:
    """Adds --data, --split, --convention, --file and --skip-missing to a parser or a group."""
    add = group.add_argument
    add("--data", type=Path, required=data_required, help="folder with the benchmarks' folders")
    add("--split", action="append", default=[], metavar="NAME=SPLIT", help="in place of its test")
    add("--convention", action="append", default=[], metavar="NAME.OPTION=VALUE")
    add("--file", action="append", default=[], metavar="NAME.ROLE=PATH", help="lies elsewhere")
    add("--skip-missing", action="store_true", help="leave out benchmarks without their files")


def places(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """What `add_places` was given but for the folder, as fields of a `Plan`.

    names: of the benchmarks; of a single one the name may be left out.

    Raises:
        UserError: a value of another form.
    """
    return {
        "splits": pairs(arguments.split, "--split"),
        "conventions": nested(arguments.convention, "--convention", names),
        "files": nested(arguments.file, "--file", names),
        "skip_missing": arguments.skip_missing,
    }


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """NAME=VALUE by name.

    Raises:
        UserError: a text of another form, or a name twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UserError(f"{option} {text} is not NAME=VALUE")
        if name in found:
            raise UserError(f"{option} {name} is given twice; give it once")
        found[name] = value
    return found


def nested(texts: Sequence[str], option: str, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """NAME.KEY=VALUE by name and key; of a single benchmark the name may be left out.

    Raises:
        UserError: as `pairs`, or a text that names no benchmark.
    """
    found: dict[str, dict[str, str]] = {}
    for key, value in pairs(texts, option).items():
        name, dot, inner = key.partition(".")
        if not dot and len(names) == 1:
            name, inner = names[0], key
        if not inner:
            raise UserError(
                f"{option} {key}={value} does not say of which benchmark; give "
                f"{option} BENCHMARK.{key}={value}"
            )
        found.setdefault(name, {})[inner] = value
    return found
