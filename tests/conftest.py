"""Shared fixtures. Nothing heavy is imported before a test asks for it."""

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from gpu_page import GpuPage

# the first example of a test may wait for an import, on a busy machine for seconds
settings.register_profile("ropewalk", deadline=None)
settings.load_profile("ropewalk")

TEXTS = [
    "The rope is laid in the long walk, yarn upon yarn, strand upon strand.",
    "What is the pass key? The pass key is 12345. Remember it. 12345 is the pass key.\n",
    "def lay(yarns):\n    return twist(strand for strand in yarns)\n",
]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level BPE of 300 words, trained in a moment, as transformers has it."""
    from transformers import PreTrainedTokenizerFast

    from ropewalk.data import tokenizer as tokenizers

    backend = tokenizers.train(TEXTS * 20, 300).backend
    special = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


# -- tests marked `gpu`, or `gpu(count=2, memory_gb=40)` -------------------------------------------

GPU_SKIPS = pytest.StashKey[list[str]]()
GPU_RUNS = pytest.StashKey[list[str]]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose GPUs this machine lacks, with the reason."""
    marks = [*item.iter_markers("gpu")]
    if not marks:
        return
    import gpu_devices

    reasons = filter(None, (gpu_devices.why_missing(**mark.kwargs) for mark in marks))
    if reason := next(reasons, ""):
        item.config.stash.setdefault(GPU_SKIPS, []).append(reason)
        pytest.skip(reason)
    item.config.stash.setdefault(GPU_RUNS, []).append(item.nodeid)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Memory that torch keeps in this process is not there for ranks of the next test."""
    if item.get_closest_marker("gpu"):
        import gc

        import torch

        if torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Skipping every GPU test must not look like passing them."""
    skips, runs = config.stash.get(GPU_SKIPS, []), config.stash.get(GPU_RUNS, [])
    if skips or runs:
        import gpu_devices

        terminalreporter.write_sep("=", gpu_devices.summary(len(runs), skips), bold=True)


@pytest.fixture(scope="session")
def gpu_page() -> "GpuPage":
    """The page of figures that the tests on GPUs record."""
    import gpu_page as pages

    return pages.GpuPage(pages.PATH)
