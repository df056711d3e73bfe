""""""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.zero.config import ZERO_OPTIMIZATION

from ropewalk.conf.train import TrainConfig


def force_zero_optimizer(train: TrainConfig) -> AbstractContextManager[None]:
    """ZeRO 1 in bf16 with sums in fp32 by the optimizer of every other case: DeepSpeed has a second one for this alone, with a norm, a way
    out of a step and checkpoints of its own."""
    if not train.zero_stage:
        return nullcontext()
    return patched_method(DeepSpeedEngine, "_do_optimizer_sanity_check", ZERO_OPTIMIZATION)


@contextmanager
def patched_method(owner: Any, name: str, value: Any) -> Iterator[None]:
    """A method that gives `value` for once."""
    own = vars(owner).get(name)
    setattr(owner, name, lambda *_, **__: value)
    try:
        yield
    finally:
        delattr(owner, name) if own is None else setattr(owner, name, own)
