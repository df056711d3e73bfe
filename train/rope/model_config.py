"""How a model's config describes its rotary tables: which one is rescaled, from which window; or why it is refused."""

import json
import math
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.scaling import Llama3Config, LongRopeConfig, PIConfig, RopeConfig, YarnConfig
from ropewalk.train.model.geometry import head_dim, sliding_layers
from ropewalk.train.rope.methods import METHODS, Rotary, Table

FULL = "full_attention"
OTHER = "choose a model whose rotary tables `rope_parameters` describes, such as Llama, Mistral, Qwen, Gemma 3, Phi or OLMo"
ONLY_LONGROPE = ("phi3", "phimoe")  # their config classes take no other rope_type
ROTARY_IN_SLIDING_ONLY = ("cohere2", "exaone4")
OTHER_ROTARY = ("gptj", "codegen", "chatglm", "esm")  # rotary without `rope_parameters`


@dataclass(frozen=True)
class ModelRope:
    """What is rescaled in a model, and what is left as it is."""

    architecture: str
    window: int  # tokens that the model reads as it is
    rotary: Rotary  # the table that is rescaled, as pre-training had it
    base: Table  # the same table as the model has it now: another one when it is scaled already
    parameters: dict[str, Any]  # `rope_parameters` of that table
    layer_type: str | None = None  # None: one table for all layers
    others: dict[str, dict[str, Any]] | None = None  # `rope_parameters` of the other layer types
    qk_head_dim: int | None = (
        None  # heads with decoupled rotary dimensions (DeepSeek): their whole size
    )
    sliding: bool = False  # some layers see a sliding window only

    @property
    def scaled_already(self) -> bool:
        return self.parameters["rope_type"] != "default"


def read_model_rope(config: PreTrainedConfig, rope: RopeConfig, name: str) -> ModelRope:
    """The shape of a model's rotary tables. Raises: ConfigError, by the architecture's name, for one not handled."""
    kind = f"model.path is {name}; its architecture {config.model_type}"
    _refuse_other_architectures(config, kind)
    tables = _tables(config, kind)
    layer_type = FULL if FULL in tables else None
    parameters = tables[layer_type]
    original = _original(config, parameters, rope, kind)
    rotary = Rotary(_dim(config, parameters, kind), _theta(parameters, kind), original)
    window = _reading_window(config, parameters, original)
    decoupled = getattr(config, "qk_rope_head_dim", None)
    return ModelRope(
        architecture=str(config.model_type),
        window=window,
        rotary=rotary,
        base=table_from_parameters(parameters, rotary, window),
        parameters=parameters,
        layer_type=layer_type,
        others={k: v for k, v in tables.items() if k != layer_type and k is not None},
        qk_head_dim=decoupled + config.qk_nope_head_dim if decoupled else None,  # type: ignore[attr-defined]
        sliding=any(sliding_layers(config)),
    )


def _refuse_other_architectures(config: PreTrainedConfig, kind: str) -> None:
    if config.model_type in OTHER_ROTARY:
        raise ConfigError(
            f"{kind} has rotary positions that its config does not describe; not handled; {OTHER}"
        )
    if getattr(config, "is_heterogeneous", False):
        raise ConfigError(f"{kind} has heads of several sizes; not handled; {OTHER}")
    if getattr(config, "text_config", None) is not None:
        raise ConfigError(
            f"{kind} has a text model inside another one; not handled; give the text model's own folder"
        )
    if getattr(config, "alibi", False) or not getattr(config, "rope_parameters", None):
        raise ConfigError(
            f"{kind} has no rotary position embedding; Ropewalk rescales RoPE only; {OTHER}"
        )
    types = getattr(config, "layer_types", None) or []
    if "chunked_attention" in types:
        raise ConfigError(
            f"{kind} attends in chunks; its chunks would hide what is extended; not handled; {OTHER}"
        )
    if config.model_type in ROTARY_IN_SLIDING_ONLY and "sliding_attention" in types:
        raise ConfigError(
            f"{kind} has RoPE in its sliding-window layers only; rescaling would extend nothing; {OTHER}"
        )
    if any(sliding_layers(config)) and FULL not in types:
        raise ConfigError(
            f"{kind} has sliding-window attention in every layer; its window hides what is extended; {OTHER}"
        )


