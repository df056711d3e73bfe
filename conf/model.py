""""""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.rules import setting


@dataclass(kw_only=True)
class ScratchConfig:
    """A Llama-architecture base made from nothing: random weights and a byte-level BPE trained on the sources."""

    vocab_size: int  # words of the tokenizer, special tokens included
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int  # the window it is trained at, tokens
    rope_theta: float = 10_000.0
    tie_word_embeddings: bool = True

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
    scratch: ScratchConfig | None = None

    def problems(self) -> Iterator[str]:
        if self.scratch is not None:
            yield from self.scratch.problems("model.scratch")
            if self.path is not None:
                yield f"model.path is {self.path}; a model from model.scratch has no path; unset one of them"
        elif self.path is None:
            yield "model.path is not set; it must be a folder, a hub name or builtin:demo; e.g. model.path=builtin:demo"
