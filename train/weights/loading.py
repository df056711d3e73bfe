"""Loads a model: nothing may be new, left over or not finite in silence."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.train.adapters.quantize import dequantized
from ropewalk.train.weights import check, hub_cache
from ropewalk.train.weights.shards import shown
from ropewalk.train.weights.values import is_finite, not_finite_problem
from ropewalk.train.zero.params import gathered

LEFT = {
    "missing_keys": "its files lack {}; nothing may be drawn at random",
    "unexpected_keys": "its files hold {}, for which the model has no parameters",
    "mismatched_keys": "{} is of another shape than its config.json says",
    "error_msgs": "transformers reports {}",
}


def load_pretrained(path: str, subject: str, **kwargs: Any) -> PreTrainedModel:
    """The model of a folder or hub name. `kwargs`: of `from_pretrained`.

    `subject`: begins each line of an error, such as "model.path is NAME".

    Raises: ConfigError for weights that are not exactly those of the architecture, finite.
    """
    load: Any = AutoModelForCausalLM.from_pretrained
    try:
        model, info = load(path, use_safetensors=True, output_loading_info=True, **kwargs)
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        if problems := _file_problems(path, subject, **kwargs):
            raise ConfigError("\n".join(problems)) from error
        raise
    problems = loading_problems(info, subject)
    if not problems and not Path(path).is_dir():
        # Nobody saw these files before the ranks, and ZeRO 3 reports no tensor that is left over.
        problems = _file_problems(path, subject, **kwargs)
    if problems:
        raise ConfigError("\n".join(problems))
    refuse_not_finite(model, subject)
    return model  # type: ignore[no-any-return]


def refuse_not_finite(model: PreTrainedModel, subject: str) -> None:
    """Collective for a partitioned model, tensor by tensor.

    Raises: ConfigError with the names of tensors that have nan or inf.
    """
    names = [key for key, buffer in model.named_buffers() if not is_finite(buffer)]
    for key, parameter in model.named_parameters():
        with gathered(parameter):
            if not is_finite(dequantized(parameter)):
                names.append(key)
    if names:
        raise ConfigError(f"{subject}; {not_finite_problem(names)}")


def loading_problems(info: dict[str, Any], subject: str) -> list[str]:
    """Lines about `output_loading_info`, the oracle of what a load left over or drew."""
    lines = []
    for key, rule in LEFT.items():
        names = sorted(entry if isinstance(entry, str) else entry[0] for entry in info[key])
        if names:
            lines.append(
                f"{subject}; {rule.format(shown(names))}; weights and config.json must "
                "be of one model; give all files of the model, or correct its config.json"
            )
    return lines


def _file_problems(path: str, subject: str, **kwargs: Any) -> list[str]:
    """What the files themselves say; empty where they are not on this machine."""
    folder = Path(path)
    if not folder.is_dir():
        cached = hub_cache.cached_folder(path, kwargs.get("revision"))
        if cached is None:
            return []
        folder = cached
    remote: bool = kwargs.get("trust_remote_code", False)
    config = kwargs.get("config") or AutoConfig.from_pretrained(folder, trust_remote_code=remote)
    return check.weight_problems(folder, config, subject, trust_remote_code=remote)
