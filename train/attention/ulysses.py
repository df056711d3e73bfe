"""Ulysses sequence parallelism (arXiv 2309.14509, section 3.2) around an attention kernel.

The ranks that share a sequence exchange it for heads. Outside the attention a rank holds S / P
tokens with all heads, inside it all S tokens with H / P heads: two all-to-alls, DeepSpeed's. Every
rank has the borders of the full sequence, so the kernel inside is the one that runs alone.

    P ranks of a sequence   S tokens of it   H query heads   K key/value heads
"""

from transformers import PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.backend import KernelWrapper
from ropewalk.train.zero.mesh import Mesh, process_groups
from ropewalk.train.zero.sequence_parallel import HeadExchange


def head_counts(config: PreTrainedConfig) -> tuple[int, int]:
    """H and K of a model's text layers."""
    text = config.get_text_config()
    query_heads = text.num_attention_heads
    return query_heads, getattr(text, "num_key_value_heads", None) or query_heads


def refuse_unfit_heads(
    config: PreTrainedConfig, sp_size: int, world_size: int | None = None
) -> None:
    """Each rank must have equally many query heads; key/value heads are repeated if too few.

    `world_size`: the sizes that divide it are named apart.
    Raises: ConfigError with the sizes that work.
    """
    count, _ = head_counts(config)
    if count % sp_size == 0:
        return
    sizes = [n for n in range(1, count + 1) if count % n == 0]
    usable = [n for n in sizes if world_size is not None and world_size % n == 0]
    ranks = f" (with {world_size} rank(s): {', '.join(map(str, usable))})" if usable else ""
    raise ConfigError(
        f"train.sp_size is {sp_size}; it must divide the {count} attention heads of "
        f"{config.model_type}; set one of {', '.join(map(str, sizes))}{ranks}"
    )


def kernel_wrapper(config: PreTrainedConfig, mesh: Mesh) -> KernelWrapper | None:
    """The function that puts the exchange around a kernel; None if no ranks share a sequence.

    Raises: ConfigError when `mesh.sp_size` does not divide the heads.
    """
    if mesh.sp_size == 1:
        return None
    refuse_unfit_heads(config, mesh.sp_size, mesh.world_size)
    group = process_groups(mesh).get_sequence_parallel_group()
    return lambda kernel: HeadExchange(kernel, *head_counts(config), group)
