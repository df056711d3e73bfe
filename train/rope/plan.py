"""The rope plan: what a method makes of this base, with the Hugging Face form that means the same, and a hash."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from ropewalk.conf.artifacts.manifest import fingerprint, read_json
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.scaling import RopeConfig, TableConfig, YarnConfig, disagreement
from ropewalk.train.rope import model_config as shapes
from ropewalk.train.rope.methods import (
    METHODS,
    FreeTable,
    Rotary,
    Table,
    as_longrope,
    get_mscale,
    is_number,
    scale,
)
from ropewalk.train.rope.model_config import ModelRope

BESIDE = ("fingerprint", "findings", "calibrated_on")
"""What `rope.json` holds beside the plan: the stage's mark, the lint's warnings, the documents that the plan was chosen on."""


@dataclass(frozen=True, kw_only=True)
class RopePlan:
    """The content of `rope.json`."""

    method: str
    factor: float
    original_max_position_embeddings: int
    max_position_embeddings: int
    rope_theta: float
    inv_freq: list[
        float
    ]  # (d/2,) float64; of a table that switches by length: the one at the new window
    attention_factor: float
    rope_parameters: dict[str, Any]
    base: dict[
        str, Any
    ]  # the same of the base: inv_freq, attention_factor, rope_parameters, max_position_embeddings ...
    hash: str
    resting_inv_freq: list[float] | None = (
        None  # up to the original window, where the method switches by length
    )
    layer_type: str | None = None  # the layers whose table is rescaled; None: all have one table
    others: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # tables of the other layers, as they were
    softmax_factor: float = 1.0  # multiplies the softmax scale (DeepSeek's mscale_all_dim)
    qk_head_dim: int | None = None  # heads with decoupled rotary dimensions: their whole size
    schema: int = 1

    @classmethod
    def read(cls, path: Path) -> "RopePlan":
        return cls(**{k: v for k, v in read_json(path).items() if k not in BESIDE})

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def base_window(self) -> int:
        """Tokens that the base reads as it is: more than the original window when it came already scaled."""
        found: int = self.base["max_position_embeddings"]
        return found

    @property
    def unscaled(self) -> "RopePlan":
        """The plan of the base itself: what eval's base column must hold against."""
        factor = self.base_window / self.original_max_position_embeddings
        return RopePlan(
            **{
                **asdict(self),
                **self.base,
                "method": "none",
                "factor": max(1.0, factor),
                "hash": "base",
            }
        )

    def tables(self) -> dict[str | None, Table]:
        """The table of each layer type; one for all layers under None."""
        resting = None if self.resting_inv_freq is None else np.array(self.resting_inv_freq)
        found: dict[str | None, Table] = {
            self.layer_type: Table(np.array(self.inv_freq), self.attention_factor, resting)
        }
        for layer_type, other in self.others.items():
            found[layer_type] = Table(np.array(other["inv_freq"]), other["attention_factor"])
        return found


def make(rope: RopeConfig, config: PreTrainedConfig, name: str) -> RopePlan:
    """The plan for a base's config. Raises: ConfigError for a model whose RoPE is not handled, or settings that do not fit it."""
    shape = shapes.read_model_rope(config, rope, name)
    if isinstance(rope, TableConfig):
        refuse_table_of_another_base(rope, shape.rotary)
    rope = for_decoupled(resolve(rope, shape.rotary.original, shape.window), shape)
    unchanged = rope.method == "none"
    table = shape.base if unchanged else METHODS[rope.method].table(rope, shape.rotary)
    if isinstance(rope, TableConfig):
        refuse_other_parameters(rope, table, shape)
    parameters = shape.parameters if unchanged else hf_parameters(rope, table, shape)
    window = shape.window if unchanged else round(shape.rotary.original * scale(rope))
    if not unchanged and shape.scaled_already and window <= shape.window:
        raise ConfigError(
            f"rope.factor is {scale(rope):g}; the model is already scaled ({shape.parameters['rope_type']}) to {shape.window} tokens, and the factor "
            f"counts from the original {shape.rotary.original}, so it must be above {shape.window / shape.rotary.original:g}; raise it"
        )
    decides = {**_written(table, parameters, window, shape), "others": _others(config, shape)}
    return RopePlan(
        method=rope.method,
        factor=window / shape.rotary.original if unchanged else scale(rope),
        original_max_position_embeddings=shape.rotary.original,
        rope_theta=shape.rotary.theta,
        base=_written(shape.base, shape.parameters, shape.window, shape),
        layer_type=shape.layer_type,
        qk_head_dim=shape.qk_head_dim,
        hash=fingerprint(decides),
        **decides,
    )


