"""The house rules, read from the imports of every file: who may import whom, and who names what."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "megatron_biollm"

SERVES_EVERY_ROOM = {"config", "log", "device", "atomic", "rows", "imports"}

# The other rooms that a room may import; it always may import itself.
MAY_IMPORT = {
    "corpus": set(),
    "tokenizer": set(),
    "data": {"tokenizer"},
    "model": set(),
    "parallel": {"model"},
    "training": {"data", "parallel"},
    "checkpoint": {"model", "parallel", "training"},
    "conversion": {"tokenizer", "model", "checkpoint"},
    "generation": {"tokenizer", "parallel"},
    "finetune": {"tokenizer", "data", "training"},
    "evaluation": {"tokenizer", "parallel", "generation"},
    "feedback": set(),
    "planner": {"model", "parallel"},
    "rehearsal": {"model", "parallel", "planner", "training", "checkpoint"},
    "launch": {"parallel", "planner"},
}
ROOMS_MEET_IN = "recipes"
SERVICES_MAY_IMPORT = {
    "config": set(),
    "atomic": {"config"},
    "rows": set(),
    "imports": set(),
    "log": {"config", "atomic", "rows"},
    "device": {"config", "log"},
}

# The only files that import megatron-core.
CORE_FILES = {
    "device/cpu.py",
    "device/cuda.py",
    "data/indexed.py",
    "data/gpt_dataset.py",
    "model/spec.py",
    "model/gpt.py",
    "model/lora.py",
    "model/scalar_head.py",
    "parallel/process_groups.py",
    "parallel/parallelize.py",
    "training/optimizer.py",
    "training/rows.py",
    "training/step.py",
    "checkpoint/content.py",
    "checkpoint/loading.py",
    "rehearsal/checkpoint_plan.py",
    "rehearsal/gpu_kernels.py",
    "rehearsal/rank.py",
    "rehearsal/saves.py",
    "checkpoint/sharded.py",
    "checkpoint/writer.py",
    "generation/forward.py",
    "recipes/benchmarks/data_peer.py",
    "recipes/benchmarks/startup_peer.py",
}

OPTIONAL_KERNELS = {"transformer_engine", "flash_attn", "apex"}
MUTATORS = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem",
    "remove", "setdefault", "sort", "update",
}  # fmt: skip


def package_files() -> list[str]:
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def tool_files() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("tools/*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every dotted name that is imported anywhere in the file, and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from ((f"{prefix}.{alias.name}", node.lineno) for alias in node.names)


def is_core(name: str) -> bool:
    return name == "megatron" or name.startswith("megatron.")


def room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def rooms_imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for name, line in imports(tree):
        parts = name.split(".")
        if parts[0] == "megatron_biollm" and len(parts) > 1 and parts[1] != "__version__":
            yield parts[1], line


@pytest.mark.parametrize("file", package_files())
def test_a_room_imports_only_rooms_above_it(file):
    if room(file) == ROOMS_MEET_IN:
        return
    own = room(file)
    allowed = SERVICES_MAY_IMPORT.get(own, MAY_IMPORT.get(own, set()) | SERVES_EVERY_ROOM) | {own}
    uphill = [
        f"{file}:{line} imports {other}; {own} may import {', '.join(sorted(allowed - {own}))}"
        for other, line in rooms_imported(parse(PACKAGE / file))
        if other not in allowed
    ]
    assert not uphill, "\n".join(uphill)


def test_every_room_has_its_rule():
    known = {*MAY_IMPORT, *SERVICES_MAY_IMPORT, ROOMS_MEET_IN, "__init__"}
    assert {room(file) for file in package_files()} <= known


@pytest.mark.parametrize("file", package_files())
def test_megatron_core_is_imported_at_the_edge_only(file):
    lines = [line for name, line in imports(parse(PACKAGE / file)) if is_core(name)]
    assert file in CORE_FILES or not lines, f"{file} imports megatron-core in lines {lines}"


@pytest.mark.parametrize("file", sorted(CORE_FILES & set(package_files())))
def test_the_list_of_files_at_the_edge_is_true(file):
    assert any(is_core(name) for name, _ in imports(parse(PACKAGE / file)))


@pytest.mark.parametrize("file", tool_files())
def test_a_tool_leaves_megatron_core_to_the_package(file):
    lines = [line for name, line in imports(parse(ROOT / file)) if is_core(name)]
    assert not lines, f"{file} imports megatron-core in lines {lines}; call the package"


@pytest.mark.parametrize("file", [f for f in package_files() if room(f) != "device"])
def test_only_the_device_room_calls_cuda(file):
    found = list(cuda_calls(parse(PACKAGE / file)))
    assert not found, f"{file}: {found}; ask the Device for it"


def cuda_calls(tree: ast.AST) -> Iterator[str]:
    """Uses of torch.cuda, moves to the GPU, and the NCCL back end by its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.cuda":
            yield f"line {node.lineno}: torch.cuda"
        if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "cuda":
            yield f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Constant) and node.value == "nccl":
            yield f"line {node.lineno}: {node.value!r}"
    for name, line in imports(tree):
        if name.startswith("torch.cuda"):
            yield f"line {line}: import {name}"


