"""How a model's config describes its rotary tables.

Which table is rescaled, and from which window; an architecture that is not handled is refused.
"""

import json
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import RopeConfig, Rotary, Table
from ropewalk.train.model.geometry import head_dim
from ropewalk.train.rope.parameters import (
    LLAMA_4_SCALING,
    WAY_OUT,
    refuse_unknown_words,
    refuse_unread,
    table_from_parameters,
)

FULL = "full_attention"
ONLY_LONGROPE = ("phi3",)  # its config class takes no other rope_type
ROTARY_IN_SLIDING_ONLY = ("cohere2", "exaone4")
APART = ("llama3", "linear")  # types of models whose config has a window apart from the factor
OTHER_ROTARY = ("gptj", "codegen", "chatglm", "esm")  # rotary without `rope_parameters`


@dataclass(frozen=True)
class ModelRope:
    """The rotary tables of a model: the one that is rescaled, and those of the other layers."""

    architecture: str
    window: int  # tokens that the model reads as it is
    rotary: Rotary  # the table that is rescaled, as pre-training had it
    base: Table  # the same table as the model has it now; it differs when it is scaled already
    parameters: dict[str, Any]  # `rope_parameters` of that table
    layer_type: str | None  # the layers that have this table; None: all layers
    other_parameters: dict[str, dict[str, Any]]  # `rope_parameters` of the other layer types
    qk_head_dim: int | None  # full size of heads with decoupled rotary dimensions (DeepSeek)

    @property
    def scaled_already(self) -> bool:
        return self.parameters["rope_type"] != "default"


def read_model_rope(config: PreTrainedConfig, rope: RopeConfig, name: str) -> ModelRope:
    """The rotary tables of the model called `name`.

    Raises: ConfigError, with the architecture's name, for a model that is not handled.
    """
    model = f"model.path is {name}; its architecture {config.model_type}"
    _refuse_other_architectures(config, model)
    tables = _parameters_by_layer_type(config, model)
    layer_type = FULL if FULL in tables else None
    parameters = tables.pop(layer_type)
    if rope.method != "none":
        refuse_unknown_words(parameters, model)
    original = _original_window(config, parameters, rope, model)
    _refuse_other_scaling_window(parameters, original, model)
    dim = _rotary_dim(config, parameters, model)
    rotary = Rotary(dim, _theta(parameters, model), original)
    window = _reading_window(config, parameters, original)
    return ModelRope(
        architecture=str(config.model_type),
        window=window,
        rotary=rotary,
        base=table_from_parameters(parameters, rotary, window),
        parameters=parameters,
        layer_type=layer_type,
        other_parameters={key: value for key, value in tables.items() if key is not None},
        qk_head_dim=head_dim(config) if getattr(config, "qk_rope_head_dim", None) else None,
    )


def _refuse_other_scaling_window(parameters: dict[str, Any], original: int, model: str) -> None:
    """Raises: ConfigError when the temperature of long positions would count from another window.

    The model's code reads it from the key that YaRN's original window has.
    """
    if LLAMA_4_SCALING not in parameters:
        return
    counted_from = parameters.get("original_max_position_embeddings")
    if counted_from != original:
        raise ConfigError(
            f"{model} has {LLAMA_4_SCALING} {parameters[LLAMA_4_SCALING]}, which counts from "
            f"original_max_position_embeddings {counted_from}, and the plan from {original}; they "
            "must be the same; correct its config.json, or "
            "rope.original_max_position_embeddings"
        )


def _refuse_other_architectures(config: PreTrainedConfig, model: str) -> None:
    if getattr(config, "text_config", None) is not None:
        raise ConfigError(
            f"{model} has a text model inside another one; not handled; give the text model's own "
            "folder"
        )
    if reason := _why_not_handled(config):
        raise ConfigError(f"{model} {reason}; {WAY_OUT}")


def _why_not_handled(config: PreTrainedConfig) -> str | None:
    if config.model_type in OTHER_ROTARY:
        return "has rotary positions that its config does not describe; not handled"
    if config.model_type == "phimoe":
        return "scales its table by short_mscale and long_mscale of its own; not handled"
    if getattr(config, "is_heterogeneous", False):
        return "has heads of several sizes; not handled"
    if getattr(config, "alibi", False) or not getattr(config, "rope_parameters", None):
        return "has no rotary position embedding; Ropewalk rescales RoPE only"
    layer_types = getattr(config, "layer_types", None) or []
    if "chunked_attention" in layer_types:
        return "attends in chunks; its chunks would hide what is extended; not handled"
    if config.model_type in ROTARY_IN_SLIDING_ONLY and "sliding_attention" in layer_types:
        return "has RoPE in its sliding-window layers only; rescaling would extend nothing"
    return None


def _parameters_by_layer_type(
    config: PreTrainedConfig, model: str
) -> dict[str | None, dict[str, Any]]:
    """`rope_parameters` of each layer type; under None if all layers share one table."""
    parameters: dict[str, Any] = config.rope_parameters  # type: ignore[attr-defined]
    tables: dict[str | None, dict[str, Any]] = {None: parameters}
    if "rope_theta" not in parameters:
        tables = {key: table for key, table in parameters.items() if table is not None}
        if FULL not in tables:
            raise ConfigError(
                f"{model} has rotary tables for {', '.join(map(str, tables))} and none for {FULL}; "
                f"not handled; {WAY_OUT}"
            )
    for table in tables.values():
        refuse_unread(table, model)
    return {
        key: {**table, "rope_type": table.get("rope_type", "default")}
        for key, table in tables.items()
    }


