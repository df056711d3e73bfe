"""The rope plan: the table that a method makes for a base, its Hugging Face form, and a hash."""

from copy import copy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from ropewalk.conf.artifacts.manifest import fingerprint, read_json
from ropewalk.conf.artifacts.records import UNREADABLE
from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.conf.rope_methods import RopeConfig, Rotary, Table, TableConfig, YarnConfig
from ropewalk.conf.rope_methods.base import as_longrope, disagreement
from ropewalk.conf.rope_methods.by_parts import get_mscale
from ropewalk.train.model import sliding_window as windows
from ropewalk.train.model.geometry import head_dim
from ropewalk.train.rope import table_file
from ropewalk.train.rope.model_config import ONLY_LONGROPE, ModelRope, read_model_rope
from ropewalk.train.rope.parameters import KEPT, LLAMA_4_SCALING, table_from_parameters

SHARE = "partial_rotary_factor"
STAGE_KEYS = ("fingerprint", "findings", "calibrated_on")
"""What the stage adds to the plan in `rope.json`: its fingerprint, the lint's findings, and the
documents that the table was chosen on."""
HASHED_KEYS = (
    "inv_freq",
    "attention_factor",
    "resting_inv_freq",
    "rope_parameters",
    "softmax_factor",
    "max_position_embeddings",
    "others",
)
"""What decides the model's rotary embedding, as `rope.json` stores it."""
JSON_KEYS = {"short_inv_freq": "resting_inv_freq"}
"""Fields whose key in `rope.json`, which other programs read, differs from the field's name."""
FIELDS = {key: name for name, key in JSON_KEYS.items()}


