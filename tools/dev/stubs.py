"""Keep python/penstock/_core.pyi in agreement with the module that it describes.

Types are written by hand, as what nanobind knows of them is `object`. Everything else is the
module's word: which names there are, what their parameters are called and which of them have a
default, and the docstrings, which stand in the bindings and are copied from there. Classes of
statistics are the module's word altogether.

    stubs.py            writes the docstrings into the stub, and tells what it can't mend
    stubs.py --check    only tells
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

STUB = Path(__file__).resolve().parents[2] / "python" / "penstock" / "_core.pyi"
WIDTH = 100
Function = ast.FunctionDef


def overloads(bound: Any) -> list[tuple[str, str | None]]:
    """Signature and docstring of each overload, as nanobind has them."""
    getter = bound.fget if isinstance(bound, property) else bound
    return [(one[0], one[1]) for one in getattr(getter, "__nb_signature__", ())]


def docstring_of(bound: Any) -> str | None:
    if isinstance(bound, property):
        is_said = bound.__doc__ and not bound.__doc__.startswith("(self)")  # the getter's signature
        return bound.__doc__ if is_said else None
    if isinstance(bound, type):
        return bound.__dict__.get("__doc__")
    return next((doc for _, doc in overloads(bound) if doc), None)


def paragraphs(text: str) -> list[str]:
    """Each paragraph in one line: line breaks differ between files."""
    return [" ".join(one.split()) for one in inspect.cleandoc(text).split("\n\n")]


def written(text: list[str], indent: int) -> list[str]:
    """The lines of a docstring."""
    room = WIDTH - indent
    first, *rest = text
    if not rest and len(first) <= room - 6:
        return [" " * indent + f'"""{first}"""']
    # A single line without room for the closing quotes becomes two.
    lines = textwrap.wrap(first, room if rest else room - 3, initial_indent="###")
    lines[0] = '"""' + lines[0][3:]
    for one in rest:
        lines += ["", *textwrap.wrap(one, room)]
    return [(" " * indent + line).rstrip() for line in [*lines, '"""']]


def statistics(bound: Any) -> list[str]:
    """The body of a class that follows from a table of statistics."""
    lines = [*written(paragraphs(bound.__doc__), 4), ""]
    for name, _, _, type_name, words in bound._table:
        lines += [f"    {name}: {type_name}", *written([words], 4)]
    lines += ["    _table: ClassVar[tuple[tuple[str, str, str, str, str], ...]]"]
    lines += ["    _metrics: ClassVar[str]"]
    return [*lines, "    def asdict(self) -> dict[str, Any]: ..."]


def parameters(signature: ast.arguments) -> list[tuple[str, bool, bool]]:
    """For each parameter its name, whether it is keyword-only, and whether it is optional."""
    positional = [*signature.posonlyargs, *signature.args]
    required = len(positional) - len(signature.defaults)
    found = [(one.arg, False, at >= required) for at, one in enumerate(positional)]
    pairs = zip(signature.kwonlyargs, signature.kw_defaults, strict=True)
    found += [(one.arg, True, default is not None) for one, default in pairs]
    return [(name, *rest) for name, *rest in found if name != "self"]  # type: ignore[misc]


def parameters_of(signature: str) -> list[tuple[str, bool, bool]]:
    text = re.sub(r"\\\d+", "...", signature)  # nanobind's form of a default
    text = re.sub(r"ndarray\[[^]]*\]", "ndarray", text)
    (function,) = ast.parse(text + ": ...").body
    assert isinstance(function, Function)
    return parameters(function.args)


def members(scope: Any) -> Iterator[tuple[str, Any]]:
    """What the module binds in a class, or at the top level."""
    for name, bound in vars(scope).items():
        is_class = isinstance(bound, type) and isinstance(scope, ModuleType)
        if is_class or isinstance(bound, property) or hasattr(bound, "__nb_signature__"):
            yield name, bound