def _rotary_dim(config: PreTrainedConfig, parameters: dict[str, Any], model: str) -> int:
    """Rotary dimensions of a head.

    All of them, a part (`partial_rotary_factor`), or the decoupled ones (`qk_rope_head_dim`).
    """
    config_share = getattr(config, "partial_rotary_factor", None)
    share = parameters.get("partial_rotary_factor", config_share) or 1.0
    dim = getattr(config, "qk_rope_head_dim", None) or int(head_dim(config) * share)
    if dim < 4 or dim % 2:
        raise ConfigError(
            f"{model} rotates {dim} dimensions of a head; it must be an even number of at least 4; "
            f"{WAY_OUT}"
        )
    return int(dim)


def _theta(parameters: dict[str, Any], model: str) -> float:
    theta = parameters.get("rope_theta")
    if not isinstance(theta, (int, float)) or theta <= 1:
        raise ConfigError(
            f"{model} has rope_theta {theta}; it must be a number above 1; correct its config.json"
        )
    return float(theta)


def _original_window(
    config: PreTrainedConfig, parameters: dict[str, Any], rope: RopeConfig, model: str
) -> int:
    """The window of pre-training, in tokens.

    Raises: ConfigError when the config and the setting disagree, or neither gives it.
    """
    window = getattr(config, "max_position_embeddings", None)
    setting = rope.original_max_position_embeddings
    if not isinstance(window, int) or window < 1:
        raise ConfigError(
            f"{model} has max_position_embeddings {window}; it must be a whole number of tokens; "
            "correct its config.json"
        )
    if parameters["rope_type"] == "default":
        # beside a window of its own no number is derived from it but the ramp (Apertus: 8192 in
        # the ramp of a base that was trained at 4096)
        if setting is not None and setting > window and rope.max_position_embeddings is None:
            raise ConfigError(
                f"rope.original_max_position_embeddings is {setting}; the model was trained at "
                f"{window}; it must be the window of pre-training, not the new one; unset it, or "
                "name the new one in rope.max_position_embeddings"
            )
        return setting or window
    if parameters["rope_type"] == "linear" and setting is None and rope.method == "none":
        return max(1, round(window / parameters.get("factor", 1)))  # its table is that of any
    return _scaled_original_window(config, parameters, setting, model)


def _scaled_original_window(
    config: PreTrainedConfig, parameters: dict[str, Any], setting: int | None, model: str
) -> int:
    """The same for a model that is scaled already. Raises: ConfigError."""
    rope_type = parameters["rope_type"]
    if rope_type == "linear":
        if setting is None:
            raise _unknown_original_window(rope_type, model)
        return setting
    recorded = (
        getattr(config, "original_max_position_embeddings", None)
        or parameters["original_max_position_embeddings"]
    )
    factor: float = parameters.get("factor") or 1
    if recorded == config.max_position_embeddings and factor > 1:  # type: ignore[attr-defined]
        return _ambiguous_original_window(config, rope_type, setting, model)
    if setting not in (None, recorded):
        raise ConfigError(
            f"rope.original_max_position_embeddings is {setting}; the model's own scaling "
            f"({rope_type}) starts at {recorded}; it must be the window of pre-training; unset it"
        )
    return int(recorded)


def _ambiguous_original_window(
    config: PreTrainedConfig, rope_type: str, setting: int | None, model: str
) -> int:
    """The window of pre-training when the config has one number for it and for the new window.

    transformers fills in the new window where config.json has no original one, so the file decides.
    If it cannot be read, or has that number itself, this is the window (and `lint` warns), unless
    the setting gives a smaller one. Raises: ConfigError.
    """
    window: int = config.max_position_embeddings  # type: ignore[attr-defined]
    if setting is None and not _file_names_original_window(config):
        raise _unknown_original_window(rope_type, model)
    if setting is not None and setting > window:
        raise ConfigError(
            f"rope.original_max_position_embeddings is {setting}; the model's own scaling "
            f"({rope_type}) starts at {window} at most; it must be the window of pre-training; "
            "lower it"
        )
    return setting or window


def _unknown_original_window(rope_type: str, model: str) -> ConfigError:
    return ConfigError(
        f"{model} is already scaled (rope_type {rope_type}) and its config does not say from which "
        "window; it must be known, because scalings do not stack; set "
        "rope.original_max_position_embeddings"
    )


def _file_names_original_window(config: PreTrainedConfig) -> bool:
    """Whether config.json itself has an original window; True if no file can be read."""
    if not config.name_or_path:
        return True
    try:
        content, _ = PreTrainedConfig.get_config_dict(
            config.name_or_path,
            revision=getattr(config, "_commit_hash", None),
            local_files_only=True,
        )
    except (OSError, ValueError):
        return True
    return "original_max_position_embeddings" in json.dumps(content, default=str)


def _reading_window(config: PreTrainedConfig, parameters: dict[str, Any], original: int) -> int:
    """Tokens that the model reads as it is.

    A scaled model may leave `max_position_embeddings` at the window of pre-training. With `llama3`
    and `linear` a window above the original one counts: Llama 3.2 has factor 32 from 8192 and
    window 131,072, Gemma 3 factor 8 from 32,768 and the same window.
    """
    window: int = config.max_position_embeddings  # type: ignore[attr-defined]
    factor, rope_type = parameters.get("factor"), parameters["rope_type"]
    if rope_type == "default" or not factor or (rope_type in APART and window > original):
        return window
    return max(window, round(original * factor))
