"""The design's rules that a machine can hold: import directions, cycles, budgets, purity of imports."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("lib_controlnet", "annotator", "scripts", "standalone")

ALLOWED = {
    "core": set(),
    "nets": {"core"},
    "loading": {"core"},
    "families": {"core", "nets", "loading"},
    "engine": {"core", "nets", "loading", "families", "measure"},
    "measure": {"core"},
    "training": {"core", "nets", "loading", "families", "measure", "engine"},
    "webapi": {"core", "nets", "loading", "families", "measure", "engine"},
    "compat": {"core", "nets", "loading", "families", "measure", "engine"},
    "ui": {"core", "nets", "loading", "families", "measure", "engine"},
    "hosts": {"core", "nets", "loading", "families", "measure", "engine", "webapi", "compat", "ui", "training"},
}
"""Layer of lib_controlnet -> the other layers it may import. A new layer has to be placed here."""

MAY_IMPORT_HOST = ("lib_controlnet/hosts/", "lib_controlnet/ui/", "lib_controlnet/compat/", "scripts/", "standalone/")
MAX_FILE, MAX_FUNCTION, MAX_NESTING = 400, 60, 3
NESTING = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith)


class Import(NamedTuple):
    """One import statement, resolved to a dotted name from the repository's root where it is relative."""

    source: Path
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.source.relative_to(ROOT)}:{self.line} imports {self.target}"


@cache
def tracked() -> tuple[Path, ...]:
    """Files of the repository, without what is ignored; those not yet added count too."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return tuple(path for path in (ROOT / name for name in names) if path.is_file())


@cache
def product() -> tuple[Path, ...]:
    """Python files that ship, tests apart."""
    top = {ROOT / name for name in PRODUCT}
    return tuple(f for f in tracked() if f.suffix == ".py" and (f.parent == ROOT or top & set(f.parents)))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes, without what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child):
            yield child
            yield from walk(child)


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """Everything that `path` imports when it runs, functions included; `from . import x` gives the x's."""
    package = module_name(path).split(".") if path.name == "__init__.py" else module_name(path).split(".")[:-1]
    found: list[Import] = []
    for node in walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [Import(path, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *filter(None, [node.module])])
            found += [Import(path, node.lineno, f"{stem}.{alias.name}" if stem else alias.name) for alias in node.names]
    return tuple(found)


def layer(name: str) -> str | None:
    """Layer of lib_controlnet that a dotted name lies in."""
    parts = name.split(".")
    return parts[1] if parts[0] == "lib_controlnet" and len(parts) > 1 else None


def test_every_layer_has_its_place():
    layers = {path.relative_to(ROOT / "lib_controlnet").parts[0] for path in product() if layer(module_name(path))}
    assert layers <= set(ALLOWED)


def test_layers_import_downwards_only():
    wrong = [
        str(use)
        for path in product()
        for use in imports(path)
        if (source := layer(module_name(path)))
        and (target := layer(use.target))
        and target != source
        and target not in ALLOWED[source]
    ]
    assert wrong == []


def test_annotator_stands_alone_and_is_passed_in():
    forbidden = {"annotator": "lib_controlnet", "lib_controlnet": "annotator"}
    wrong = [
        str(use)
        for path in product()
        for use in imports(path)
        if forbidden.get(path.relative_to(ROOT).parts[0]) == use.target.split(".")[0]
    ]
    assert wrong == []


def test_only_host_code_imports_a_host():
    hosts = {"modules", "modules_forge", "backend", "ldm_patched", "launch", "scripts"}
    wrong = [
        str(use)
        for path in product()
        for use in imports(path)
        if use.target.split(".")[0] in hosts
        and path.parent != ROOT
        and not path.relative_to(ROOT).as_posix().startswith(MAY_IMPORT_HOST)
    ]
    assert wrong == []


