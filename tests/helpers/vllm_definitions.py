"""What vLLM's own source says of the names that ours calls; read by `ast`, nothing is imported.

`python tests/helpers/vllm_definitions.py WHEEL` prints the record of a wheel.
"""

import ast
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parents[1] / "eval" / "engine_vllm" / "definitions.json"
LLM, ARGUMENTS = "vllm/entrypoints/llm.py", "vllm/engine/arg_utils.py"
SAMPLING, INPUTS, OUTPUTS = "vllm/sampling_params.py", "vllm/inputs/llm.py", "vllm/outputs.py"


def recorded() -> dict[str, Any]:
    record: dict[str, Any] = json.loads(RECORD.read_text())
    return record


def of_wheel(wheel: Path) -> dict[str, Any]:
    with zipfile.ZipFile(wheel) as files:
        trees = {
            path: ast.parse(files.read(path))
            for path in (LLM, ARGUMENTS, SAMPLING, INPUTS, OUTPUTS)
        }
        (metadata,) = [n for n in files.namelist() if n.endswith(".dist-info/METADATA")]
        lines = files.read(metadata).decode().splitlines()
    return {
        "version": wheel.name.split("-")[1],
        "requires": [
            line.removeprefix("Requires-Dist: ")
            for line in lines
            if line.startswith(("Requires-Dist: torch==", "Requires-Dist: transformers"))
        ],
        "LLM": arguments(method(trees[LLM], "LLM", "__init__")),
        "LLM.generate": arguments(method(trees[LLM], "LLM", "generate")),
        "EngineArgs": fields(trees[ARGUMENTS], "EngineArgs"),
        "SamplingParams": fields(trees[SAMPLING], "SamplingParams"),
        "TokensPrompt": fields(trees[INPUTS], "TokensPrompt"),
        "RequestOutput": arguments(method(trees[OUTPUTS], "RequestOutput", "__init__")),
        "CompletionOutput": fields(trees[OUTPUTS], "CompletionOutput"),
    }


def class_of(tree: ast.Module, name: str) -> ast.ClassDef:
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    return found


def method(tree: ast.Module, owner: str, name: str) -> ast.FunctionDef:
    (found,) = [
        n for n in class_of(tree, owner).body if isinstance(n, ast.FunctionDef) and n.name == name
    ]
    return found


def arguments(function: ast.FunctionDef) -> dict[str, list[str]]:
    """Names without `self`: those that may go by position, and those by name only."""
    given = function.args
    return {
        "positional": [a.arg for a in (*given.posonlyargs, *given.args)][1:],
        "by_name": [a.arg for a in given.kwonlyargs],
        "others": [given.kwarg.arg] if given.kwarg else [],
    }


def fields(tree: ast.Module, name: str) -> list[str]:
    return [
        n.target.id
        for n in class_of(tree, name).body
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    ]


if __name__ == "__main__":
    print(json.dumps(of_wheel(Path(sys.argv[1])), indent=1))
