"""An adapter put into a model in place."""

import importlib.util
from contextlib import AbstractContextManager
from typing import Any

import torch

from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.lora import LoraConfig
from ropewalk.train.adapters import quantize, targets
from ropewalk.train.optim.param_groups import is_adapter
from ropewalk.train.zero.params import gathered

INIT = {"default": True, "gaussian": "gaussian", "orthogonal": "orthogonal"}


def attach(model: Any, lora: LoraConfig, seed: int) -> str | None:
    """Put an adapter beside each target of `model`, a function of `seed` alone: the same on every rank of any world.

    Returns one line to log, None where `lora` is off. Raises: ConfigError without peft, or when a target matches nothing.
    """
    if not lora.rank:
        return None
    quantize.refuse_missing(lora)
    names = targets.choose(model, lora.names)
    ends = targets.short(names, model)
    with torch.random.fork_rng(), _whole(model, names if lora.dora else []):
        torch.manual_seed(int(fingerprint(["lora", seed])[:15], 16))
        inject(model, settings(lora, ends))
    return f"lora: rank {lora.rank} beside {len(names)} linear layers ({', '.join(ends[:8])}{', ...' if len(ends) > 8 else ''})"


def _whole(model: Any, names: list[str]) -> AbstractContextManager[Any]:
    """The weights of `names` whole where ZeRO-3 holds them in pieces: DoRA begins with the sizes of their columns."""
    return gathered(*(p for name in names for p in model.get_submodule(name).parameters()))


def settings(lora: LoraConfig, ends: list[str]) -> Any:
    """peft's configuration."""
    return library().LoraConfig(
        r=lora.rank,
        lora_alpha=2 * lora.rank if lora.alpha is None else lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=ends,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        init_lora_weights=INIT[lora.init],
        task_type="CAUSAL_LM",
    )


def inject(model: Any, config: Any) -> None:
    """The model's linear layers are wrapped where they stand; no object is put around the model."""
    library().inject_adapter_in_model(config, model)


def fully_trained(model: Any) -> list[str]:
    """Modules whose own weights are trained, such as embeddings and norms: peft saves a module whole.

    Raises: ConfigError when one cannot be told in peft's format: it has an adapter too, or modules inside.
    """
    names = [n for n, p in model.named_parameters() if p.requires_grad and not is_adapter(n)]
    found = list(dict.fromkeys(name.rsplit(".", 1)[0] for name in names))
    for name in found:
        if name.endswith(".base_layer") or any(True for _ in model.get_submodule(name).children()):
            plain = name.removesuffix(".base_layer")
            raise ConfigError(
                f"train.optimizer.trainable names weights of {plain}; with LoRA it must name modules that have no adapter and none inside; "
                "leave it out, or train without LoRA"
            )
    return found


def library() -> Any:
    """peft. Raises: ConfigError when it is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(
            "train.lora.rank is above 0; adapters need peft; pip install 'ropewalk[lora]'"
        )
    import peft

    return peft


def config_of(model: Any) -> Any:
    """peft's configuration of the adapter that a model carries; None without one."""
    return getattr(model, "peft_config", {}).get("default")
