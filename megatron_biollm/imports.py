"""Importing torch and megatron-core quickly, in a process that is about to use them.

Some things take longer than reading the modules themselves. Core decorates functions with
`torch.compile` as it is imported, which brings in the whole compiler (Dynamo, Inductor and what
they need), whether or not anything is ever compiled. Some modules are imported for a name that is
hardly ever used (`SELDOM_USED`). And Python's collector looks for cycles again and again among
millions of objects that stay until the process ends.
"""

import contextlib
import functools
import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

# torch's DTensor asks for three names of the first, which brings in sympy; core for the class of a
# writer, to recognise one that its timers are given.
SELDOM_USED = ("torch.fx.experimental.symbolic_shapes", "torch.utils.tensorboard")


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Inside the `with`, imports collect no garbage, `torch.compile` waits for the first call, and
    modules that are seldom used for their first use.

    What was imported is left out of later collections too (`gc.freeze`), which makes those shorter.
    torch is told what it asks for as it is imported: to lay large tensors of the host on huge pages
    (Linux). Steps are as fast without; but a checkpoint in the background forks the process, and
    that copies an entry for each page.

        with quick_imports():
            from megatron_biollm.recipes.pretrain import pretrain
    """
    collecting = gc.isenabled()
    gc.disable()
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        import torch

        compile_now = torch.compile
        torch.compile = functools.partial(compile_when_called, compile_now)
        try:
            with contextlib.ExitStack() as put_off:
                for name in SELDOM_USED:
                    put_off.enter_context(imported_when_used(name))
                yield
        finally:
            torch.compile = compile_now
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def compile_when_called(
    compile_now: Callable[..., Any], model: Any = None, **options: Any
) -> Callable[..., Any]:
    """`torch.compile` of a plain function, put off until it is first called; the same otherwise.

    Args:
        compile_now: `torch.compile`.
        model: a function; what is anything else is handed to `compile_now` at once.
        options: of `torch.compile`.
    """
    if model is None:  # used as a decorator with options
        return functools.partial(compile_when_called, compile_now, **options)
    if not isinstance(model, FunctionType):
        return compile_now(model, **options)
    compiled = None

    @functools.wraps(model)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal compiled
        from torch.compiler import is_compiling

        # Traced as a part of what is compiled around it, as a compiled function would be.
        if is_compiling():
            return model(*args, **kwargs)
        if compiled is None:
            compiled = compile_now(model, **options)
        return compiled(*args, **kwargs)

    return call


@contextlib.contextmanager
def imported_when_used(name: str) -> Iterator[None]:
    """Inside the `with`, `from module import a, B` gives stand-ins for functions and classes.

    A stand-in imports the module when it is called. Until then no object of its classes exists, so
    that nothing is an instance of a stand-in, and no exception is one. Once the module has been
    imported, by anybody, whoever had stand-ins has what they stood for.

    Args:
        name: of the module; nothing is put off if it is there already.
    """
    if name in sys.modules:
        yield
        return
    postponed = _Postponed(name)
    sys.modules[name] = postponed
    sys.meta_path.insert(0, _GivesWhenImported(postponed))
    try:
        yield
    finally:
        postponed.step_aside()


class _Postponed(ModuleType):
    """Stands in `sys.modules` for a module, whose names it has stand-ins for."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._given: list[tuple[dict[str, Any], str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        stand_in = _class_of(self, name) if name[0].isupper() else _function_of(self, name)
        self._given.append((sys._getframe(1).f_globals, name, stand_in))
        return stand_in

    def step_aside(self) -> None:
        """Later imports are of the module itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]

    def real(self, name: str) -> Any:
        """What a name stands for; imports the module."""
        self.step_aside()
        return getattr(importlib.import_module(self.__name__), name)

    def give(self, module: ModuleType) -> None:
        """Puts what they stand for into the places of stand-ins."""
        for namespace, name, stand_in in self._given:
            if namespace.get(name) is stand_in:
                namespace[name] = getattr(module, name)


class _GivesWhenImported:
    """A finder (`sys.meta_path`) that leaves finding to the others, and notices the import."""

    def __init__(self, postponed: _Postponed) -> None:
        self.postponed = postponed

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.postponed.__name__:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_give(module: ModuleType) -> None:
            execute(module)
            self.postponed.give(module)

        spec.loader.exec_module = execute_and_give
        return spec


def _function_of(module: _Postponed, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return module.real(name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    return call


def _class_of(module: _Postponed, name: str) -> type:
    """Of exceptions, so that it may stand in an `except`."""

    def make(cls: type, *args: Any, **kwargs: Any) -> Any:
        return module.real(name)(*args, **kwargs)

    return type(name, (Exception,), {"__new__": make})
