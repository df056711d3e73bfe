"""Settings of the base model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ropewalk.conf.rules import setting

OFF = "off"


@dataclass(kw_only=True)
class ScratchConfig:
    """A Llama-architecture base with random weights and a byte-level BPE trained on the sources."""

    vocab_size: int = setting(
        at_least=260, way_out="a byte-level BPE needs 256 bytes and 4 special tokens"
    )
    """Tokens of the tokenizer, special tokens included."""
    hidden_size: int = setting(at_least=1)
    """Width of the residual stream."""
    intermediate_size: int = setting(at_least=1)
    """Width inside the MLP."""
    num_hidden_layers: int = setting(at_least=1)
    """Decoder layers."""
    num_attention_heads: int = setting(at_least=1)
    """Query heads; twice their number must divide `hidden_size`, because rotary dimensions come
    in pairs."""
    num_key_value_heads: int = setting(at_least=1)
    """Key and value heads; a divisor of `num_attention_heads`."""
    max_position_embeddings: int = setting(at_least=1)
    """The window that the base is trained at, tokens."""
    rope_theta: float = setting(10_000.0, above=1, way_out="e.g. 10000")
    """Base of the rotary frequencies."""
    tie_word_embeddings: bool = True
    """Use the input embeddings as the output head."""

    def problems(self, prefix: str) -> Iterator[str]:
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if heads >= 1 and self.hidden_size % (2 * heads):
            yield (
                f"{prefix}num_attention_heads is {heads}; hidden_size {self.hidden_size} must be "
                "a multiple of twice that (rotary dimensions come in pairs); change one of them"
            )
        elif groups >= 1 and heads % groups:
            yield (
                f"{prefix}num_key_value_heads is {groups}; it must divide num_attention_heads "
                f"{heads}; set a divisor"
            )


@dataclass(kw_only=True)
class ModelConfig:
    """The base model: where its weights come from."""

    path: str | None = None
    """Folder, hub name, or `builtin:demo`. Unset only with `scratch`."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    gguf_file: str | None = None
    """A GGUF file inside `path`; it is dequantised once and kept in the cache."""
    package: str | None = setting(None, fingerprint=False)
    """If this Python package is installed, the model is read from the GGUF file inside it
    instead of the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off: such a model is refused."""
    sliding_window: Any = setting(None, fingerprint="if_set")
    """Tokens of the sliding window of a base that has one in every layer (Mistral-7B-v0.1), or off
    for full attention; exported so. Unset: the base's own, refused where it is narrower than the
    new window."""
    scratch: ScratchConfig | None = None
    """A new base with random weights, in place of `path`."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from self._window_problems(prefix)
        if self.scratch is not None and self.path is not None:
            yield (
                f"{prefix}path is {self.path}; a model from {prefix}scratch has no path; unset "
                "one of them"
            )
        if self.scratch is None and self.path is None:
            yield (
                f"{prefix}path is not set; it must be a folder, a hub name or builtin:demo; e.g. "
                f"{prefix}path=builtin:demo"
            )

    def _window_problems(self, prefix: str) -> Iterator[str]:
        window = self.sliding_window
        if window is False:  # YAML reads a bare off as false
            yield f'{prefix}sliding_window is False; off must be text; write "off" in quotes'
        elif window not in (None, OFF) and (type(window) is not int or window < 1):
            yield (
                f"{prefix}sliding_window is {window}; it must be a whole number of tokens, or off; "
                f"e.g. {prefix}sliding_window=off"
            )