@dataclass(frozen=True, kw_only=True)
class RopePlan:
    """The content of `rope.json`."""

    method: str
    factor: float
    original_max_position_embeddings: int
    max_position_embeddings: int
    rope_theta: float
    # (d/2,) float64, radians a token; where the table switches by length: at the new window
    inv_freq: list[float]
    attention_factor: float  # multiplies cos and sin
    rope_parameters: dict[str, Any]
    # of the base: inv_freq, attention_factor, rope_parameters, max_position_embeddings, ...
    base: dict[str, Any]
    hash: str
    # (d/2,) up to the original window, where the method switches by length
    short_inv_freq: list[float] | None = None
    layer_type: str | None = None  # the layers whose table is rescaled; None: all layers
    # tables of the other layer types, which stay as they are
    others: dict[str, dict[str, Any]] = field(default_factory=dict)
    softmax_factor: float = 1.0  # multiplies the softmax scale (DeepSeek's mscale_all_dim)
    qk_head_dim: int | None = None  # full size of heads with decoupled rotary dimensions
    # keys of the config that model.sliding_window changes
    sliding_window: dict[str, Any] = field(default_factory=dict)
    schema: int = 1

    @classmethod
    def read(cls, path: Path) -> "RopePlan":
        """Raises: DataError for a file that is not what the rope stage wrote."""
        try:
            content = read_json(path)
            plan = cls.from_json({key: content[key] for key in content if key not in STAGE_KEYS})
            is_whole = hash_of(content) == plan.hash
        except (*UNREADABLE, TypeError, KeyError):
            is_whole = False
        if not is_whole:
            raise DataError(
                f"{path} is damaged; its hash must be that of its tables; "
                "run ropewalk rope with this run's settings to write it again"
            )
        return plan

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "RopePlan":
        return cls(**{FIELDS.get(key, key): value for key, value in content.items()})

    def json(self) -> dict[str, Any]:
        return {JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}

    @property
    def base_window(self) -> int:
        """Tokens that the base reads as it is: more than the original window if it is scaled."""
        window: int = self.base["max_position_embeddings"]
        return window

    @property
    def config_window(self) -> int:
        """`max_position_embeddings` of the model's config.

        The original window for dynamic NTK, which counts its growth from it.
        """
        if self.rope_parameters["rope_type"] == "dynamic":
            return self.original_max_position_embeddings
        return self.max_position_embeddings

    def by_layer_type(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """`rope_parameters` of a config: `parameters` for the rescaled layers, and the others'."""
        if self.layer_type is None:
            return parameters
        others = {key: dict(other["rope_parameters"]) for key, other in self.others.items()}
        return others | {self.layer_type: parameters}

    @property
    def unscaled(self) -> "RopePlan":
        """The plan of the base itself: eval's base column must hold against it."""
        factor = max(1.0, self.base_window / self.original_max_position_embeddings)
        changes = {"method": "none", "factor": factor, "hash": "base", "sliding_window": {}}
        return RopePlan.from_json(self.json() | self.base | changes)

    def tables(self) -> dict[str | None, Table]:
        """The table of each layer type; under None if all layers share one table."""
        short = None if self.short_inv_freq is None else np.array(self.short_inv_freq)
        tables: dict[str | None, Table] = {
            self.layer_type: Table(np.array(self.inv_freq), self.attention_factor, short)
        }
        for layer_type, other in self.others.items():
            tables[layer_type] = Table(np.array(other["inv_freq"]), other["attention_factor"])
        return tables


def make(
    rope: RopeConfig,
    config: PreTrainedConfig,
    name: str,
    sliding_window: int | str | None = None,
) -> RopePlan:
    """The plan for the config of the base called `name`. `sliding_window`: model.sliding_window.

    Raises: ConfigError when the model's RoPE or window is not handled, or the settings do not fit.
    """
    model = read_model_rope(config, rope, name)
    original = model.rotary.original
    rope = copy(rope)  # the copy keeps the content of its table's file; the next plan reads it anew
    if isinstance(rope, TableConfig):
        table_file.refuse_other_base(rope, model.rotary)
    rope = with_decoupled_temperature(resolve(rope, original, model.window), model)
    base = _table_json(model.base, model.parameters, model.window, model)
    content, factor = base, model.window / original
    if rope.method != "none":
        content, factor = _rescaled_json(rope, model), rope.scale
    changes = windows.changed_keys(config, sliding_window, name)
    if rope.method != "none":
        reached = content["max_position_embeddings"]
        windows.refuse_hiding(config, changes, reached, f"model.path is {name}; it")
    content = {**content, "others": _other_tables(model)}
    if changes:
        content["sliding_window"] = changes
    return RopePlan.from_json(
        {
            "method": rope.method,
            "factor": factor,
            "original_max_position_embeddings": original,
            "rope_theta": model.rotary.theta,
            "base": base,
            "layer_type": model.layer_type,
            "qk_head_dim": model.qk_head_dim,
            "hash": hash_of(content),
            **content,
        }
    )


def hash_of(content: dict[str, Any]) -> str:
    """The hash of a plan, of the tables that `content` has under the keys of `rope.json`.

    A changed sliding window counts where there is one, so plans without keep their hash.
    """
    hashed = {key: content[key] for key in HASHED_KEYS}
    if changes := content.get("sliding_window"):
        hashed["sliding_window"] = changes
    return fingerprint(hashed)


def _rescaled_json(rope: RopeConfig, model: ModelRope) -> dict[str, Any]:
    """The rescaled table's part of `rope.json`. Raises: ConfigError."""
    table = rope.table(model.rotary)
    if isinstance(rope, TableConfig):
        table_file.refuse_other_parameters(rope, table, model.rotary)
    parameters = hf_parameters(rope, table, model)
    window = rope.window(model.rotary.original)
    _refuse_shrinking(rope, window, model)
    return _table_json(table, parameters, window, model)


def _refuse_shrinking(rope: RopeConfig, window: int, model: ModelRope) -> None:
    original = model.rotary.original
    if rope.max_position_embeddings is not None:
        shortest = model.window if model.scaled_already else original
        if window <= shortest:
            raise ConfigError(
                f"rope.max_position_embeddings is {window}; the model already reads {shortest}; it "
                "must be longer; raise it"
            )
    elif model.scaled_already and window <= model.window:
        raise ConfigError(
            f"rope.factor is {rope.scale:g}; the model is already scaled "
            f"({model.parameters['rope_type']}) to {model.window} tokens, and the factor counts "
            f"from the original {original}, so it must be above {model.window / original:g}; "
            "raise it"
        )


def resolve(rope: RopeConfig, original: int, window: int) -> RopeConfig:
    """Compute `factor` from `target_length`, or read it from a table's file; windows in tokens.

    Raises: ConfigError when they disagree, scale nothing, or are missing.
    """
    factor, target = rope.factor, rope.target_length
    if rope.method == "none":
        factor = 1.0
    elif target is None:
        factor = table_file.factor_of(rope, original, window) if factor is None else factor
    elif factor is not None:
        for problem in disagreement(factor, target, original):
            raise ConfigError(problem)
    elif target <= original:
        raise ConfigError(
            f"rope.target_length is {target}; the model already reads {original}; it must be "
            "longer; raise it, or rope=none"
        )
    else:
        factor = target / original
    resolved = copy(rope)
    resolved.factor = float(factor)
    return resolved


def with_decoupled_temperature(rope: RopeConfig, model: ModelRope) -> RopeConfig:
    """Put YaRN's temperature into the softmax scale, as DeepSeek does, for decoupled heads.

    There cos and sin reach a part of each head only.
    """
    if not (isinstance(rope, YarnConfig) and model.qk_head_dim):
        return rope
    if rope.attention_factor is None and rope.mscale is None:
        return replace(rope, mscale=1.0, mscale_all_dim=1.0)
    return rope


def hf_parameters(rope: RopeConfig, table: Table, model: ModelRope) -> dict[str, Any]:
    """`rope_parameters` for the table, in a form that the architecture's own code reads."""
    # transformers looks for `truncate` outside the layer type's own table
    truncate_unread = model.layer_type and getattr(rope, "truncate", True) is False
    longrope_only = model.architecture in ONLY_LONGROPE or truncate_unread
    if table.short_inv_freq is None and longrope_only:
        parameters = as_longrope(table, rope.scale, model.rotary)
    else:
        parameters = rope.hf_parameters(model.rotary)
    return {**parameters, **_kept_words(rope, model)}


def _kept_words(rope: RopeConfig, model: ModelRope) -> dict[str, Any]:
    """Words of the base that are no part of the table, or name its window, under the plan."""
    base, original = model.parameters, model.rotary.original
    words = {word: base[word] for word in sorted({SHARE, *KEPT} & set(base))}
    if LLAMA_4_SCALING in base:  # its code reads the original window whatever the method
        words["original_max_position_embeddings"] = original
    if "max_position_embeddings" in base:
        words["max_position_embeddings"] = rope.window(original)
    return words


def _table_json(
    table: Table, parameters: dict[str, Any], window: int, model: ModelRope
) -> dict[str, Any]:
    """The part of `rope.json` that describes one table."""
    short = table.short_inv_freq
    return {
        "inv_freq": table.inv_freq.tolist(),
        "attention_factor": table.attention_factor,
        "resting_inv_freq": None if short is None else short.tolist(),
        "rope_parameters": parameters,
        "softmax_factor": _softmax_factor(parameters) if model.qk_head_dim else 1.0,
        "max_position_embeddings": window,
    }


def _softmax_factor(parameters: dict[str, Any]) -> float:
    """The square of DeepSeek's mscale for all dimensions; only decoupled heads read it."""
    mscale = parameters.get("mscale_all_dim")
    return get_mscale(parameters["factor"], mscale) ** 2 if mscale else 1.0


def _other_tables(model: ModelRope) -> dict[str, Any]:
    """The tables of the layers that are not rescaled, by layer type."""
    tables = {}
    for layer_type, parameters in model.other_parameters.items():
        rotary = Rotary(model.rotary.dim, float(parameters["rope_theta"]), model.window)
        table = table_from_parameters(parameters, rotary, model.window)
        tables[layer_type] = {
            "inv_freq": table.inv_freq.tolist(),
            "attention_factor": table.attention_factor,
            "rope_parameters": parameters,
        }
    return tables


def apply(plan: RopePlan, config: PreTrainedConfig) -> PreTrainedConfig:
    """Put the plan into a config, in place, **before** a model is built: a model reads it once."""
    config.rope_parameters = plan.by_layer_type(dict(plan.rope_parameters))  # type: ignore[attr-defined]
    config.max_position_embeddings = plan.config_window  # type: ignore[attr-defined]
    for key, value in plan.sliding_window.items():
        setattr(config, key, value)
    if getattr(config, "head_dim", 0) is None:
        # Mixtral: transformers' YaRN and LongRoPE fail on a null
        config.head_dim = head_dim(config)
    if getattr(config, "original_max_position_embeddings", None) is not None:
        # Phi-3 reads this key, not the one in rope_parameters
        config.original_max_position_embeddings = plan.original_max_position_embeddings
    return config