def resolve(rope: RopeConfig, original: int, window: int) -> RopeConfig:
    """`factor` and `target_length`, each from the other. Raises: ConfigError when they disagree, scale nothing, or are missing."""
    if rope.method == "none":
        return replace(rope, factor=1.0)
    factor, target = rope.factor, rope.target_length
    if (
        factor is not None
        and target is not None
        and (said := list(disagreement(factor, target, original)))
    ):
        raise ConfigError(said[0])
    if factor is None and target is None:
        factor = _factor_of_file(rope, original, window)
    if factor is None:
        assert target is not None
        if target <= original:
            raise ConfigError(
                f"rope.target_length is {target}; the model already reads {original}; it must be longer; raise it, or rope=none"
            )
        factor = target / original
    return replace(rope, factor=float(factor), target_length=target)


def _factor_of_file(rope: RopeConfig, original: int, window: int) -> float:
    """The factor that a table's file says. Raises: ConfigError for a shorter window, and for a method without a file."""
    if not isinstance(rope, TableConfig):
        raise ConfigError(
            f"rope.factor is not set; rope={rope.method} needs a factor or a target_length; e.g. rope.factor=8"
        )
    found = FreeTable.read(rope)
    factor: float = found.get("factor") or found.get("max_position_embeddings", window) / original
    if factor < 1:
        raise ConfigError(
            f"rope.path is {rope.path}; its max_position_embeddings {found['max_position_embeddings']} must be at least the "
            f"original window {original}; give a table for this model"
        )
    return factor


def refuse_table_of_another_base(rope: TableConfig, rotary: Rotary) -> None:
    """Raises: ConfigError where a table's file names another theta or original window than the model has."""
    found = FreeTable.read(rope)
    for key, has, setting in (
        ("rope_theta", rotary.theta, ""),
        (
            "original_max_position_embeddings",
            rotary.original,
            ", or set rope.original_max_position_embeddings",
        ),
    ):
        if key in found and found[key] != has:
            raise ConfigError(
                f"rope.path is {rope.path}; it was made for {key} {found[key]}, the model has {has:g}; "
                f"they must be the same; give a table for this model{setting}"
            )


def refuse_other_parameters(rope: TableConfig, table: Table, shape: ModelRope) -> None:
    """Raises: ConfigError where a file's `rope_parameters`, which engines read, mean another table than its `inv_freq`."""
    parameters = FreeTable.read(rope).get("rope_parameters")
    if not parameters:
        return
    meant = _meant(rope, parameters, shape.rotary)
    same = meant.resting_inv_freq is None and np.allclose(
        meant.inv_freq, table.inv_freq, rtol=1e-6, atol=0
    )
    if not same or not np.isclose(
        meant.attention_factor, table.attention_factor, rtol=1e-6, atol=0
    ):
        raise ConfigError(
            f"rope.path is {rope.path}; its rope_parameters ({parameters['rope_type']}) mean another table than its inv_freq and "
            "attention_factor; they must mean the same; remove rope_parameters from an edited file"
        )


def _meant(rope: TableConfig, parameters: dict[str, Any], rotary: Rotary) -> Table:
    """The table that a file's `rope_parameters` mean. Raises: ConfigError for a form that is not read."""
    window, theta = round(rotary.original * scale(rope)), parameters.get("rope_theta")
    try:
        if theta is None or not is_number(theta, 1 + 1e-9):
            raise KeyError("rope_theta")
        # transformers puts the new window where no original one is said
        with np.errstate(all="ignore"):
            return shapes.table_from_parameters(
                parameters, Rotary(rotary.dim, float(theta), window), window
            )
    except (KeyError, TypeError, ValueError, ArithmeticError, ConfigError) as error:
        raise ConfigError(
            f"rope.path is {rope.path}; its rope_parameters must be a form that Ropewalk reads ({type(error).__name__}: {error}); "
            "correct them, or remove them from the file"
        ) from None


