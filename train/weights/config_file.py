"""config.json: its JSON, and sizes that no model can have. Each problem is one line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.train.weights.headers import DamagedFile, not_weights, unique_keys

CONFIG = "config.json"
SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings",
)  # fmt: skip
SLIDING = "sliding_attention"
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json.

    Raises: ConfigError when it is no JSON object that names an architecture.
    """
    try:
        values = _parse((folder / CONFIG).read_bytes())
        if not isinstance(values.get("model_type"), str):
            raise DamagedFile(
                "has no model_type, by which transformers chooses the architecture; add it"
            )
    except DamagedFile as error:
        raise ConfigError(f"model.path is {folder.name}; its {CONFIG} {error}") from error
    except OSError as error:
        raise ConfigError(
            f"model.path is {folder.name}; its {CONFIG} cannot be read ({error.strerror}); "
            "give a Hugging Face model folder"
        ) from error
    if problems := size_problems(values, folder.name):
        raise ConfigError("\n".join(problems))
    return values


def _parse(content: bytes) -> dict[str, Any]:
    """Raises: DamagedFile."""
    if reason := not_weights(content[:64]):
        raise DamagedFile(reason.replace("the weights", "a config"))
    if content.startswith(b"\xef\xbb\xbf"):
        raise DamagedFile(
            "begins with a byte order mark; transformers reads plain UTF-8; remove it"
        )
    try:
        values = json.loads(
            content.decode("utf-8"), object_pairs_hook=unique_keys, parse_constant=_constant
        )
    except UnicodeDecodeError as error:
        raise DamagedFile(f"is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise DamagedFile(
            f"is no JSON: {error.msg} (line {error.lineno}, column {error.colno}); correct it"
        ) from error
    except ValueError as error:
        raise DamagedFile(f"cannot be meant: {error}; correct it") from error
    if not isinstance(values, dict):
        raise DamagedFile(f"is a JSON {type(values).__name__}; it must be an object; correct it")
    return values


def _constant(word: str) -> float:
    """NaN and infinities, which Python's JSON allows; a limit may be infinite."""
    if word == "NaN":
        raise ValueError("NaN is no number")
    return float(word)


def size_problems(values: Mapping[str, Any], name: str) -> list[str]:
    """Lines about single values that cannot be. `values`: the config's."""
    rules = [
        f"{key} {values[key]!r}; it must be a whole number of at least 1"
        for key in SIZES
        if values.get(key) is not None and (type(values[key]) is not int or values[key] < 1)
    ] + [
        f"{key} {value!r}; it must be a number of at least 0"
        for key, value in values.items()
        if key.endswith(("_eps", "_epsilon")) and type(value) in (int, float) and value < 0
    ]
    return [f"model.path is {name}; its {CONFIG} has {rule}; correct it" for rule in rules]


def config_problems(config: PreTrainedConfig, name: str) -> list[str]:
    """Lines about sizes of a config that cannot be, or that do not fit one another."""
    values = {key: getattr(config, key, None) for key in (*SIZES, *EXPERTS, "num_experts_per_tok")}
    if problems := size_problems(values, name):
        return problems
    rules = [
        *_head_problems(values, config),
        *_token_problems(config),
        *_window_problems(config),
        *_expert_problems(values),
    ]
    if file := getattr(config, "transformers_weights", None):
        rules.append(
            f"transformers_weights {file}; the weights must be model.safetensors or its shards"
        )
    return [f"model.path is {name}; its {CONFIG} has {rule}; correct it" for rule in rules]


def _head_problems(values: dict[str, Any], config: PreTrainedConfig) -> list[str]:
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    kv_heads = values["num_key_value_heads"]
    problems = []
    if heads and kv_heads and heads % kv_heads:
        problems.append(
            f"num_attention_heads {heads} and num_key_value_heads {kv_heads}; the first must be a "
            "multiple of the second"
        )
    default_dim = values["head_dim"] is None or values["head_dim"] == (hidden or 0) // (heads or 1)
    decoupled = getattr(config, "qk_rope_head_dim", None)
    if hidden and heads and hidden % heads and default_dim and not decoupled:
        problems.append(
            f"hidden_size {hidden} and num_attention_heads {heads}; the first must be a multiple "
            "of the second where head_dim is not given"
        )
    return problems


def _token_problems(config: PreTrainedConfig) -> list[str]:
    """Padding and ends of text that have no embedding; torch counts a negative padding from the
    end, and a negative end of text is how some configs say that there is none."""
    vocab_size = getattr(config, "vocab_size", None)
    if not vocab_size:
        return []
    pad, eos = getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None)
    ids = [("eos_token_id", token) for token in (eos if isinstance(eos, list) else [eos])]
    outside = [(key, token) for key, token in ids if type(token) is int and token >= vocab_size]
    if type(pad) is int and not -vocab_size <= pad < vocab_size:
        outside.append(("pad_token_id", pad))
    return [
        f"{key} {token} and vocab_size {vocab_size}; it must be below the vocabulary's size"
        for key, token in outside
    ]


def _window_problems(config: PreTrainedConfig) -> list[str]:
    """A window that hides all; Qwen2-MoE's config puts 0 for one that no layer uses."""
    window = getattr(config, "sliding_window", None)
    is_used = getattr(config, "use_sliding_window", True) and SLIDING in (
        getattr(config, "layer_types", None) or [SLIDING]
    )
    if is_used and type(window) is int and window < 1:
        return [f"sliding_window {window}; a token sees at least itself, so it must be at least 1"]
    return []


def _expert_problems(values: dict[str, Any]) -> list[str]:
    active = values["num_experts_per_tok"]
    key = next((key for key in EXPERTS if values[key]), None)
    if key is None or not active or active <= values[key]:
        return []
    return [
        f"num_experts_per_tok {active} and {key} {values[key]}; a token cannot go to more experts "
        "than there are"
    ]


def quantization_problem(values: Mapping[str, Any]) -> str | None:
    """A line for weights that are quantised already. `values`: the config's.

    An empty entry counts: transformers' load looks for its method, and fails.
    """
    given = (values.get(key) for key in ("quantization_config", "compression_config"))
    config = next((value for value in given if value is not None), None)
    if config is None:
        return None
    method = config.get("quant_method") if isinstance(config, Mapping) else None
    return (
        f"its {CONFIG} has a quantization_config ({method or 'unnamed'}); "
        "training needs weights in full precision, and QLoRA (train.lora.quantize) quantises them "
        "itself; give the model in BF16, F16 or F32, or remove the key where they are so already"
    )
