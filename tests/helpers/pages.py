"""What the README and the pages of docs/ give to type: commands, files and quoted messages.

A file is a yaml block whose second line is a comment that begins with its path:
`# my-recipes/recipe/x.yaml: ...`. A quoted message of the program is a block that begins with
```message, in which `…` stands for a value.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import yaml

from ropewalk.launch.recipes import twin, twin_files

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
HOWTO = sorted((ROOT / "docs" / "howto").glob("[!R]*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


def commands_of(page: Path) -> list[str]:
    """The lines of its sh blocks, joined where they go on, without comments."""
    return [
        line.split("  #")[0].strip()
        for block in blocks(page, "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip()
    ]


def files_of(page: Path) -> dict[str, str]:
    """Path -> content of the files that a page gives."""
    return {
        name: block
        for block in blocks(page, "yaml")
        for name in re.findall(r"\A#[^\n]*\n# ([\w./-]+\.yaml):", block)
    }


def write_files(page: Path, folder: Path) -> None:
    for name, content in files_of(page).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


SMALL_EVAL = {
    "tasks": ["nll_by_position", "context_gain", "passkey"],
    "windows": 4,
    "passkey_tries": 1,
    "passkey_depths": [0.5],
}
BOOKS, ARTICLES = ("asyncio", "email", "unittest"), ("http", "json", "logging")
REPOSITORIES = ("concurrent", "ctypes", "curses", "dbm", "html", "importlib", "sqlite3", "urllib")


def write_small(page: Path, base: dict[str, Any], shrink: int, folder: Path) -> None:
    """A page's files with short lengths (launch/recipes/twin.py), a small model of the same
    architecture and documents, where its commands look for them.

    `base`: its config.json at full size. `shrink`: by what all lengths are divided.
    """
    write_files(page, folder)
    for name, content in files_of(page).items():
        if "/recipe/" not in name:
            continue
        small = twin.small_settings(yaml.safe_load(content), shrink)
        if not small["model"]["path"].startswith("./"):  # of the hub
            small["model"] = {"path": "./base"}
        small["eval"] = small.get("eval", {}) | SMALL_EVAL
        twin_files.write_base(base, shrink, small, folder / small["model"]["path"])
        (folder / name).write_text(f"# @package _global_\n{yaml.safe_dump(small)}")
    write_documents(folder)


def write_documents(folder: Path) -> None:
    """Four sources of different text, from packages of the standard library."""
    for name in ("books", "articles"):
        (folder / name).mkdir(exist_ok=True)
    with (folder / "books" / "all.jsonl").open("w") as lines:
        for file in modules(*BOOKS):
            print(json.dumps({"text": file.read_text()}), file=lines)
    with (folder / "instructions.jsonl").open("w") as lines:
        for file in modules(*BOOKS):
            print(json.dumps({"question": file.name, "answer": file.read_text()[:400]}), file=lines)
    for file in modules(*ARTICLES):
        copy = folder / "articles" / f"{file.parent.name}-{file.stem}.md"
        copy.write_text(file.read_text()[:4000])
    for file in modules(*REPOSITORIES):
        copy = folder / "repositories" / file.relative_to(commands.STDLIB)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())


def modules(*packages: str) -> list[Path]:
    return [file for name in packages for file in sorted((commands.STDLIB / name).glob("*.py"))]


def messages() -> set[str]:
    """Every string in the code that is no docstring, with `…` for each value that it formats."""
    return {text for tree in trees() for text in _strings(tree)}


def trees() -> Iterator[ast.Module]:
    for floor in ("conf", "data", "train", "eval", "launch"):
        for file in sorted((ROOT / floor).rglob("*.py")):
            yield ast.parse(file.read_text())


def _strings(tree: ast.Module) -> Iterator[str]:
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield str(node.value)
