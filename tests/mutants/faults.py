"""The faults that `run.py` puts into the pure core: a comparison, operator or constant changed."""

import ast
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("conf", "data", "train", "eval", "launch")
SUBJECTS = (
    "conf",
    "data",
    "train/rope",
    "train/optim",
    "train/attention",
    "train/checkpoint",
    "train/cost",
    "eval/measure",
    "eval/tasks",
    "eval/calibrate",
    "eval/ruler",
    "eval/engine",
)
COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True)
class Mutant:
    """One fault: characters `start` to `end` of `path` replaced by `text`."""

    path: str
    line: int
    start: int
    end: int
    text: str
    source: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.source} -> {self.text}"

    @property
    def key(self) -> str:
        return f"{self.path} {self.start} {self.text}"


def changed(node: ast.AST) -> ast.AST | None:
    """The node with one fault, None where no fault is known."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        return ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        texts = (ast.JoinedStr, ast.Constant)
        if isinstance(node.left, texts) and isinstance(getattr(node.left, "value", ""), str):
            return None  # a concatenation of strings
        return ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    if isinstance(node, ast.BoolOp):
        return ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return node.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return ast.Constant(not node.value)
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return ast.Constant(node.value + 1)
    return None


def mutants_of(path: str) -> list[Mutant]:
    """Every fault of one file. Types, docs, messages and `__all__` are left alone."""
    text = (ROOT / path).read_text()
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(row: int, column: int) -> int:
        return starts[row - 1] + len(lines[row - 1].encode()[:column].decode())

    mutants: list[Mutant] = []

    def visit(node: ast.AST) -> None:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(child, (ast.JoinedStr, ast.Raise)):
                    visit(child)
        fault = changed(node)
        if fault is not None:
            start = offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]
            end = offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
            if "\n" not in text[start:end]:
                fault_text = f"({ast.unparse(ast.fix_missing_locations(fault))})"
                source = text[start:end]
                mutants.append(Mutant(path, node.lineno, start, end, fault_text, source))  # type: ignore[attr-defined]

    visit(ast.parse(text))
    return mutants


def files_of(subjects: Iterable[str] = SUBJECTS) -> list[str]:
    """Python files under the subjects, which are files or folders."""
    roots = [ROOT / subject for subject in subjects]
    files = {file for root in roots for file in [root, *root.rglob("*.py")]}
    return sorted(str(file.relative_to(ROOT)) for file in files if file.suffix == ".py")


def drawn(count: int, seed: int, subjects: Iterable[str]) -> list[Mutant]:
    """`count` mutants of all files under `subjects`, each fault with the same chance."""
    everything = [mutant for file in files_of(subjects) for mutant in mutants_of(file)]
    return random.Random(seed).sample(everything, min(count, len(everything)))
