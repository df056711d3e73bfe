"""Ulysses sequence parallelism (arXiv 2309.14509, section 3.2) around an attention kernel.

The ranks that share a sequence exchange it for heads. Outside the attention a rank holds S / P
tokens with all heads, inside it all S tokens with H / P heads: two all-to-alls, DeepSpeed's. Every
rank has the borders of the full sequence, so the kernel inside is the one that runs alone.

Where P does not divide H, the heads are exchanged over the a ranks that do, and each of the
b = P / a parts of the sequence gets the keys that it sees: sequence_parts.py, part_exchange.py.

    P ranks of a sequence   S tokens of it   H query heads   K key/value heads
"""

from transformers import PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.backend import KernelWrapper
from ropewalk.train.attention.part_exchange import PartExchange
from ropewalk.train.attention.sequence_parts import num_head_groups
from ropewalk.train.model.geometry import head_counts
from ropewalk.train.zero.mesh import Mesh, process_groups
from ropewalk.train.zero.sequence_parallel import HeadExchange


def describe(config: PreTrainedConfig, sp_size: int) -> str:
    """How `sp_size` ranks share the attention of a sequence, for the log."""
    count, _ = head_counts(config)
    groups = num_head_groups(count, sp_size)
    if groups == sp_size:
        return f"{count} heads over {sp_size} ranks"
    heads = f"{count} heads over {groups} ranks x " if groups > 1 else ""
    return f"{heads}queries over {sp_size // groups}, to each the keys that they see"


def refuse_s2_groups(config: PreTrainedConfig, sp_size: int, s2_group: int | None) -> None:
    """S2-Attn goes with whole sequences only.

    Raises: ConfigError with the sizes that work.
    """
    count, _ = head_counts(config)
    if s2_group is None or count % sp_size == 0:
        return
    sizes = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
    raise ConfigError(
        f"train.attention.s2_group is {s2_group}; its groups go with a train.sp_size that divides "
        f"the {count} attention heads of {config.model_type}, which {sp_size} does not; unset it, "
        f"or set train.sp_size to one of {sizes}"
    )


def kernel_wrapper(config: PreTrainedConfig, mesh: Mesh) -> KernelWrapper | None:
    """The function that puts the exchange around a kernel; None if no ranks share a sequence."""
    if mesh.sp_size == 1:
        return None
    group, (heads, kv_heads) = (
        process_groups(mesh).get_sequence_parallel_group(),
        head_counts(config),
    )
    exchange = PartExchange if heads % mesh.sp_size else HeadExchange
    return lambda kernel: exchange(kernel, heads, kv_heads, group)
