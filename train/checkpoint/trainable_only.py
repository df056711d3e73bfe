"""A checkpoint holds trained weights only: frozen weights come from the base's files again.

An adapter's checkpoint is then as small as the adapter.
"""

from typing import Any

from torch import nn

from ropewalk.conf.errors import ConfigError


def load_trainable(src: dict[str, Any], dst: nn.Module) -> None:
    """Load the trained weights `src` into `dst`; DeepSpeed's `custom_load_fn`.

    Raises: ConfigError when a trained weight is missing, or `src` has one that the model lacks.
    """
    keys = dst.load_state_dict(src, strict=False)
    wrong = sorted({*keys.missing_keys} & trainable_names(dst)) + list(keys.unexpected_keys)
    if wrong:
        raise ConfigError(
            f"the checkpoint and the model differ in {wrong[0]}, and in {len(wrong) - 1} more; "
            "they must have the same trained weights; take another checkpoint"
        )


def trainable_names(module: nn.Module) -> set[str]:
    """Names of trained parameters, tied ones by all their names, and of buffers."""
    parameters = module.named_parameters(remove_duplicate=False)
    trained = {name for name, p in parameters if p.requires_grad}
    return trained | {name for name, _ in module.named_buffers()}
