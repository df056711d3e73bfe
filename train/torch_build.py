"""What the installed torch says of its build, read from its version file without importing it.

An import takes seconds, and a broken one nothing can be asked.
"""

import ast
import importlib.machinery
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class TorchBuild:
    """A build of torch. Versions are None where it was built without."""

    version: str
    cuda: str | None
    hip: str | None
    git_version: str


@cache
def torch_build() -> TorchBuild | None:
    """None where there is no torch, or no version file that can be read."""
    path = module_path("torch.version")
    if path is None:
        return None
    try:
        values = _assigned(path)
        return TorchBuild(
            str(values["__version__"]),
            _text(values.get("cuda")),
            _text(values.get("hip")),
            str(values.get("git_version", "")),
        )
    except (OSError, SyntaxError, ValueError, KeyError):
        return None


def module_path(name: str) -> Path | None:
    """The file of a module, without importing it or the packages above it; None without one."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module in sys.modules that has no spec
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    roots = [Path(folder, *rest) for folder in spec.submodule_search_locations or ()]
    return next((path for root in roots for path in _files_of(root)), None)


def _files_of(root: Path) -> list[Path]:
    """What Python would import as the module at `root`: a package, a file, compiled code."""
    paths = [root / "__init__.py", root.with_name(f"{root.name}.py")]
    compiled = [root.parent / f"{root.name}{end}" for end in importlib.machinery.EXTENSION_SUFFIXES]
    return [path for path in (*paths, *compiled) if path.is_file()]


def _assigned(path: Path) -> dict[str, object]:
    """The plain values that a module assigns to names."""
    values: dict[str, object] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (target.id for target in targets if isinstance(target, ast.Name))
            values |= dict.fromkeys(names, node.value.value)
    return values


def _text(value: object) -> str | None:
    return None if value is None else str(value)