def for_decoupled(rope: RopeConfig, shape: ModelRope) -> RopeConfig:
    """YaRN's temperature, where cos and sin reach a part of each head only, goes into the softmax scale, as DeepSeek has it."""
    if not (isinstance(rope, YarnConfig) and shape.qk_head_dim):
        return rope
    if rope.attention_factor is None and rope.mscale is None:
        return replace(rope, mscale=1.0, mscale_all_dim=1.0)
    return rope


def hf_parameters(rope: RopeConfig, table: Table, shape: ModelRope) -> dict[str, Any]:
    """`rope_parameters` that mean the table, in words that this architecture's own code reads."""
    untruncated = getattr(rope, "truncate", True) is False
    if table.resting_inv_freq is None and (
        shape.architecture in shapes.ONLY_LONGROPE  # its config class refuses other words
        or (
            shape.layer_type and untruncated
        )  # transformers looks for `truncate` outside the layer type's own table
    ):
        found = as_longrope(table, scale(rope), shape.rotary)
    else:
        found = METHODS[rope.method].parameters(rope, shape.rotary)
    kept = {k: v for k, v in shape.parameters.items() if k == "partial_rotary_factor"}
    return {**found, **kept}


def _written(
    table: Table, parameters: dict[str, Any], window: int, shape: ModelRope
) -> dict[str, Any]:
    resting = table.resting_inv_freq
    return {
        "inv_freq": table.inv_freq.tolist(),
        "attention_factor": table.attention_factor,
        "resting_inv_freq": None if resting is None else resting.tolist(),
        "rope_parameters": parameters,
        "softmax_factor": _softmax_factor(parameters) if shape.qk_head_dim else 1.0,
        "max_position_embeddings": window,
    }


def _softmax_factor(parameters: dict[str, Any]) -> float:
    """The square of DeepSeek's mscale for all dimensions; architectures without decoupled dimensions do not read it."""
    mscale = parameters.get("mscale_all_dim")
    return get_mscale(parameters["factor"], mscale) ** 2 if mscale else 1.0


def _others(config: PreTrainedConfig, shape: ModelRope) -> dict[str, Any]:
    """Tables of the layers that are left alone."""
    found = {}
    for layer_type, parameters in (shape.others or {}).items():
        rotary = Rotary(shape.rotary.dim, float(parameters["rope_theta"]), shape.window)
        table = shapes.table_from_parameters(parameters, rotary, shape.window)
        found[layer_type] = {
            "inv_freq": table.inv_freq.tolist(),
            "attention_factor": table.attention_factor,
            "rope_parameters": parameters,
        }
    return found


def apply(plan: RopePlan, config: PreTrainedConfig) -> PreTrainedConfig:
    """Put the plan into a config, in place, **before** a model is built from it: a model does not read it later."""
    parameters: dict[str, Any] = dict(plan.rope_parameters)
    if plan.layer_type is not None:
        parameters = {t: dict(o["rope_parameters"]) for t, o in plan.others.items()} | {
            plan.layer_type: parameters
        }
    config.rope_parameters = parameters  # type: ignore[attr-defined]
    # dynamic NTK counts its growth from max_position_embeddings
    dynamic = plan.rope_parameters["rope_type"] == "dynamic"
    window = plan.original_max_position_embeddings if dynamic else plan.max_position_embeddings
    config.max_position_embeddings = window  # type: ignore[attr-defined]
    if (
        getattr(config, "head_dim", 0) is None
    ):  # Mixtral: transformers' YaRN and LongRoPE fail on a null
        config.head_dim = config.hidden_size // config.num_attention_heads  # type: ignore[attr-defined]
    if (
        getattr(config, "original_max_position_embeddings", None) is not None
    ):  # Phi-3 reads this one, not the parameters'
        config.original_max_position_embeddings = plan.original_max_position_embeddings
    return config
