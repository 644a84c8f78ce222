"""Importing torch and megatron-core quickly, in a process that is about to use them.

Two things take longer than reading the modules themselves. Core decorates functions with
`torch.compile` as it is imported, which brings in the whole compiler (Dynamo, Inductor and what
they need), whether or not anything is ever compiled. And Python's collector looks for cycles again
and again among millions of objects that stay until the process ends.
"""

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Inside the `with`, imports collect no garbage, and `torch.compile` waits for the first call.

    What was imported is left out of later collections too (`gc.freeze`), which makes those shorter.

        with quick_imports():
            from megatron_biollm.recipes.pretrain import pretrain
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        import torch

        compile_now = torch.compile
        torch.compile = functools.partial(compile_when_called, compile_now)
        try:
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