class Comparison:
    """Comparison of the stub with the module; `edits` are line ranges and their replacements."""

    def __init__(self, text: str, module: ModuleType) -> None:
        self.lines = text.splitlines()
        self.faults: list[str] = []
        self.edits: list[tuple[int, int, list[str]]] = []
        self._compare(ast.parse(text).body, module, "")

    def _compare(self, body: list[ast.stmt], scope: Any, title: str) -> None:
        written: dict[str, list[Any]] = {}
        for node in body:
            if isinstance(node, Function | ast.ClassDef):
                written.setdefault(node.name, []).append(node)
        bound = dict(members(scope))
        for name, nodes in written.items():
            if name in bound:
                self._compare_one(nodes, bound[name], title + name)
            elif (
                not _is_only_a_type(nodes[0]) and name != "__buffer__" and not hasattr(scope, name)
            ):
                self.faults.append(f"{title}{name} is not in the module")
        for name in bound:
            if name not in written and not _is_internal(name, scope):
                self.faults.append(f"{title}{name} is not in the stub")

    def _compare_one(self, nodes: list[Any], bound: Any, title: str) -> None:
        if hasattr(bound, "_table"):
            self._compare_statistics(nodes[0].body, statistics(bound), title)
            return
        if isinstance(bound, type):
            self._compare(nodes[0].body, bound, title + ".")
        elif not isinstance(bound, property) and not title.endswith("__exit__"):
            told = [parameters(node.args) for node in nodes]
            # An overload that takes anything only raises an explanation.
            ways_in = [one for one, _ in overloads(bound) if "*args" not in one]
            true = [parameters_of(signature) for signature in ways_in]
            named = [one for one in true if not any(name.startswith("arg") for name, *_ in one)]
            if named and told != true:
                self.faults.append(f"{title} has the parameters {true}, and the stub says {told}")
        self._compare_docstring(nodes[0], docstring_of(bound), title)

    def _compare_statistics(self, body: list[ast.stmt], true: list[str], title: str) -> None:
        at, end = body[0].lineno - 1, body[-1].end_lineno or body[-1].lineno
        if self.lines[at:end] != true:
            self.faults.append(f"{title} has other statistics in the stub")
            self.edits.append((at, end, true))

    def _compare_docstring(self, node: Any, true: str | None, title: str) -> None:
        wanted = paragraphs(true) if true else None
        has_one = ast.get_docstring(node) is not None
        if wanted == (paragraphs(ast.get_docstring(node) or "") if has_one else None):
            return
        self.faults.append(f"{title} has another docstring in the stub")
        if wanted is None:
            return  # described in the bindings only
        first = node.body[0]
        at, end = first.lineno - 1, first.end_lineno or first.lineno
        text = written(wanted, node.col_offset + 4)
        if has_one or self.lines[at].strip() == "...":
            self.edits.append((at, end, text))
        elif isinstance(node, ast.ClassDef):
            decorators = getattr(first, "decorator_list", [])
            at = min([at, *(one.lineno - 1 for one in decorators)])
            self.edits.append((at, at, [*text, ""]))
        else:  # "...", behind the colon
            before = self.lines[at][: first.col_offset].rstrip()
            self.edits.append((at, at + 1, [before, *text, ""]))

    def mended(self) -> str:
        for start, stop, text in sorted(self.edits, reverse=True):
            self.lines[start:stop] = text
        return "\n".join(self.lines) + "\n"


def _is_only_a_type(node: Any) -> bool:
    """Whether it is a TypedDict or the like, of which the module knows nothing."""
    return isinstance(node, ast.ClassDef) and bool(node.bases) and node.name.startswith("_")


def _is_internal(name: str, scope: Any) -> bool:
    """Memory that arrays keep alive, and attributes that every class has."""
    is_class = isinstance(scope, ModuleType) and isinstance(getattr(scope, name), type)
    return (is_class and name.startswith("_")) or name in ("__new__", "__init__")


def main(arguments: list[str]) -> int:
    from penstock import _core

    comparison = Comparison(STUB.read_text(encoding="utf-8"), _core)
    print("\n".join(comparison.faults) or "the stub says what the module does")
    if "--check" not in arguments:
        STUB.write_text(comparison.mended(), encoding="utf-8")
    return 1 if comparison.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
