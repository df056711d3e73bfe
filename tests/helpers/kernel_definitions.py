"""What the packages of attention kernels say of themselves, taken from their sources by ast.

tests/train/attention/kernel_definitions.json holds the record, so that no test needs the network:
for each definition of a kernel's function the sha256 of the file that it stands in, by version (or
the commits, of a repository whose wheels are on no index that the tests read).
"""

import ast
import inspect
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parents[1] / "train/attention/kernel_definitions.json"
FUNCTION = "flash_attn_varlen_func"
SIZES = [[n, n] for n in range(8, 512, 8)] + [[192, 128]]
"""Heads of queries and of values that are tried against flash-attn 4's own check. Its 512 is
DeepSeek's absorbed form, another call."""


def recorded(kernel: str) -> list[dict[str, Any]]:
    """The record's rows of a kernel, the oldest first."""
    return [row for row in json.loads(RECORD.read_text()) if row["kernel"] == kernel]


def definition(source: bytes) -> str:
    """The `def` line of the kernel's function, without annotations."""
    function = _function(source, FUNCTION)
    for argument in (*function.args.args, *function.args.kwonlyargs):
        argument.annotation = None
    return f"def {FUNCTION}({ast.unparse(function.args)})"


def signature(definition_line: str) -> inspect.Signature:
    namespace: dict[str, Any] = {}
    exec(f"{definition_line}: ...", namespace)
    return inspect.signature(namespace[FUNCTION])


def heads_of_flash4(source: bytes, major: int) -> list[list[int]]:
    """Those of `SIZES` that flash-attn 4's own check takes in bf16."""
    check = _function(source, "_validate_head_dims")
    check.decorator_list = []
    namespace: dict[str, Any] = {}
    exec(ast.unparse(check), namespace)
    return sorted(pair for pair in SIZES if _passes(namespace[check.name], *pair, major, 8))


def sink_majors(source: bytes) -> list[int]:
    """Major compute capabilities on which flash-attn 4 gives sinks a gradient."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assert) or node.msg is None:
            continue
        if "earnable sink backward is supported" in ast.unparse(node.msg):
            assert isinstance(node.test, ast.Compare)
            return list(ast.literal_eval(node.test.comparators[0]))
    raise AssertionError("flash-attn 4 does not name the devices of its sinks' gradient")


def _passes(check: Any, *arguments: int) -> bool:
    try:
        check(*arguments)
    except AssertionError:
        return False
    return True


def _function(source: bytes, name: str) -> ast.FunctionDef:
    functions = (n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef))
    return next(function for function in functions if function.name == name)


def downloaded(distribution: str, version: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of the Python files of a release: its wheel, or its sdist, unbuilt."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    sdist = ["--no-binary", ":all:", "--no-build-isolation"] if distribution == "flash-attn" else []
    environment = os.environ | {"FLASH_ATTENTION_SKIP_CUDA_BUILD": "TRUE"}
    subprocess.run([*pip, *sdist, f"{distribution}=={version}"], check=True, env=environment)
    (path,) = folder.iterdir()
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist())
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.endswith("_interface.py"):
                file = archive.extractfile(member)
                assert file is not None
                yield member.name.split("/", 1)[1], file.read()


def released(distribution: str) -> list[str]:
    """All versions on the index, pre-releases too."""
    command = [sys.executable, "-m", "pip", "index", "versions", "--pre", distribution]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    line = next(line for line in answer.splitlines() if line.startswith("Available versions:"))
    return line.removeprefix("Available versions:").replace(" ", "").split(",")
