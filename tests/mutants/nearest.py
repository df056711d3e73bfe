"""What stands near a mutant: test files by imports, lines of the core by a constant's name."""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

from faults import PACKAGES, ROOT, Mutant, files_of

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def imports_of(file: Path) -> set[str]:
    """Our modules and test helpers that a file imports, as paths of the checkout."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    paths = set()
    for name in names:
        candidates = [f"tests/helpers/{name}.py"]
        if name.startswith("ropewalk."):
            stem = name.removeprefix("ropewalk.").replace(".", "/")
            candidates += [f"{stem}.py", f"{stem}/__init__.py"]
        paths |= {candidate for candidate in candidates if (ROOT / candidate).is_file()}
    return paths


class Nearest:
    """Which test files stand nearest to a module: its mirror, its importers, their importers."""

    def __init__(self) -> None:
        folders = (*PACKAGES, "tests")
        files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
        self.imports = {str(file.relative_to(ROOT)): imports_of(file) for file in files}
        self.tests = [name for name in self.imports if re.search(r"(^|/)test_[^/]*\.py$", name)]

    def distance(self, test: str, module: str, limit: int = 3) -> int:
        """Imports from the test file to the module, at most `limit`."""
        reached, frontier = {test}, {test}
        for step in range(1, limit):
            frontier = {name for file in frontier for name in self.imports.get(file, ())} - reached
            if module in frontier:
                return step
            reached |= frontier
        return limit

    def test_files(self, module: str) -> list[str]:
        """Test files within two imports of the module or in its mirror folder, nearest first."""
        mirror = Path("tests") / Path(module).parent
        stem = Path(module).stem

        def rank(test: str) -> tuple[int, int, int]:
            named = Path(test).stem == f"test_{stem}" and Path(test).parent == mirror
            same_room = Path(test).parent == mirror
            return (not named, self.distance(test, module), not same_room)

        ranked = sorted((rank(test), test) for test in self.tests)
        return [
            test for (_, distance, other_room), test in ranked if distance < 3 or not other_room
        ]


@cache
def tree_of(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def lines_of(statement: ast.AST) -> set[int]:
    """Lines of a statement, without those of the statements inside it."""
    inside = [n for n in ast.walk(statement) if isinstance(n, ast.stmt) and n is not statement]
    end = min((n.lineno for n in inside), default=statement.end_lineno + 1)  # type: ignore[attr-defined]
    return {*range(statement.lineno, max(end, statement.lineno + 1))}  # type: ignore[attr-defined]


def lines_with(name: str) -> dict[str, set[int]]:
    """Every line of the core that mentions the name."""
    lines: dict[str, set[int]] = defaultdict(set)
    for path in files_of():
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            if re.search(rf"\b{name}\b", line):
                lines[path].add(number)
    return lines


def around(mutant: Mutant) -> list[ast.stmt]:
    """The statements that hold the mutant, the innermost last."""
    statements = [node for node in ast.walk(tree_of(mutant.path)) if isinstance(node, ast.stmt)]
    last = [node.end_lineno or node.lineno for node in statements]
    holding = [s for s, end in zip(statements, last, strict=True) if s.lineno <= mutant.line <= end]
    return sorted(holding, key=lambda node: (node.lineno, -(node.end_lineno or 0)))


def full_name(mutant: Mutant) -> str:
    """File, function and faulty line: the same when the file's other lines move."""
    names = [node.name for node in around(mutant) if isinstance(node, (*FUNCTIONS, ast.ClassDef))]
    text = (ROOT / mutant.path).read_text()
    faulty = text[: mutant.start] + mutant.text + text[mutant.end :]
    line = faulty.splitlines()[mutant.line - 1].strip()
    return f"{mutant.path} {'.'.join(names) or 'module'}: {line}"


def imported_once(mutant: Mutant) -> bool:
    """Whether import executes the mutant: it stands outside the bodies of functions."""
    *outer, inner = around(mutant)
    bodies = outer if isinstance(inner, FUNCTIONS) else [*outer, inner]
    return not any(isinstance(node, FUNCTIONS) for node in bodies)


def lines_to_execute(mutant: Mutant) -> dict[str, set[int]]:
    """Lines by file: a test that executes one of them may notice the mutant.

    In a function they are the statement's own, or the body where a parameter's default is changed;
    for a constant or a field they are the lines that mention its name.
    """
    statement = around(mutant)[-1]
    if isinstance(statement, FUNCTIONS):
        last = statement.end_lineno or statement.lineno
        return {mutant.path: {*range(statement.body[0].lineno, last + 1)}}
    if not imported_once(mutant):
        return {mutant.path: lines_of(statement)}
    targets = [*getattr(statement, "targets", []), getattr(statement, "target", None)]
    names = [node.id for t in targets if t for node in ast.walk(t) if isinstance(node, ast.Name)]
    lines: dict[str, set[int]] = defaultdict(set)
    for name in names:
        for path, numbers in lines_with(name).items():
            lines[path] |= numbers
    return lines