def _tables(config: PreTrainedConfig, kind: str) -> dict[str | None, dict[str, Any]]:
    """`rope_parameters` by layer type; one for all layers under None."""
    parameters: dict[str, Any] = config.rope_parameters  # type: ignore[attr-defined]
    nested = "rope_theta" not in parameters
    tables = (
        {k: v for k, v in parameters.items() if v is not None} if nested else {None: parameters}
    )
    if nested and FULL not in tables:
        raise ConfigError(
            f"{kind} has rotary tables for {', '.join(map(str, tables))} and none for {FULL}; not handled; {OTHER}"
        )
    for table in tables.values():
        known = table.get("rope_type", "default") in ("default", *_READERS)
        if not known or "mrope_section" in table:
            word = table.get("rope_type") if not known else "mrope_section"
            raise ConfigError(
                f"{kind} has rope_type {word}; Ropewalk reads default, {', '.join(_READERS)}; {OTHER}"
            )
        _refuse_what_is_no_number(table, kind)
        if table.get("rope_type", "default") == "default" and "factor" in table:
            raise ConfigError(
                f"{kind} has factor {table['factor']} and rope_type default, which scales nothing; one of them is wrong; mend its config.json"
            )
    return {
        key: {**table, "rope_type": table.get("rope_type", "default")}
        for key, table in tables.items()
    }


def _refuse_what_is_no_number(table: dict[str, Any], kind: str) -> None:
    """transformers takes what it finds. Raises: ConfigError."""
    for key, value in table.items():
        numbers = value if isinstance(value, list) else [value]
        plain = key in ("rope_type", "type") or value is None or isinstance(value, bool)
        if not plain and not all(
            isinstance(x, (int, float)) and math.isfinite(x) and x > 0 for x in numbers
        ):
            raise ConfigError(
                f"{kind} has {key} {value} in rope_parameters; it must be a number above 0; mend its config.json"
            )


def _dim(config: PreTrainedConfig, parameters: dict[str, Any], kind: str) -> int:
    """Rotary dimensions of a head: all of it, a part (`partial_rotary_factor`), or decoupled ones (`qk_rope_head_dim`)."""
    share = (
        parameters.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None))
        or 1.0
    )
    dim = getattr(config, "qk_rope_head_dim", None) or int(head_dim(config) * share)
    if dim < 4 or dim % 2:
        raise ConfigError(
            f"{kind} rotates {dim} dimensions of a head; it must be an even number of at least 4; {OTHER}"
        )
    return int(dim)


def _theta(parameters: dict[str, Any], kind: str) -> float:
    theta = parameters.get("rope_theta")
    if not isinstance(theta, (int, float)) or theta <= 1:
        raise ConfigError(
            f"{kind} has rope_theta {theta}; it must be a number above 1; mend its config.json"
        )
    return float(theta)


def _original(
    config: PreTrainedConfig, parameters: dict[str, Any], rope: RopeConfig, kind: str
) -> int:
    """The window of pre-training. Raises: ConfigError where the config and the setting disagree, or neither says it."""
    window, given = (
        getattr(config, "max_position_embeddings", None),
        rope.original_max_position_embeddings,
    )
    if not isinstance(window, int) or window < 1:
        raise ConfigError(
            f"{kind} has max_position_embeddings {window}; it must be a whole number of tokens; mend its config.json"
        )
    if parameters["rope_type"] == "default":
        if given is not None and given > window:
            raise ConfigError(
                f"rope.original_max_position_embeddings is {given}; the model was trained at {window}; "
                "it must be the window of pre-training, not the new one; unset it"
            )
        return given or window
    if parameters["rope_type"] == "linear":
        if given is None:
            raise ConfigError(
                f"{kind} is already scaled (rope_type linear) and its config does not say from which window; "
                "it must be known, for scalings do not stack; set rope.original_max_position_embeddings"
            )
        return given
    recorded = (
        getattr(config, "original_max_position_embeddings", None)
        or parameters["original_max_position_embeddings"]
    )
    if recorded == window and (parameters.get("factor") or 1) > 1:
        return _doubtful_original(config, parameters, given, kind)
    if given not in (None, recorded):
        raise ConfigError(
            f"rope.original_max_position_embeddings is {given}; the model's own scaling ({parameters['rope_type']}) starts at "
            f"{recorded}; it must be the window of pre-training; unset it"
        )
    return int(recorded)


