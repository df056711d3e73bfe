"""Methods of DeepSpeed's that we replace for a while."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.zero.config import ZERO_OPTIMIZATION

from ropewalk.conf.train import TrainConfig


def force_zero_optimizer(train: TrainConfig) -> AbstractContextManager[None]:
    """Build the same optimizer for ZeRO 1 in bf16 with fp32 sums as for every other case.

    DeepSpeed has a second one for this case alone, with its own norm, skipped steps and
    checkpoints.
    """
    if not train.zero_stage:
        return nullcontext()
    return patched_method(DeepSpeedEngine, "_do_optimizer_sanity_check", ZERO_OPTIMIZATION)


@contextmanager
def patched_method(owner: Any, name: str, result: Any) -> Iterator[None]:
    """While open, `owner.name(...)` returns `result`."""
    original = vars(owner).get(name)
    setattr(owner, name, lambda *_, **__: result)
    try:
        yield
    finally:
        if original is None:
            delattr(owner, name)
        else:
            setattr(owner, name, original)
