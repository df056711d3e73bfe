"""A live model run with another attention implementation, which records the layers' inputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel


def no_mask(*args: object, **kwargs: object) -> None:
    """Replaces transformers' mask builder: kernels read the borders of documents instead."""


@contextmanager
def swapped_attention(
    model: PreTrainedModel, name: str, kernel: Callable[..., tuple[torch.Tensor, None]]
) -> Iterator[None]:
    """Put `model` into eval mode with `kernel`, registered as `name`, and no mask.

    The model's own implementation and its mode are restored at the end.
    """
    AttentionInterface.register(name, kernel)
    AttentionMaskInterface.register(name, no_mask)
    original_impl, training = model.config._attn_implementation, model.training
    model.set_attn_implementation(name)
    model.eval()
    try:
        yield
    finally:
        model.set_attn_implementation(original_impl)  # type: ignore[arg-type]
        model.train(training)
