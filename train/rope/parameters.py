"""`rope_parameters` of transformers: which of them Ropewalk reads, and the tables they describe."""

import math
from dataclasses import replace
from typing import Any

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import (
    Llama3Config,
    LongRopeConfig,
    PIConfig,
    RopeConfig,
    Rotary,
    Table,
    YarnConfig,
)

WAY_OUT = (
    "choose a model whose rotary tables `rope_parameters` describes, such as Llama, Mistral, Qwen, "
    "Gemma 3, Phi or OLMo"
)


READ = {
    *("rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"),
    *("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    *("low_freq_factor", "high_freq_factor", "long_factor", "short_factor"),
    *("partial_rotary_factor", "max_position_embeddings"),
}
"""Words of `rope_parameters` that say how a table is made, or name its window."""
LLAMA_4_SCALING = "llama_4_scaling_beta"
"""Multiplies queries by 1 + beta ln(1 + floor(position / original window)) (Ministral 3): no part
of the table. The model's code reads the original window under its usual name."""
KEPT = {LLAMA_4_SCALING}
"""Words that a plan leaves as they are."""


def refuse_unread(table: dict[str, Any], model: str) -> None:
    """Raises: ConfigError when `rope_parameters` have a type or a value that is not read."""
    rope_type = table.get("rope_type", "default")
    known = rope_type in ("default", *_READERS)
    if not known or "mrope_section" in table:
        unread = "mrope_section" if known else rope_type
        raise ConfigError(
            f"{model} has rope_type {unread}; Ropewalk reads default, {', '.join(_READERS)}; "
            f"{WAY_OUT}"
        )
    _refuse_non_numbers(table, model)
    if rope_type == "default" and "factor" in table:
        raise ConfigError(
            f"{model} has factor {table['factor']} and rope_type default, which scales nothing; "
            "one of them is wrong; correct its config.json"
        )


def refuse_unknown_words(table: dict[str, Any], model: str) -> None:
    """A rescaled table is written anew, so a word whose meaning is not known would be dropped.

    Raises: ConfigError for such a word.
    """
    if unknown := sorted(set(table) - READ - KEPT):
        words = ", ".join(f"{word} {table[word]}" for word in unknown)
        raise ConfigError(
            f"{model} has {words} in rope_parameters, which Ropewalk does not know and a rescaled "
            "table would drop; remove it from config.json if the model's code does not read it, or "
            "set rope=none"
        )


def _refuse_non_numbers(table: dict[str, Any], model: str) -> None:
    """transformers checks no value. Raises: ConfigError when one is not a positive number."""
    for key, value in table.items():
        if key in ("rope_type", "type") or value is None or isinstance(value, bool):
            continue
        numbers = value if isinstance(value, list) else [value]
        if not all(isinstance(x, (int, float)) and math.isfinite(x) and x > 0 for x in numbers):
            raise ConfigError(
                f"{model} has {key} {value} in rope_parameters; it must be a number above 0; "
                "correct its config.json"
            )


def table_from_parameters(parameters: dict[str, Any], rotary: Rotary, window: int) -> Table:
    """The table that `rope_parameters` describe, scaled or not.

    Their own original window, where they have one, replaces that of `rotary`. `window`, in tokens,
    gives the factor where they have none.
    """
    if parameters["rope_type"] == "default":
        return Table(rotary.table())
    original = parameters.get("original_max_position_embeddings") or rotary.original
    rotary = replace(rotary, original=original)
    config = _READERS[parameters["rope_type"]](parameters, window / original)
    return config.table(rotary)


def _linear(parameters: dict[str, Any], window_ratio: float) -> RopeConfig:
    return PIConfig(factor=parameters["factor"])


def _llama3(parameters: dict[str, Any], window_ratio: float) -> RopeConfig:
    return Llama3Config(
        factor=parameters["factor"],
        low_freq_factor=parameters["low_freq_factor"],
        high_freq_factor=parameters["high_freq_factor"],
    )


def _yarn(parameters: dict[str, Any], window_ratio: float) -> RopeConfig:
    """As transformers reads it: null and 0 mean the default.

    `mscale` counts only together with `mscale_all_dim`.
    """
    config = YarnConfig(
        factor=parameters.get("factor") or window_ratio,
        beta_fast=parameters.get("beta_fast") or 32.0,
        beta_slow=parameters.get("beta_slow") or 1.0,
        attention_factor=parameters.get("attention_factor"),
        truncate=parameters.get("truncate", True),
    )
    mscale, mscale_all_dim = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if config.attention_factor is None and mscale and mscale_all_dim:
        return replace(config, mscale=mscale, mscale_all_dim=mscale_all_dim)
    return config


def _longrope(parameters: dict[str, Any], window_ratio: float) -> RopeConfig:
    return LongRopeConfig(
        factor=parameters.get("factor") or window_ratio,
        long_factor=parameters["long_factor"],
        short_factor=parameters["short_factor"],
        attention_factor=parameters.get("attention_factor"),
    )


_READERS = {"linear": _linear, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope}
