"""Importing quickly changes when things are done, and not what they do."""

import gc
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron_biollm.imports import compile_when_called, imported_when_used, quick_imports


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


ON_HUGE_PAGES = """
from pathlib import Path
from megatron_biollm.imports import quick_imports
with quick_imports():
    import torch
tensor = torch.ones(2**26)
for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
    if line.startswith("AnonHugePages"):
        print(int(line.split()[1]) * 1024 / tensor.nbytes)
"""
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not THP.is_file() or "[madvise]" not in THP.read_text(),
    reason="this kernel has huge pages for everybody, or for nobody",
)
@pytest.mark.parametrize(("asked", "wanted"), [({}, True), ({"THP_MEM_ALLOC_ENABLE": "0"}, False)])
def test_large_tensors_lie_on_huge_pages_unless_the_user_says_otherwise(asked, wanted, monkeypatch):
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    told = subprocess.run(
        [sys.executable, "-c", ON_HUGE_PAGES], env=os.environ | asked, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (float(told.stdout) > 0.5) == wanted


LATE = "sometimes_wanted"


@pytest.fixture
def late(tmp_path, monkeypatch):
    """A module on the path that counts in `sys.modules` only once it is imported."""
    (tmp_path / f"{LATE}.py").write_text(
        "class Trouble(Exception): ...\n"
        "class Thing:\n    def __init__(self, size): self.size = size\n"
        "def double(x): return 2 * x\n"
        "def fail(): raise Trouble('now')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop(LATE, None)


def taken():
    """What a module has that imported from it meanwhile."""
    namespace = {}
    with imported_when_used(LATE):
        exec(f"from {LATE} import Thing, Trouble, double", namespace)
    assert LATE not in sys.modules
    return namespace


def test_a_module_is_imported_when_a_function_of_it_is_called(late):
    namespace = taken()
    stand_in = namespace["double"]
    assert stand_in(4) == 8
    module = sys.modules[LATE]
    assert [namespace[name] for name in ("double", "Thing", "Trouble")] == [
        module.double,
        module.Thing,
        module.Trouble,
    ]
    assert stand_in(5) == 10


def test_an_object_is_of_the_real_class(late):
    stand_in = taken()["Thing"]
    thing = stand_in(3)
    assert thing.size == 3 and type(thing) is sys.modules[LATE].Thing


def test_nothing_is_an_instance_until_somebody_imports_the_module(late):
    namespace = taken()
    assert not isinstance(3, namespace["Thing"])
    with pytest.raises(KeyError):
        exec("try:\n    {}[1]\nexcept Trouble:\n    pass", namespace)
    module = importlib.import_module(LATE)
    assert isinstance(module.Thing(1), namespace["Thing"])
    exec(
        "from sometimes_wanted import fail\ntry:\n    fail()\nexcept Trouble:\n    pass", namespace
    )


def test_a_module_that_is_there_is_not_put_off(late):
    module = importlib.import_module(LATE)
    with imported_when_used(LATE):
        assert importlib.import_module(LATE) is module
    assert sys.modules[LATE] is module
