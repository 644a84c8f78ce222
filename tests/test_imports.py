"""Importing quickly changes when things are done, and not what they do."""

import gc
import importlib

import pytest
import torch

from megatron_biollm.imports import compile_when_called, quick_imports


def double(x):
    """Twice x."""
    return x * 2


class Compiler:
    """Stands for `torch.compile`: notes what it is given."""

    def __init__(self):
        self.given = []

    def __call__(self, model, **options):
        self.given.append((model, options))
        return model


@pytest.fixture
def compiler():
    return Compiler()


def test_a_function_is_compiled_at_its_first_call_and_once(compiler):
    function = compile_when_called(compiler, double)
    assert compiler.given == []
    assert [function(2), function(3)] == [4, 6]
    assert compiler.given == [(double, {})]
    assert function.__doc__ == "Twice x."


def test_options_reach_the_compiler(compiler):
    function = compile_when_called(compiler, dynamic=True)(double)
    assert function(1) == 2
    assert compiler.given == [(double, {"dynamic": True})]


def test_what_is_no_plain_function_is_compiled_at_once(compiler):
    layer = torch.nn.Linear(2, 2)
    assert compile_when_called(compiler, layer) is layer
    assert compiler.given == [(layer, {})]


def test_inside_a_compiled_function_it_is_a_part_of_it():
    inner = compile_when_called(torch.compile, double)

    @torch.compile(backend="eager", fullgraph=True)
    def outer(x):
        return inner(x) + 1

    assert outer(torch.tensor(3.0)) == 7


def test_afterwards_torch_and_the_collector_are_as_before():
    before = torch.compile
    with pytest.raises(ModuleNotFoundError), quick_imports():
        importlib.import_module("no_such_module")
    assert gc.isenabled() and torch.compile is before


def test_meanwhile_the_collector_rests_and_nothing_is_compiled():
    before = torch.compile
    with quick_imports():
        assert not gc.isenabled() and torch.compile is not before
    assert gc.isenabled() and torch.compile is before