def test_mounted_packages_import_relatively():
    """In a host they are mounted under private names: an absolute import would find the host's own package."""
    own = {"lib_controlnet", "annotator"}
    wrong = []
    for path in product():
        if path.relative_to(ROOT).parts[0] not in own:
            continue
        for node in ast.walk(tree(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            wrong += [f"{path.relative_to(ROOT)}:{node.lineno} {n}" for n in names if n.split(".")[0] in own]
    assert wrong == []


def test_no_package_file_at_the_top():
    """An `__init__.py` there would hide the package of the same name that Forge ships."""
    assert [name for name in ("lib_controlnet", "annotator") if (ROOT / name / "__init__.py").exists()] == []


def graph() -> dict[str, set[str]]:
    """Module -> modules of the same kind that it imports while it is itself imported."""
    names = {module_name(path): path for path in product() if path.relative_to(ROOT).parts[0] in PRODUCT[:2]}

    def known(target: str) -> str | None:
        while target and target not in names:
            target = target.rpartition(".")[0]
        return target or None

    edges: dict[str, set[str]] = {}
    for name, path in names.items():
        inner = {id(n) for f in ast.walk(tree(path)) if isinstance(f, FUNCTIONS) for n in ast.walk(f)}
        lines = {n.lineno for n in ast.walk(tree(path)) if isinstance(n, IMPORTS) and id(n) in inner}
        targets = {known(use.target) for use in imports(path) if use.line not in lines}
        edges[name] = {target for target in targets if target and target != name}
    return edges


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPORTS = (ast.Import, ast.ImportFrom)


def test_no_import_cycle():
    edges, done, cycles = graph(), set(), []

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            cycles.append(" -> ".join([*trail[trail.index(name) :], name]))
        elif name not in done:
            for target in sorted(edges[name]):
                visit(target, [*trail, name])
            done.add(name)

    assert edges, "nothing was looked at"
    for name in sorted(edges):
        visit(name, [])
    assert cycles == []


def test_files_are_short():
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in product()}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MAX_FILE} == {}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, FUNCTIONS):
            yield node


def test_functions_are_short():
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": length
        for path in product()
        for node in functions(path)
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION
    }
    assert long == {}


def nesting(node: ast.AST, kinds: tuple[type[ast.AST], ...], depth: int = 0) -> int:
    """Deepest statement of `kinds` below `node`; an elif is as deep as its if, an inner function starts anew."""
    deepest = depth
    for field, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        for child in (c for c in children if isinstance(c, ast.AST) and not isinstance(c, FUNCTIONS)):
            both = isinstance(node, ast.If) and isinstance(child, ast.If)
            is_elif = both and field == "orelse" and children == [child]
            deepest = max(deepest, nesting(child, kinds, depth + (isinstance(child, kinds) and not is_elif)))
    return deepest


def nesting_kinds(path: Path) -> tuple[type[ast.AST], ...]:
    """In files that lay out a page, `with` is the page's own structure (`with gr.Row():`)."""
    is_page = path.parent.name == "ui" or path.stem.split("_")[0] == "ui"
    return tuple(kind for kind in NESTING if not (is_page and kind is ast.With))


def test_functions_are_flat():
    deep = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": depth
        for path in product()
        for node in functions(path)
        if (depth := nesting(node, nesting_kinds(path))) > MAX_NESTING
    }
    assert deep == {}


def test_no_global_statement():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in product()
        if ROOT / "standalone" / "modules" not in path.parents  # a host's surface has the host's globals
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Global)
    ]
    assert found == []


HOME_PATHS = re.compile(r"(?<![\w.])/(?:work|root|tmp/\w+)/[\w.]|(?<!\w)[A-Z]:\\\\?Users\\(?!me\b)", re.ASCII)


def test_no_path_of_somebodys_machine():
    text = {".py", ".md", ".js", ".css", ".toml", ".txt", ".in", ".json", ".yaml", ".yml", ""}
    found = []
    for path in (p for p in tracked() if p.suffix in text and p != Path(__file__)):
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
            if HOME_PATHS.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert found == []


IMPORT_ALL = """
import importlib, sys
sys.path.insert(0, {root!r})
failed = {{}}
for name in {names!r}:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = repr(error)
import torch
assert not failed, failed
assert not torch.cuda.is_initialized()
found = [m for m in sys.modules if m.split('.')[0] in ('modules', 'scripts', 'diffusers', 'transformers')]
assert not found, found
"""


def test_modules_import_without_a_host():
    """In one fresh process, alphabetically: no host, no heavy library, no device is touched by importing."""
    names = sorted(module_name(path) for path in product() if path.relative_to(ROOT).parts[0] in PRODUCT[:2])
    assert {name.split(".")[0] for name in names} == set(PRODUCT[:2])
    code = IMPORT_ALL.format(root=str(ROOT), names=names)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]


def heavy_at_import() -> list[str]:
    """Modules that run a call at import whose result is thrown away: work, not definitions."""
    found = []
    for path in product():
        if path.relative_to(ROOT).parts[0] not in PRODUCT[:2]:
            continue
        for node in tree(path).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)[:80]}")
    return found


def test_no_work_at_import():
    assert heavy_at_import() == []
