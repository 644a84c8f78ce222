"""Typed dataclasses to and from strict YAML.

Every section of a run's configuration is a small dataclass beside its owner; a recipe composes
them. OmegaConf does the parsing, merging and type checking; this module adds the messages: an
unknown key names its nearest neighbour, a wrong type names the field and what it takes.
"""

import argparse
import dataclasses
import difflib
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Optional, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

T = TypeVar("T")


class UserError(ValueError):
    """Bad input: the message gives the value, the rule it breaks and the remedy."""


def option(default: Any, help: str) -> Any:
    """A dataclass field with its default and the line that `--help` shows for it."""
    metadata = {"help": help}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type, help: str) -> Any:
    """A dataclass field that holds a nested section of type `cls`."""
    # No default object: its rules would be checked before a file or an override filled it.
    return dataclasses.field(default=MISSING, metadata={"help": help, "section": cls})


def load_config(
    cls: type[T],
    path: str | Path | Sequence[str | Path | dict[str, Any]] | None = None,
    overrides: Iterable[str] = (),
) -> T:
    """Builds `cls` from its defaults, YAML files and dotted overrides, in that order.

    Args:
        cls: a dataclass made of options and sections.
        path: YAML file, or several, of which a later one goes over an earlier one field by field;
            None takes the defaults alone. A nested dict stands for what a file would hold.
        overrides: strings of the form `section.field=value`.

    Raises:
        UserError: unreadable file, unknown key, wrong type, or a rule checked in a
            `__post_init__` of one of the sections.
    """
    paths = [path] if isinstance(path, str | Path) else path or []
    layers = [_read_yaml(path) for path in paths]
    try:
        layers.append(_read_overrides(overrides))
        for layer in layers:
            _check_keys(cls, OmegaConf.to_container(layer), prefix="")
        typed = OmegaConf.merge(OmegaConf.structured(cls), _empty_sections(cls), *layers)
        values = OmegaConf.to_container(typed)
    except OmegaConfBaseException as error:
        raise UserError(_explain(error)) from error
    return _build(cls, values)


def read_layers(
    paths: Sequence[str | Path | dict[str, Any]], overrides: Iterable[str] = ()
) -> dict[str, Any]:
    """What files and overrides say together, as plain values that nothing has checked.

    Raises:
        UserError: unreadable file, or an override that is none.
    """
    layers = [_read_yaml(path) for path in paths]
    try:
        merged = OmegaConf.merge(*layers, _read_overrides(overrides))
        return OmegaConf.to_container(merged)
    except OmegaConfBaseException as error:
        raise UserError(_explain(error)) from error


def dump_config(config: Any) -> str:
    """The configuration as YAML that `load_config` reads back to an equal object."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def help_text(cls: type, prefix: str = "") -> str:
    """One line per field: dotted name, type, default and meaning."""
    lines = []
    for field in dataclasses.fields(cls):
        name, text = f"{prefix}{field.name}", field.metadata.get("help", "")
        if dataclasses.is_dataclass(field.type):
            lines += ["", f"{name}: {text}", help_text(field.type, prefix=f"{name}.")]
            continue
        lines.append(f"  {name:<48} {text} [{_type_name(field.type)}, default {_default(field)}]")
    return "\n".join(lines)


def config_parser(cls: type, description: Optional[str]) -> argparse.ArgumentParser:
    """The arguments of a tool that YAML files and overrides tell all: its `parse_intermixed_args`
    gives `config`, `print_config` and `overrides`."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=help_text(cls),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", action="append", help="YAML with the sections below; later ones go over earlier"
    )
    parser.add_argument("--print-config", action="store_true", help="show the resolved YAML")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value")
    return parser


def _read_overrides(overrides: Iterable[str]) -> Any:
    overrides = list(overrides)
    for text in overrides:
        if "=" not in text:
            raise UserError(
                f"override {text!r} is not of the form section.field=value; "
                f"write for example training.train_iters=100"
            )
    return OmegaConf.from_dotlist(overrides)


def _read_yaml(path: str | Path | dict[str, Any]) -> Any:
    if isinstance(path, dict):
        return OmegaConf.create(path)
    path = Path(path)
    if not path.is_file():
        raise UserError(f"config file {path} does not exist; give the path of a run's YAML file")
    try:
        loaded = OmegaConf.load(path)
    except Exception as error:  # PyYAML's and OmegaConf's errors share no base class
        raise UserError(f"config file {path} is not readable YAML: {error}") from error
    if not OmegaConf.is_dict(loaded):
        raise UserError(f"config file {path} must hold sections (key: value), not a list or text")
    return loaded


def _empty_sections(cls: type) -> dict[str, Any]:
    fields = dataclasses.fields(cls)
    return {f.name: _empty_sections(f.type) for f in fields if "section" in f.metadata}


def _build(cls: type[T], values: dict[str, Any]) -> T:
    """Builds sections first, so that a rule across sections sees them checked."""
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    return cls(
        **{
            name: _build(fields[name].type, value) if "section" in fields[name].metadata else value
            for name, value in values.items()
        }
    )


def _check_keys(cls: type, given: Any, prefix: str) -> None:
    if not isinstance(given, dict):
        if given is None:
            return
        raise UserError(
            f"{prefix.rstrip('.')} is a section; set its fields, for example "
            f"{prefix}{dataclasses.fields(cls)[0].name}=..., not {given!r}"
        )
    known = {field.name: field for field in dataclasses.fields(cls)}
    for key, value in given.items():
        if key not in known:
            raise UserError(_unknown_key(cls, f"{prefix}{key}", str(key), prefix, known))
        if dataclasses.is_dataclass(known[key].type):
            _check_keys(known[key].type, value, prefix=f"{prefix}{key}.")


def _unknown_key(cls: type, full: str, key: str, prefix: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    remedy = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}"
    return f"unknown config key {full}: {remedy} (--help lists every field)"


def _explain(error: OmegaConfBaseException) -> str:
    key = getattr(error, "full_key", None) or "config"
    message = str(error.msg if getattr(error, "msg", None) else error).splitlines()[0]
    return f"{key}: {message} (--help lists every field with its type)"


def _type_name(annotation: Any) -> str:
    if typing.get_origin(annotation) is None:
        return getattr(annotation, "__name__", str(annotation))
    return str(annotation).replace("typing.", "")


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return str(field.default)
    return str(field.default_factory())
