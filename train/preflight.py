"""Checks before the ranks start: their number, the base's files, and names of its modules."""

from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.conf.train import TrainConfig
from ropewalk.train import remote_code
from ropewalk.train.adapters import attach
from ropewalk.train.attention import refuse_missing, ulysses
from ropewalk.train.base import Base
from ropewalk.train.launcher.command import (
    is_by_task,
    on_this_machine,
    ranks_per_node,
    world_size,
)
from ropewalk.train.optim import param_groups
from ropewalk.train.weights import check, hub_cache, other_files
from ropewalk.train.zero.mesh import refuse_unfit


def refuse_unfit_ranks(config: Config, base: PreTrainedConfig) -> str | None:
    """Returns a warning, or None.

    Raises: ConfigError when the ranks do not fit devices or model.
    """
    sp_size, per_node = config.train.sp_size, ranks_per_node(config)
    refuse_missing_devices(config)
    refuse_other_tasks(config)
    if on_this_machine(config):  # else the ranks run on other machines
        refuse_missing(config.train.attention.kernel)
    refuse_unfit(world_size(config), sp_size, config.train.memory.zero_hpz_size)
    ulysses.refuse_s2_groups(base, sp_size, config.train.attention.s2_group)
    if sp_size <= per_node:
        return None
    return (
        f"train.sp_size is {sp_size}, more than the {per_node} ranks of a machine: every layer's "
        "exchange of heads goes through the network"
    )


def refuse_missing_devices(config: Config) -> None:
    """Raises: ConfigError for more ranks than devices; they would use those of other jobs."""
    devices, ranks = torch.cuda.device_count(), ranks_per_node(config)
    if on_this_machine(config) and not is_by_task() and 0 < devices < ranks:
        raise ConfigError(
            f"train.launcher.ranks_per_node is {ranks}; each rank needs a device of its own, and "
            f"{devices} are visible (CUDA_VISIBLE_DEVICES); set "
            f"train.launcher.ranks_per_node={devices}, or unset it"
        )


def refuse_other_tasks(config: Config) -> None:
    """Raises: ConfigError for a number of ranks that is not the one which a launcher started."""
    tasks = ranks_per_node(config)
    numbers = {
        "train.launcher.ranks_per_node": config.train.launcher.ranks_per_node,
        "eval.ranks_per_node": config.eval.ranks_per_node,
    }
    for key, number in numbers.items():
        if is_by_task() and number not in (None, tasks):
            raise ConfigError(
                f"{key} is {number}; the launcher started {tasks} commands on each machine, and "
                f"each is one rank; unset it, or start {number} there"
            )


def refuse_unmatched_names(config: PreTrainedConfig, train: TrainConfig) -> None:
    """Check adapter targets and parameter patterns.

    Raises: ConfigError for a pattern or target without a match, and for a missing package.
    """
    if not train.optimizer.patterns() and not train.lora.rank:
        return
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    # DoRA and the other initialisations read values, which meta tensors lack; names do not change.
    attach.attach(model, replace(train.lora, dora=False, init="default"), seed=0)
    param_groups.set_requires_grad(model, train)
    if train.lora.rank:
        attach.fully_trained_modules(model)


def file_problems(base: Base, config: PreTrainedConfig) -> list[str]:
    """Lines about the base's files, as far as they are on this machine."""
    if base.path is None:
        return []
    folder = Path(base.path)
    if not folder.is_dir():
        cached = hub_cache.cached_folder(base.path, base.revision)
        if cached is None:
            return []  # the ranks download the weights, and look at what was loaded
        folder = cached
    if not any(folder.glob("*.safetensors")):
        return [
            f"model.path is {base.name}; it has no .safetensors file; save the model as safetensors"
        ]
    remote = base.trust_remote_code
    if remote and remote_code.problems(config, base.name):
        return []  # told by the check of that code
    subject = f"model.path is {base.name}"
    weights = check.weight_problems(folder, config, subject, trust_remote_code=remote)
    return other_files.other_file_problems(folder, subject) + weights
