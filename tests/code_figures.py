"""`python tests/code_figures.py`: how the code reads, in figures. Nothing is judged by them.

Helpers are counted in services/, operator/ and loadtest/, names in tests/ as well, docstrings and
lines everywhere.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
AREAS: Final = ("services", "operator", "observability", "charts", "loadtest", "tests")
_CODE: Final = ("services", "operator", "loadtest")
# Local names that say nothing about the thing they name.
_VAGUE: Final = frozenset(
    re.findall(
        r"\w+",
        "found made given one told seen said done asked wanted known taken there what whole left "
        "shown kept heard missing looked meant gone",
    )
)
_HELPER_LINES: Final = 3
_DOCSTRING_WORDS: Final = 3


class Module(NamedTuple):
    """A Python file and its syntax tree."""

    path: Path
    text: str
    tree: ast.Module


def main() -> None:
    """Print the table of figures."""
    modules = list(_modules())
    code = [module for module in modules if module.path.relative_to(ROOT).parts[0] in _CODE]
    tests = [module for module in modules if module.path.relative_to(ROOT).parts[0] == "tests"]
    names, vague = _names(code)
    names_of_tests, vague_of_tests = _names(tests)
    rows: list[tuple[str, object]] = [
        ("local names", names.total()),
        ("of which say nothing (found, made, given, one, ...)", vague.total()),
        ("local names in tests", names_of_tests.total()),
        ("of which say nothing", vague_of_tests.total()),
        ("helpers of at most 3 lines with one caller", len(_helpers(code))),
        ("docstrings of at most 3 words", sum(map(_short_docstrings, modules))),
        ("uses of monkeypatch.setattr", sum(_patches(module) for module in modules)),
        ("files that docs/one-order.md names", len(_hops(None))),
        ("of which before the 202", len(_hops("\n| relay |"))),
    ]
    rows += [(f"lines of Python in {area}", _lines(modules, area)) for area in AREAS]
    rows += [("lines of Python", sum(module.text.count("\n") for module in modules))]
    for name, value in rows:
        sys.stdout.write(f"{name:55}{value:>8}\n")
    common = (vague + vague_of_tests).most_common(12)
    sys.stdout.write("  ".join(f"{name} {count}" for name, count in common) + "\n")
    if "--list" in sys.argv:
        sys.stdout.writelines(f"{line}\n" for line in (*_where(code + tests), *_helpers(code)))


def _modules() -> Iterator[Module]:
    for area in AREAS:
        for path in sorted((ROOT / area).rglob("*.py")):
            text = path.read_text()
            yield Module(path, text, ast.parse(text))


def _names(modules: list[Module]) -> tuple[Counter[str], Counter[str]]:
    """Count the local names, and those of them that say nothing."""
    names = Counter(name for module in modules for name in _local_names(module.tree))
    return names, Counter({name: names[name] for name in names.keys() & _VAGUE})


def _local_names(tree: ast.AST) -> Iterator[str]:
    """Yield each parameter and each name that a function binds, once per function."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            bound = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
            if not isinstance(function, ast.Lambda):
                bound |= {
                    node.id
                    for node in ast.walk(function)
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
                }
            yield from bound


def _where(modules: list[Module]) -> Iterator[str]:
    """Name the files by how many vague names they have."""
    for module in modules:
        vague = Counter(name for name in _local_names(module.tree) if name in _VAGUE)
        if vague:
            yield f"{module.path.relative_to(ROOT)}: {dict(vague)}"


def _helpers(modules: list[Module]) -> list[str]:
    """Name private functions of at most three lines that their file calls once.

    Those handed on as a callback, and overridden methods, cannot be put into their caller.
    """
    short = []
    for module in modules:
        for function in ast.walk(module.tree):
            if not isinstance(function, ast.FunctionDef) or not function.name.startswith("_"):
                continue
            body = function.body[isinstance(function.body[0], ast.Expr) :]
            lines = function.end_lineno or 0
            mentions = len(re.findall(rf"\b{function.name}\b", module.text))
            calls = len(re.findall(rf"(?<!def )\b{function.name}\(", module.text))
            once = mentions == 1 + 1 and calls == 1
            if body and once and lines - body[0].lineno < _HELPER_LINES:
                short.append(f"{module.path.relative_to(ROOT)}: {function.name}")
    return [name for name in short if "__" not in name]


def _short_docstrings(module: Module) -> int:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(module.tree) if isinstance(node, documented))
    texts = (ast.get_docstring(node) for node in nodes)
    return sum(text is not None and len(text.split()) <= _DOCSTRING_WORDS for text in texts)


def _patches(module: Module) -> int:
    return 0 if module.path == Path(__file__) else module.text.count("monkeypatch.setattr")


def _lines(modules: list[Module], area: str) -> int:
    return sum(
        module.text.count("\n")
        for module in modules
        if module.path.relative_to(ROOT).parts[0] == area
    )


def _hops(end: str | None) -> set[str]:
    """Return the files that the page about one order names before `end`, from POST to webhook."""
    rows = (ROOT / "docs/one-order.md").read_text().partition("\n| gateway |")[2]
    return set(re.findall(r"[\w/]+\.(?:py|sql|conf|lua)\b", rows.split(end)[0] if end else rows))


if __name__ == "__main__":
    main()
