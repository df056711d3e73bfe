"""A live model run with another attention implementation, which records the layers' inputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface, PreTrainedModel


@contextmanager
def swapped_attention(
    model: PreTrainedModel, name: str, kernel: Callable[..., tuple[torch.Tensor, None]]
) -> Iterator[None]:
    """Put `model` into eval mode with `kernel`, registered as `name`.

    Transformers builds no mask for a name without a mask builder: kernels read the borders of
    documents instead. The model's own implementation and its mode are restored at the end.
    """
    AttentionInterface.register(name, kernel)
    original_impl, training = model.config._attn_implementation, model.training
    model.set_attn_implementation(name)
    model.eval()
    try:
        yield
    finally:
        model.set_attn_implementation(original_impl)  # type: ignore[arg-type]
        model.train(training)
