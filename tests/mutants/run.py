"""Random faults in the pure core, and whether the nearest tests notice them: `make mutants`.

Each mutant changes one comparison, operator, constant or condition of one file in a copy of the
checkout. The test files nearest to it then run in a process forked from one that has torch,
transformers and DeepSpeed loaded. A mutant is killed when a test fails or runs out of time.
Survivors are printed with their line. Kill each by a new test with an independent expected value,
or judge it equivalent in equivalent.txt.
"""

import argparse
import ast
import functools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
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
    """The test files nearest to a module: its mirror, direct importers, importers of importers."""

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


def copy_of_checkout(folder: Path) -> None:
    """Copy the checkout to `folder`; `folder/import/ropewalk` gives it its import name."""
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "Makefile", "CONTRIBUTING.md", "docs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "import" / "ropewalk").mkdir(parents=True)
    for name in PACKAGES:
        (folder / "import" / "ropewalk" / name).symlink_to(folder / name)


def run_tests(folder: Path, tests: list[str], seconds: float) -> int:
    """Exit code of pytest over `tests` in a forked child, -1 when it ran out of time."""
    child = os.fork()
    if child == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.chdir(folder)
        path = f"{folder / 'import'}"
        os.environ["PYTHONPATH"] = path
        sys.path.insert(0, path)
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        os._exit(int(pytest.main([*options, "-m", "not slow and not gpu", *tests])))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


@functools.cache
def passes_without_fault(folder: Path, test: str) -> bool:
    """Whether a test file passes here without a fault; if not, its failure kills nothing."""
    return run_tests(folder, [test], 300.0) in (0, 5)


def killed_by(folder: Path, mutant: Mutant, tests: list[str], budget_s: float) -> str | None:
    """The test file that noticed the mutant; None when it survives them all or the budget ends.

    A file that fails or runs out of time runs again without the fault. " (out of time)" after its
    name marks a kill without a failed test.
    """
    target = folder / mutant.path
    text = target.read_text()
    target.write_text(text[: mutant.start] + mutant.text + text[mutant.end :])
    deadline = time.monotonic() + budget_s
    try:
        for test in tests:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            exit_code = run_tests(folder, [test], max(20.0, remaining))
            if exit_code not in (0, 5):
                target.write_text(text)
                if passes_without_fault(folder, test):
                    return f"{test} (out of time)" if exit_code == -1 else test
                target.write_text(text[: mutant.start] + mutant.text + text[mutant.end :])
    finally:
        target.write_text(text)
    return None


def draw(count: int, seed: int, subjects: list[str]) -> list[Mutant]:
    """`count` random mutants of all files under `subjects`; each fault is equally likely."""
    paths = [path for s in subjects for path in (ROOT / s, *(ROOT / s).rglob("*.py"))]
    files = sorted({str(path.relative_to(ROOT)) for path in paths if path.suffix == ".py"})
    mutants = [mutant for file in files for mutant in mutants_of(file)]
    return random.Random(seed).sample(mutants, min(count, len(mutants)))


def equivalent() -> set[str]:
    """The lines of equivalent.txt without their reasons."""
    lines = (Path(__file__).parent / "equivalent.txt").read_text().splitlines()
    return {line.split("  #")[0].strip() for line in lines if line and not line.startswith("#")}


def preload() -> None:
    """Import what every child needs, except our modules: a child imports those with a fault."""
    import deepspeed  # noqa: F401
    import pytest  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=list(SUBJECTS), help="files or folders")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget-s", type=float, default=90.0, help="seconds for one mutant")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the mutants")
    parser.add_argument("--share", type=int, default=0, help="number of this process, from 0")
    parser.add_argument("--bar", type=float, default=0.9, help="share that must be killed")
    parser.add_argument("--json", type=Path, help="also write every mutant and its result here")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu")
    preload()
    nearest, judged = Nearest(), equivalent()
    mutants = draw(options.count, options.seed, options.subjects)[options.share :: options.jobs]
    rows, started = [], time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_of_checkout(folder)
        for number, mutant in enumerate(mutants, 1):
            by = killed_by(folder, mutant, nearest.test_files(mutant.path), options.budget_s)
            same = f"{mutant.path}: {mutant.source} -> {mutant.text}" in judged
            end = "killed" if by else "equivalent" if same else "SURVIVED"
            rows.append({**asdict(mutant), "end": end, "by": by})
            left = (time.monotonic() - started) / number * (len(mutants) - number)
            print(
                f"[{number}/{len(mutants)}, {left / 60:.0f} min left] {end} {mutant} {by or ''}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    counted = [row for row in rows if row["end"] != "equivalent"]
    killed = sum(row["end"] == "killed" for row in counted)
    share = killed / max(1, len(counted))
    print(f"killed {killed} of {len(counted)} ({share:.1%}); bar {options.bar:.0%}")
    sys.exit(killed < options.bar * len(counted))


if __name__ == "__main__":
    main()