def _doubtful_original(
    config: PreTrainedConfig, parameters: dict[str, Any], given: int | None, kind: str
) -> int:
    """The window of pre-training where the config has the same number for it and for the new one.

    transformers writes the new window where a file has no original one, so the file is asked; where there is none, or it
    has the number too, the number is taken (and `lint` says so), unless the setting gives a smaller one.
    Raises: ConfigError.
    """
    window: int = config.max_position_embeddings  # type: ignore[attr-defined]
    if given is None and not _said_in_file(config):
        raise ConfigError(
            f"{kind} is already scaled (rope_type {parameters['rope_type']}) and its config does not say from which window; "
            "it must be known, for scalings do not stack; set rope.original_max_position_embeddings"
        )
    if given is not None and given > window:
        raise ConfigError(
            f"rope.original_max_position_embeddings is {given}; the model's own scaling ({parameters['rope_type']}) starts at "
            f"{window} at most; it must be the window of pre-training; lower it"
        )
    return given or window


def _said_in_file(config: PreTrainedConfig) -> bool:
    """Whether the model's config.json has an original window of its own; True where no file can be read."""
    if not config.name_or_path:
        return True
    try:
        revision = getattr(config, "_commit_hash", None)
        found = PreTrainedConfig.get_config_dict(
            config.name_or_path, revision=revision, local_files_only=True
        )[0]
    except (OSError, ValueError):
        return True
    return "original_max_position_embeddings" in json.dumps(found, default=str)


def _reading_window(config: PreTrainedConfig, parameters: dict[str, Any], original: int) -> int:
    """Tokens that a model reads as it is. A scaled one may leave `max_position_embeddings` at the window of pre-training.

    Llama 3.2 says factor 32 from 8192 and a window of 131,072: with `llama3` a window above the original one is meant.
    """
    window: int = config.max_position_embeddings  # type: ignore[attr-defined]
    factor, kind = parameters.get("factor"), parameters["rope_type"]
    if kind == "default" or not factor or (kind == "llama3" and window > original):
        return window
    return max(window, round(original * factor))


def table_from_parameters(parameters: dict[str, Any], rotary: Rotary, window: int) -> Table:
    """The table that a model has by its own `rope_parameters`, scaled or not: from the original window that they name."""
    if parameters["rope_type"] == "default":
        return Table(rotary.table())
    rotary = replace(
        rotary, original=parameters.get("original_max_position_embeddings") or rotary.original
    )
    config = _READERS[parameters["rope_type"]](parameters, window / rotary.original)
    found: Table = METHODS[config.method].table(config, rotary)
    return found


def _linear(p: dict[str, Any], ratio: float) -> RopeConfig:
    return PIConfig(factor=p["factor"])


def _llama3(p: dict[str, Any], ratio: float) -> RopeConfig:
    return Llama3Config(
        factor=p["factor"],
        low_freq_factor=p["low_freq_factor"],
        high_freq_factor=p["high_freq_factor"],
    )


def _yarn(p: dict[str, Any], ratio: float) -> RopeConfig:
    """As transformers reads it: a null or 0 is the default; `mscale` counts only with `mscale_all_dim`."""
    config = YarnConfig(factor=p.get("factor") or ratio, truncate=p.get("truncate", True))
    config = replace(
        config, beta_fast=p.get("beta_fast") or 32.0, beta_slow=p.get("beta_slow") or 1.0
    )
    if p.get("attention_factor") is not None:
        return replace(config, attention_factor=p["attention_factor"])
    both = p.get("mscale") and p.get("mscale_all_dim")
    return (
        replace(config, mscale=p["mscale"], mscale_all_dim=p["mscale_all_dim"]) if both else config
    )


def _longrope(p: dict[str, Any], ratio: float) -> RopeConfig:
    return LongRopeConfig(
        factor=p.get("factor") or ratio,
        long_factor=p["long_factor"],
        short_factor=p["short_factor"],
        attention_factor=p.get("attention_factor"),
    )


_READERS = {"linear": _linear, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope}
