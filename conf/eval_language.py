"""Settings of the language-modelling tasks: which held-out text is read, and in what windows."""

from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.rules import setting

UNSET = "unset it for the default"


@dataclass(kw_only=True)
class SlidingConfig:
    """Perplexity of windows that slide over a document, each laid out as a training document is."""

    windows: list[int] | None = setting(None, at_least=2, way_out=UNSET)
    """Windows, tokens; unset: the original window and `eval.length`."""
    stride: int | None = setting(None, at_least=1, way_out=UNSET)
    """Tokens from one window to the next, below each window; unset: half of the window."""
    documents: int = setting(8, at_least=1)
    """Held-out documents with at least the longest window's tokens."""
    max_tokens: int | None = setting(None, at_least=2, way_out=UNSET)
    """Tokens that are read of a document; unset: the longest window, which then does not slide."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from stride_problems(prefix, self.stride, self.windows)


@dataclass(kw_only=True)
class YarnCompatConfig:
    """Perplexity as the YaRN repository computes it."""

    lengths: list[int] | None = setting(None, at_least=2, way_out=UNSET)
    """Lengths of its truncated mode, tokens with what is prepended; unset: as `points` says."""
    points: int | None = setting(None, at_least=1, way_out=UNSET)
    """Evenly spaced lengths up to `eval.length` (64 in YaRN's curve); unset: the original window,
    doubled up to `eval.length`."""
    documents: int = setting(10, at_least=1)
    """Held-out documents of the truncated mode."""
    min_tokens: int | None = setting(None, at_least=1, way_out=UNSET)
    """Fewest tokens of such a document; unset: as many as the longest length reads."""
    windows: list[int] | None = setting(None, at_least=2, way_out=UNSET)
    """Windows of its sliding mode, tokens; unset: the original window and `eval.length`; []:
    without that mode."""
    stride: int | None = setting(None, at_least=1, way_out=UNSET)
    """Tokens from one window to the next; unset: YaRN's 256, and a quarter of a window below
    1,024."""
    sliding_documents: int = setting(8, at_least=1)
    """Held-out documents of the sliding mode."""
    sliding_min_tokens: int | None = setting(None, at_least=1, way_out=UNSET)
    """Fewest tokens of such a document; unset: half of the longest window, as in YaRN's GovReport
    run. A shorter document than the window is one window."""
    max_tokens: int | None = setting(None, at_least=2, way_out=UNSET)
    """Tokens that the sliding mode reads of a document; unset: `eval.length`."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from stride_problems(prefix, self.stride, self.windows)


@dataclass(kw_only=True)
class PiCompatConfig:
    """Perplexity as in Position Interpolation: only the new tokens of each window count."""

    windows: list[int] | None = setting(None, at_least=2, way_out=UNSET)
    """Windows, tokens; unset: the original window and `eval.length`."""
    stride: int | None = setting(None, at_least=1, way_out=UNSET)
    """Tokens from one window to the next; unset: PI's 256, and a quarter of a window below
    1,024."""
    documents: int = setting(8, at_least=1)
    """Held-out documents."""
    min_tokens: int | None = setting(None, at_least=1, way_out=UNSET)
    """Fewest tokens of such a document; unset: half of the longest window."""
    max_tokens: int | None = setting(None, at_least=2, way_out=UNSET)
    """Tokens that are read of a document; unset: `eval.length`, as PI cuts Proof-pile."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from stride_problems(prefix, self.stride, self.windows)


@dataclass(kw_only=True)
class SwappedGainConfig:
    """Loss with another document's text before the last tokens, against the true text."""

    kept_tokens: int | None = setting(None, at_least=1, way_out=UNSET)
    """Tokens at a window's end that stay; unset: the original window."""


@dataclass(kw_only=True)
class FarCopyConfig:
    """Loss of tokens that repeat what followed the same k-gram earlier in the document."""

    k: int = setting(6, at_least=1, at_most=64)
    """Tokens of the k-gram before the target."""
    far: int | None = setting(None, at_least=1, way_out=UNSET)
    """Distance from which a copy is far, tokens; unset: the original window."""


@dataclass(kw_only=True)
class LongPplConfig:
    """LongPPL (arXiv 2410.23771): perplexity of the tokens that need a long context."""

    evaluator: str | None = setting(None, way_out=UNSET)
    """Column that chooses the key tokens for all columns; unset: the judged one (`eval.judged`)."""
    windows: int = setting(8, at_least=1)
    """Windows of held-out text that are read, the first ones of `eval.windows`."""
    short_context: int | None = setting(None, at_least=1, way_out=UNSET)
    """Fewest tokens of short context before a target; unset: the paper's 4,096, or the original
    window where that is less."""
    block: int | None = setting(None, at_least=1, way_out=UNSET)
    """Targets of one pass with short context; unset: a quarter of `short_context`."""
    gain: float = setting(2.0, at_least=0)
    """Nats that the long context must gain on a key token, more than this."""
    loss: float = setting(2.0, above=0)
    """Nats that a key token's loss with long context must be below."""
    min_key_tokens: int = setting(20, at_least=1)
    """Key tokens below which nothing is measured."""


def stride_problems(prefix: str, stride: int | None, windows: list[int] | None) -> Iterator[str]:
    """A stride as long as a window skips tokens."""
    if stride is not None and windows and stride >= min(windows):
        yield (
            f"{prefix}stride is {stride}; it must be below the shortest of {prefix}windows, "
            f"{min(windows)}, or tokens between two windows are skipped; lower it"
        )
