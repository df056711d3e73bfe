"""Ulysses: the ranks that share a sequence exchange it for heads around the attention (arXiv 2309.14509, section 3.2).

Outside the attention a rank holds S / P tokens with all heads, inside it all S tokens with H / P heads: two all-to-alls, DeepSpeed's.
The documents' borders are those of the whole line on every rank, so the kernel inside is the one that runs alone.

    B batch (1)   P ranks of a sequence   S tokens of it   s = S / P   H query heads   K key/value heads   D head size
"""

from transformers import PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.backend import KernelWrapper
from ropewalk.train.zero.mesh import Mesh, process_groups
from ropewalk.train.zero.sequence_parallel import HeadExchange


def heads(config: PreTrainedConfig) -> tuple[int, int]:
    """H and K of a model's text layers."""
    text = config.get_text_config()
    count = text.num_attention_heads
    return count, getattr(text, "num_key_value_heads", None) or count


def refuse_unfit_heads(
    config: PreTrainedConfig, sp_size: int, world_size: int | None = None
) -> None:
    """Each rank must have as many query heads as the others; key/value heads are repeated where they are too few.

    Raises: ConfigError with the sizes that work.
    """
    count, _ = heads(config)
    if count % sp_size == 0:
        return
    fit = [n for n in range(1, count + 1) if count % n == 0]
    now = [n for n in fit if world_size is not None and world_size % n == 0]
    ranks = f" (with {world_size} rank(s): {_listed(now)})" if now else ""
    raise ConfigError(
        f"train.sp_size is {sp_size}; it must divide the {count} attention heads of {config.model_type}; "
        f"set one of {_listed(fit)}{ranks}"
    )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def kernel_wrapper(config: PreTrainedConfig, mesh: Mesh) -> KernelWrapper | None:
    """What puts the exchange around an attention kernel; None where no sequence is shared. Raises: ConfigError."""
    if mesh.sp_size == 1:
        return None
    refuse_unfit_heads(config, mesh.sp_size, mesh.world_size)
    group = process_groups(mesh).get_sequence_parallel_group()
    return lambda kernel: HeadExchange(kernel, *heads(config), group)
