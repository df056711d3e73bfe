"""What is known of the ranks before there are any."""

from transformers import PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.train.attention import ulysses
from ropewalk.train.launcher.command import ranks_per_node, world_size
from ropewalk.train.zero.mesh import refuse_unfit


def refuse_unfit_ranks(config: Config, base: PreTrainedConfig) -> str | None:
    """Returns a warning, or None.

    Raises: ConfigError when the ranks do not fit devices or model.
    """
    train, world, per_node = config.train, world_size(config), ranks_per_node(config)
    refuse_missing_devices(config)
    refuse_unfit(world, train.sp_size, train.memory.zero_hpz_size)
    ulysses.refuse_unfit_heads(base, train.sp_size, world)
    if train.sp_size <= per_node:
        return None
    return (
        f"train.sp_size is {train.sp_size}, more than the {per_node} ranks of a machine: every "
        "layer's exchange of heads goes through the network"
    )


def refuse_missing_devices(config: Config) -> None:
    """Raises: ConfigError for more ranks than devices; they would use those of other jobs."""
    import torch

    devices, ranks = torch.cuda.device_count(), ranks_per_node(config)
    if config.train.launcher.hostfile is None and 0 < devices < ranks:
        raise ConfigError(
            f"train.launcher.ranks_per_node is {ranks}; each rank needs a device of its own, and {devices} are "
            f"visible (CUDA_VISIBLE_DEVICES); set train.launcher.ranks_per_node={devices}, or unset it"
        )
