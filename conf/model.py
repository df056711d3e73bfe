""""""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.rules import setting


@dataclass(kw_only=True)
class ScratchConfig:
    """A Llama-architecture base made from nothing: random weights and a byte-level BPE trained on the sources."""

    vocab_size: int
    """Tokens of the vocabulary, special tokens included; at least 260."""
    hidden_size: int
    """Dimensions of the residual stream; a multiple of twice `num_attention_heads`."""
    intermediate_size: int
    """Dimensions of the MLP between its two projections."""
    num_hidden_layers: int
    """Number of decoder layers."""
    num_attention_heads: int
    """Number of query heads in each layer."""
    num_key_value_heads: int
    """Number of key and value heads in each layer; a divisor of `num_attention_heads`."""
    max_position_embeddings: int
    """The window that the model is trained at, tokens."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    tie_word_embeddings: bool = True
    """Whether the output head shares the weights of the token embeddings."""

    def problems(self, at: str) -> Iterator[str]:
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "max_position_embeddings",
        ):
            if getattr(self, name) < 1:
                yield f"{at}.{name} is {getattr(self, name)}; it must be at least 1; raise it"
        if not (math.isfinite(self.rope_theta) and self.rope_theta > 1):
            yield f"{at}.rope_theta is {self.rope_theta}; it must be a finite number above 1; e.g. 10000"
        if self.vocab_size < 260:
            yield f"{at}.vocab_size is {self.vocab_size}; a byte-level BPE needs 256 bytes and 4 special words; set 260 or more"
        if self.num_attention_heads < 1 or self.hidden_size % (
            2 * max(self.num_attention_heads, 1)
        ):
            yield (
                f"{at}.num_attention_heads is {self.num_attention_heads}; hidden_size {self.hidden_size} must be "
                "a multiple of twice that (rotary dimensions come in pairs); change one of them"
            )
        elif self.num_key_value_heads < 1 or self.num_attention_heads % self.num_key_value_heads:
            yield (
                f"{at}.num_key_value_heads is {self.num_key_value_heads}; it must divide num_attention_heads "
                f"{self.num_attention_heads}; set a divisor"
            )


@dataclass(kw_only=True)
class ModelConfig:
    path: str | None = None
    """Folder, hub name, or `builtin:demo`. Unset only with `scratch`."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    gguf_file: str | None = None
    """A GGUF file inside `path`; it is dequantised once and kept in the cache."""
    package: str | None = setting(None, fingerprint=False)
    """If this Python package is installed, the model is taken from the GGUF file it carries, not from the hub."""
    trust_remote_code: bool = False
    """Whether transformers may run the Python code that comes with the model."""
    scratch: ScratchConfig | None = None
    """The architecture of a new model with random weights, in place of `path`."""

    def problems(self) -> Iterator[str]:
        if self.scratch is not None:
            yield from self.scratch.problems("model.scratch")
            if self.path is not None:
                yield f"model.path is {self.path}; a model from model.scratch has no path; unset one of them"
        elif self.path is None:
            yield "model.path is not set; it must be a folder, a hub name or builtin:demo; e.g. model.path=builtin:demo"
