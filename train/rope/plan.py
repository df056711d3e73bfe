"""The rope plan: what a method makes of this base, with the Hugging Face form that means the same, and a hash."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.manifest import fingerprint, read_json
from ropewalk.conf.schema import RopeConfig
from ropewalk.train.rope.methods import METHODS


@dataclass(frozen=True, kw_only=True)
class RopePlan:
    """The content of `rope.json`."""

    method: str
    factor: float
    original_max_position_embeddings: int
    max_position_embeddings: int
    rope_theta: float
    inv_freq: list[float]  # (d/2,) float64
    attention_factor: float
    rope_parameters: dict[str, Any]
    base: dict[str, Any]  # the same three of the base
    hash: str
    schema: int = 1

    @classmethod
    def read(cls, path: Path) -> "RopePlan":
        return cls(**{k: v for k, v in read_json(path).items() if k != "fingerprint"})

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def unscaled(self) -> "RopePlan":
        """The plan of the base itself: what eval's base column must hold against."""
        window = self.original_max_position_embeddings
        fields = {
            "method": "none",
            "factor": 1.0,
            "max_position_embeddings": window,
            **self.base,
            "hash": "base",
        }
        return RopePlan(**{**asdict(self), **fields})


def rope_theta(config: PreTrainedConfig) -> float:
    return float(_parameters(config)["rope_theta"])


def rotary_dim(config: PreTrainedConfig) -> int:
    head: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads  # type: ignore[attr-defined]
    return head


def _parameters(config: PreTrainedConfig) -> dict[str, Any]:
    return getattr(config, "rope_parameters", None) or {}


def refuse_unknown_shapes(config: PreTrainedConfig, name: str) -> None:
    """Raises: ConfigError for a model without RoPE, or with a form of it that is not handled, by name."""
    parameters = _parameters(config)
    kind = f"model.path is {name}; its architecture {config.model_type}"
    other = "choose a model with one plain rotary table, such as Llama, Mistral or Qwen2"
    if not parameters:
        raise ConfigError(f"{kind} has no rotary position embedding; Ropewalk rescales RoPE only; {other}")
    if "rope_theta" not in parameters:
        raise ConfigError(
            f"{kind} has a rotary table for each layer type ({', '.join(parameters)}); not handled yet; {other}"
        )
    if parameters.get("rope_type", "default") != "default":
        raise ConfigError(
            f"{kind} is already scaled (rope_type {parameters['rope_type']}); a second scaling would stack unseen; {other}"
        )
    if parameters.get("partial_rotary_factor", 1.0) != 1.0 or getattr(config, "partial_rotary_factor", 1.0) not in (
        None,
        1.0,
    ):
        raise ConfigError(f"{kind} rotates a part of each head only (partial_rotary_factor); not handled yet; {other}")
    if hasattr(config, "qk_rope_head_dim"):
        raise ConfigError(f"{kind} has decoupled rotary dimensions (qk_rope_head_dim); not handled yet; {other}")
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or [])
    if sliding or (getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)):
        raise ConfigError(
            f"{kind} has sliding-window attention; its window would hide what is extended; not handled yet; {other}"
        )


def make(rope: RopeConfig, config: PreTrainedConfig, name: str) -> RopePlan:
    """The plan for a base's config. Raises: ConfigError for a model whose RoPE is not handled."""
    refuse_unknown_shapes(config, name)
    dim, theta = rotary_dim(config), rope_theta(config)
    pretrained: int = config.max_position_embeddings  # type: ignore[attr-defined]
    original = rope.original_max_position_embeddings or pretrained
    if original > pretrained:
        raise ConfigError(
            f"rope.original_max_position_embeddings is {original}; the model was trained at {pretrained}; "
            "it must be the window of pre-training, not the new one; unset it"
        )
    method = METHODS[rope.method]
    table, base = (
        method.table(rope, dim, theta, original),
        METHODS["none"].table(RopeConfig(), dim, theta, original),
    )
    decides = {
        "inv_freq": table.inv_freq.tolist(),
        "attention_factor": table.attention_factor,
        "max_position_embeddings": round(original * rope.factor),
        "rope_parameters": method.parameters(rope, dim, theta, original),
    }
    return RopePlan(
        method=rope.method,
        factor=rope.factor,
        original_max_position_embeddings=original,
        rope_theta=theta,
        base={
            "inv_freq": base.inv_freq.tolist(),
            "attention_factor": base.attention_factor,
            "rope_parameters": METHODS["none"].parameters(RopeConfig(), dim, theta, original),
        },
        hash=fingerprint(decides),
        **decides,
    )


def apply(plan: RopePlan, config: PreTrainedConfig) -> PreTrainedConfig:
    """Put the plan into a config, in place, **before** a model is built from it: a model does not read it later."""
    config.rope_parameters = dict(plan.rope_parameters)  # type: ignore[attr-defined]
    config.max_position_embeddings = plan.max_position_embeddings  # type: ignore[attr-defined]
    return config


def summary(plan: RopePlan) -> str:
    """The plan in a few lines, for a terminal."""
    inv, base = np.array(plan.inv_freq), np.array(plan.base["inv_freq"])
    share = (1 - inv / base) / (1 - 1 / plan.factor) if plan.factor > 1 else np.zeros_like(inv)
    waves, before = 2 * np.pi / inv, 2 * np.pi / base
    lines = [
        f"rope plan {plan.method} x{plan.factor:g}: {plan.original_max_position_embeddings:,} -> {plan.max_position_embeddings:,} tokens, "
        f"theta {plan.rope_theta:g}, attention factor {plan.attention_factor:.4f}, hash {plan.hash[:12]}",
        f"{'dim':>5} {'wavelength before':>18} {'after':>12} {'rotations':>10} {'interpolated':>13}",
    ]
    for i in range(len(inv)):
        turns = plan.original_max_position_embeddings / before[i]
        lines.append(f"{i:>5} {before[i]:>18,.1f} {waves[i]:>12,.1f} {turns:>10.2f} {share[i]:>12.0%}")
    return "\n".join(lines)
