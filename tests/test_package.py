import subprocess
import sys
import textwrap
from pathlib import Path

import megatron_biollm

PACKAGE = Path(megatron_biollm.__file__).parent


def test_every_module_imports_where_no_gpu_kernel_is_installed():
    names = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(PACKAGE.rglob("*.py"))
    ]
    program = f"""
        import importlib, sys
        for kernel in ("apex", "transformer_engine", "flash_attn", "wandb"):
            sys.modules[kernel] = None  # what Python reads as: not there
        for name in {names}:
            importlib.import_module(name)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        check=False,
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_instant_and_imports_nothing_heavy():
    program = "import sys, megatron_biollm; print({'torch', 'numpy', 'megatron'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        timeout=60,
    )
    assert done.stdout.strip() == "set()"
