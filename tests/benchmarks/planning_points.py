"""The published runs of published_memory.yaml and published_speeds.yaml, typed."""

from dataclasses import dataclass
from typing import Any

import common
import yaml

KNOWN = yaml.safe_load((common.HERE / "published_models.yaml").read_text())
DEEPSPEED = {
    "zero_prefetch_bucket_size": 50_000_000,
    "zero_max_live_parameters": 1_000_000_000,
    "zero_max_reuse_distance": 1_000_000_000,
    "zero_persistence_threshold": 100_000,
}
"""Its own defaults at ZeRO 3, which other programs leave as they are."""


@dataclass(frozen=True)
class Memory:
    """A published peak of one GPU in GiB."""

    run: str
    published: float
    kind: str
    """reserved, nvml (with the driver's own), allocated, unknown, or limit: no more than that."""
    source: str
    model: str
    tokens: int
    """Of a sequence."""
    gpus: int
    sp_size: int = 1
    sequences: int = 1
    """In a micro-batch."""
    zero_stage: int = 3
    checkpointing: bool = True
    offloads: tuple[str, ...] = ()
    """Of params, optimizer, activations."""
    tiles: bool = False
    """As ALST has them: as many tokens as the model is wide."""
    peers: tuple[str, ...] = ()
    """Parts of the other program; see planning_peers.py."""
    held: bool = False
    """Of one GPU or FSDP, and of known kind."""
    note: str = ""

    def train(self) -> dict[str, Any]:
        """The settings of `train` that are traced."""
        memory = {f"offload_{what}": True for what in self.offloads}
        memory["activation_checkpointing"] = self.checkpointing
        memory["keep_attention"] = "selective" in self.peers
        memory["tile_mlp_tokens"] = KNOWN["models"][self.model]["hidden"] if self.tiles else 0
        if self.zero_stage == 3 and "fsdp" not in self.peers:
            memory |= DEEPSPEED
        return {
            "precision": "bf16",
            "zero_stage": self.zero_stage,
            "sp_size": self.sp_size,
            "memory": memory,
        }

    @property
    def documents(self) -> tuple[int, ...]:
        return (self.tokens - self.tokens % self.sp_size,) * self.sequences

    @property
    def group(self) -> tuple[Any, ...]:
        """Points that one child can trace."""
        return self.gpus, self.sp_size, self.peers


@dataclass(frozen=True)
class Speed:
    """A published speed in tokens a second and GPU, or in TFLOP/s by NeMo's formula."""

    run: str
    source: str
    model: str
    tokens: int
    gpus: int
    published: float = 0.0
    tflops: float = 0.0
    sp_size: int = 1
    sequences: int = 1
    micro_batches: int = 1
    zero_stage: int = 3
    hardware: str = "h100"
    memory_tb_s: float = 0.0
    """Of the cards, where it is not that of the file."""
    recomputes: str = "all"
    """all, half (selective: the mean of all but attention, and nothing) or none."""
    is_fast: bool = False
    """Whether its attention is flash-attn 3 or cuDNN."""
    is_fused: bool = False
    """Whether norms and gated products are one kernel each."""
    is_fp8: bool = False
    tiles: bool = False
    lora: bool = False
    note: str = ""

    @property
    def tokens_per_s(self) -> float:
        if not self.tflops:
            return self.published
        shape = KNOWN["models"][self.model]
        hidden = shape["hidden"]
        of_token = 12 + 12 * shape["kv_heads"] / shape["heads"] + 18 * shape["inner"] / hidden
        of_token += 12 * self.tokens / hidden + 6 * shape["vocabulary"] / shape["layers"] / hidden
        return self.tflops * 1e12 / (of_token * shape["layers"] * hidden**2)


def points(kind: type, file: str) -> list[Any]:
    """The points of a file. A key `as` is `peers`."""
    rows = yaml.safe_load((common.HERE / file).read_text())
    for row in rows:
        if "as" in row:
            row["peers"] = row.pop("as")
    return [point_of(kind, row) for row in rows]


def point_of(kind: type, row: dict[str, Any]) -> Any:
    """From YAML or JSON, which have lists for tuples."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})


def config_of(model: str) -> dict[str, Any]:
    shape = KNOWN["models"][model]
    return {
        "model_type": shape.get("type", "llama"),
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["inner"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "vocab_size": shape["vocabulary"],
        "head_dim": 128,
        "max_position_embeddings": 1 << 20,
        "tie_word_embeddings": shape.get("tied", False),
    }