@pytest.mark.parametrize("file", package_files())
def test_imports_are_absolute(file):
    relative = [line for name, line in imports(parse(PACKAGE / file)) if name.startswith(".")]
    assert not relative, f"{file} has relative imports in lines {relative}"


@pytest.mark.parametrize("file", package_files())
def test_no_optional_kernel_is_imported_with_the_module(file):
    top_level = ast.Module([n for n in parse(PACKAGE / file).body if is_import(n)], [])
    assert not [name for name, _ in imports(top_level) if name.split(".")[0] in OPTIONAL_KERNELS]


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize("file", package_files())
def test_state_is_passed_and_not_kept_in_the_module(file):
    found = list(module_state(parse(PACKAGE / file)))
    assert not found, f"{file}: {found}"


def module_state(tree: ast.Module) -> Iterator[str]:
    """`global` statements, Megatron-LM's get_args(), module-level names changed in functions."""
    names = {target.id for target in module_targets(tree)}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        shared = names - local_names(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                yield f"line {node.lineno}: global {', '.join(node.names)}"
            if isinstance(node, ast.Call) and ast.unparse(node) == "get_args()":
                yield f"line {node.lineno}: get_args()"
            if changed_name(node) in shared:
                yield f"line {node.lineno}: {ast.unparse(node)}"


def module_targets(tree: ast.Module) -> Iterator[ast.Name]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (target for target in targets if isinstance(target, ast.Name))


def local_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    arguments = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    stores = (n for n in ast.walk(function) if isinstance(n, ast.Name))
    return arguments | {node.id for node in stores if isinstance(node.ctx, ast.Store)}


def changed_name(node: ast.AST) -> str | None:
    """The name that `node` changes in place: `name[...] = x`, `del name[...]`, `name.append(x)`."""
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        value = node.value
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in MUTATORS
    ):
        value = node.func.value
    else:
        return None
    return value.id if isinstance(value, ast.Name) else None


def test_the_package_itself_imports_nothing():
    assert not list(imports(parse(PACKAGE / "__init__.py")))


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ("CACHE = {}\ndef f(x):\n    CACHE[x] = 1", "line 3: CACHE[x]"),
        ("SEEN = []\ndef f(x):\n    SEEN.append(x)", "line 3: SEEN.append(x)"),
        ("X = 1\ndef f():\n    global X\n    X = 2", "line 3: global X"),
        ("def f():\n    return get_args().seed", "line 2: get_args()"),
    ],
)
def test_the_check_for_module_state_finds_it(source, finding):
    assert finding in list(module_state(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "TABLE = {'a': 1}\ndef f(x):\n    return TABLE[x]",
        "SEEN = []\ndef f(SEEN):\n    SEEN.append(1)",
        "def f(t):\n    return typing.get_args(t)",
    ],
)
def test_the_check_for_module_state_lets_constants_be(source):
    assert list(module_state(ast.parse(source))) == []
