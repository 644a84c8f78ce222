"""Every benchmark that the tool names is there: its options, its function and its table."""

import importlib
import re

from tests.distributed import ROOT

SOURCE = (ROOT / "tools" / "benchmark.py").read_text(encoding="utf-8")


def recipe(name):
    return importlib.import_module(f"megatron_biollm.recipes.benchmarks.{name}")


def test_what_the_commands_measure_is_there():
    found = re.findall(r'"(\w+):(\w+):(\w+)"', SOURCE)
    assert len(found) >= 10
    for module, options, function in found:
        assert callable(getattr(recipe(module), options))
        assert callable(getattr(recipe(module), function))


def test_the_tables_that_they_show_are_there():
    shown = re.findall(
        r'measure\(args, as_json, (?:"\w+:\w+:\w+"|names)(?:, "([\w:]+)")?\)', SOURCE
    )
    assert len(shown) >= 10
    modules = re.findall(r'"(\w+):\w+:\w+"', SOURCE)
    for show, module in zip(shown, modules, strict=True):
        assert callable(recipe(show or module).table)
