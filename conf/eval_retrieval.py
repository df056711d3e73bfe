"""Settings of the retrieval tasks of eval."""

from dataclasses import dataclass

from ropewalk.conf.rules import setting

HAYSTACKS = 20
"""From which a cell of a figure has a colour."""
UNSET = "unset it for the default"


@dataclass(kw_only=True)
class KeyValueEvalConfig:
    """JSON key-value retrieval."""

    lengths: list[int] | None = setting(None, at_least=2, way_out=UNSET)
    """Lengths of the prompts, tokens; unset: the original window, doubled up to `eval.length`."""
    haystacks: int = setting(HAYSTACKS, at_least=1)
    """JSON objects for each length."""
    positions: int = setting(10, at_least=5)
    """Depths at which each object is asked about."""
    shots: int = setting(2, at_least=0)
    """Solved questions before the asked one."""
    digits: int | None = setting(None, at_least=2, at_most=18)
    """Digits of each key and value; unset: they are uuids, of about 25 tokens each."""
    max_new_tokens: int = setting(0, at_least=0)
    """Tokens to decode, which must hold the value; 0: the value must be the likeliest token by
    token, which one pass shows."""


@dataclass(kw_only=True)
class NeedleConfig:
    """Pass keys of several names in held-out text."""

    lengths: list[int] | None = setting(None, at_least=2, way_out=UNSET)
    """Lengths of the prompts, tokens; unset: the original window, doubled up to `eval.length`."""
    haystacks: int = setting(HAYSTACKS, at_least=1)
    """Texts for each length."""
    needles: int = setting(10, at_least=2, at_most=45)
    """Pass keys in each text, one a depth; every one is asked for."""
    single_haystacks: int = setting(4, at_least=0, way_out="0 leaves single needles out")
    """Texts with one needle, for each depth of `single_depths`, at the longest length."""
    single_depths: list[float] = setting(
        factory=lambda: [0.0, 0.5, 1.0], at_least=0, at_most=1, way_out="0 is the start of the text"
    )
    """Where the single needle stands."""


@dataclass(kw_only=True)
class MultiDocumentConfig:
    """Synthetic questions over many short biographies."""

    lengths: list[int] | None = setting(None, at_least=2, way_out=UNSET)
    """Lengths of the prompts, tokens; unset: the original window and `eval.length`."""
    haystacks: int = setting(HAYSTACKS, at_least=1)
    """Sets of documents for each length."""
    positions: int = setting(10, at_least=5)
    """Depths at which each set is asked about."""
    shots: int = setting(2, at_least=0)
    """Solved questions before the asked one."""
