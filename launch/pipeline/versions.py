"""Versions of what affects results: Python, packages, and the code of ropewalk itself."""

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "ropewalk",
    "torch",
    "transformers",
    "deepspeed",
    "datasets",
    "tokenizers",
    "hydra-core",
    "numpy",
    "pyarrow",
)
ROOT = Path(__file__).parents[2]
CODE = ("conf", "data", "train", "eval", "launch")


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that affect results."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "not installed"
    return installed


def code_digest() -> str:
    """sha256 of the package's own Python files."""
    digest = hashlib.sha256()
    for path in sorted(file for name in CODE for file in (ROOT / name).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)} ".encode() + path.read_bytes())
    return digest.hexdigest()
