"""Injects an adapter into a model in place."""

import importlib.util
from typing import Any

import torch
from transformers import PreTrainedModel

from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.lora import LoraConfig
from ropewalk.train.adapters import dropout, quantize, targets
from ropewalk.train.optim.param_groups import is_adapter
from ropewalk.train.zero.params import gathered

INIT = {"default": True, "gaussian": "gaussian", "orthogonal": "orthogonal"}


def attach(model: PreTrainedModel, lora: LoraConfig, seed: int) -> str | None:
    """Add an adapter to each target layer of `model`, initialised from `seed` alike on every rank.

    Returns one line to log, or None where `lora` is off.

    Raises: ConfigError when peft is missing, or when a target matches no layer.
    """
    if not lora.rank:
        return None
    quantize.refuse_missing_packages(lora)
    names = targets.select_targets(model, lora.names)
    suffixes = targets.shortest_suffixes(names, model)
    layers = [model.get_submodule(name) for name in names] if lora.dora else []
    # DoRA starts from the column norms of the full weights
    with torch.random.fork_rng(), gathered(*(p for layer in layers for p in layer.parameters())):
        torch.manual_seed(int(fingerprint(["lora", seed])[:15], 16))
        import_peft().inject_adapter_in_model(peft_config(lora, suffixes), model)
    dropout.install(model)
    shown = ", ".join([*suffixes[:8], *(["..."] if len(suffixes) > 8 else [])])
    return f"lora: rank {lora.rank} beside {len(names)} linear layers ({shown})"


def peft_config(lora: LoraConfig, suffixes: list[str]) -> Any:
    """The settings as `peft.LoraConfig`; peft matches its targets by suffix."""
    return import_peft().LoraConfig(
        r=lora.rank,
        lora_alpha=2 * lora.rank if lora.alpha is None else lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=suffixes,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        init_lora_weights=INIT[lora.init],
        task_type="CAUSAL_LM",
    )


def fully_trained_modules(model: PreTrainedModel) -> list[str]:
    """Modules whose own weights are trained, such as embeddings and norms. peft saves them entire.

    Raises: ConfigError for a module that peft's format cannot hold, because it has an adapter too
        or contains modules.
    """
    names = [n for n, p in model.named_parameters() if p.requires_grad and not is_adapter(n)]
    modules = list(dict.fromkeys(name.rsplit(".", 1)[0] for name in names))
    for name in modules:
        if name.endswith(".base_layer") or [*model.get_submodule(name).children()]:
            raise ConfigError(
                f"train.optimizer.trainable names weights of {name.removesuffix('.base_layer')}; "
                "with LoRA it must name modules that have no adapter and none inside; leave it "
                "out, or train without LoRA"
            )
    return modules


def import_peft() -> Any:
    """The module peft. Raises: ConfigError when it is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(
            "train.lora.rank is above 0; adapters need peft; pip install 'ropewalk[lora]'"
        )
    import peft

    return peft


def adapter_config(model: PreTrainedModel) -> Any:
    """The `peft.LoraConfig` of the model's adapter; None without an adapter."""
    return getattr(model, "peft_config", {}).get("default")
