""""""

from transformers import PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.train.attention import ulysses
from ropewalk.train.launcher.ranks import ranks_per_node, world_size
from ropewalk.train.zero.mesh import refuse_unfit


def refuse_unfit_ranks(config: Config, base: PreTrainedConfig) -> str | None:
    """What is known of the ranks before there are any. Returns a line of warning, None without cause. Raises: ConfigError."""
    train, world = config.train, world_size(config)
    refuse_missing_devices(config)
    refuse_unfit(world, train.sp_size, train.memory.zero_hpz_size)
    ulysses.refuse_unfit_heads(base, train.sp_size, world)
    if train.sp_size <= ranks_per_node(config):
        return None
    return (
        f"train.sp_size is {train.sp_size}, more than the {ranks_per_node(config)} ranks of a machine: every layer's exchange of heads goes "
        "through the network"
    )


def refuse_missing_devices(config: Config) -> None:
    """More ranks than devices would take those that a scheduler keeps from this job. Raises: ConfigError."""
    import torch

    there = torch.cuda.device_count()
    if config.train.launcher.hostfile is None and 0 < there < ranks_per_node(config):
        raise ConfigError(
            f"train.launcher.ranks_per_node is {ranks_per_node(config)}; each rank needs a device of its own, and {there} are visible "
            f"(CUDA_VISIBLE_DEVICES); set train.launcher.ranks_per_node={there}, or unset it"
        )
