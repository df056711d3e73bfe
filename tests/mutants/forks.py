"""A copy of the checkout, and work in processes forked from one that has loaded what they need."""

import compileall
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from faults import PACKAGES, ROOT

OUT_OF_TIME = -1
OPTIONS = ["-q", "-m", "not slow and not gpu", "-p", "no:cacheprovider", "-p", "no:xdist"]


def preload() -> None:
    """Load the heavy libraries, nothing of Ropewalk."""
    os.environ.update(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu")
    import datasets  # noqa: F401
    import deepspeed  # noqa: F401
    import hypothesis  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    torch.set_num_threads(1)


def copy_of_checkout(folder: Path) -> None:
    """Copy the checkout to `folder`; `folder/import/ropewalk` gives it its import name."""
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "Makefile", "CONTRIBUTING.md", "docs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "import" / "ropewalk").mkdir(parents=True)
    for name in PACKAGES:
        (folder / "import" / "ropewalk" / name).symlink_to(folder / name)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder / "import")
    sys.path.insert(0, str(folder / "import"))


def write_bytecode(folder: Path) -> None:
    """Compile the core once, nothing later: a mutant may have its original's size and second."""
    for package in PACKAGES:
        compileall.compile_dir(folder / package, quiet=1)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def in_fork(work: Callable[[], int], seconds: float) -> int:
    """The number that `work` gives in a forked process without output, 3 if it raises."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            code = work()
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return OUT_OF_TIME
