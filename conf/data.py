"""Settings of the data stage: sources, mixture, packing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ropewalk.conf.cleaning import ContaminationConfig, DuplicatesConfig
from ropewalk.conf.data_mixture import MixtureConfig
from ropewalk.conf.rules import setting
from ropewalk.conf.sources import SYNTHETIC, SourceConfig

PACKERS = ("window_fill", "best_fit", "concat", "single")
MAX_DOCUMENT_BYTES = 1 << 32  # a thousand times a long novel
OVERLONG = ("split", "truncate", "drop", "error")


@dataclass(kw_only=True)
class PoseConfig:
    """PoSE (arXiv 2309.10400): short sequences whose positions skip ahead, drawn anew each epoch,
    so that they cover a longer window."""

    target_length: int | None = None
    """The window that positions cover, tokens: the rope plan's new one; unset: no position is
    skipped."""
    chunks: int = setting(2, at_least=2, way_out="the paper has 2")
    """Parts of a document between which positions skip; the paper has 2."""


@dataclass(kw_only=True)
class DataConfig(MixtureConfig):
    seq_len: int = setting(at_least=2, way_out="e.g. data.seq_len=16384")
    """Tokens of one training sequence."""
    sources: dict[str, SourceConfig] = setting(factory=dict)
    """Where the documents come from, by a name of your choice."""
    total_tokens: int | None = None
    """Tokens in the plan (one epoch); unset: one pass over the source that runs out first."""
    heldout_share: float = setting(0.05, at_least=0, below=1, way_out="e.g. 0.05")
    """Share of the documents that are kept for eval, chosen by a hash of the document's id."""
    document_mask: bool = True
    """Attention stays inside a document."""
    positions: str = setting("restart", one_of=("restart", "continue"))
    """restart: each piece of a document starts at position 0; continue: one count through the
    sequence."""
    min_piece: int = setting(32, at_least=1)
    """No cut leaves a piece of a document shorter than this, tokens, except with `concat`, which
    cuts wherever a sequence ends."""
    packer: str = setting("window_fill", one_of=PACKERS)
    """window_fill (streaming, nearly full), best_fit (cuts only documents longer than a sequence),
    concat (documents end to end, cut at every border) or single (one document a sequence)."""
    overlong: str = setting("split", one_of=OVERLONG)
    """A document longer than `seq_len` or its source's `piece_len`: split, truncate (the rest is
    counted as cut), drop or error."""
    begin: Any = setting(None, way_out="bos, eos, or unset it for none")
    """The token before each document: its string, or bos or eos for the tokenizer's own; or its id,
    or a list of ids, such as a separator that is no token of its own (`<s>` is [45147, 29] in
    Llama 3). Budgets and lengths count them."""
    end: Any = setting(None, way_out="bos, eos, or unset it for none")
    """The token after each document, as `begin`; a truncated document has none."""
    duplicates: DuplicatesConfig = setting(factory=DuplicatesConfig)
    contamination: ContaminationConfig = setting(factory=ContaminationConfig)
    pose: PoseConfig = setting(factory=PoseConfig)
    max_document_bytes: int = setting(
        MAX_DOCUMENT_BYTES, at_least=1, way_out="e.g. 4294967296", fingerprint="if_set"
    )
    """Largest document: bytes of a text file, of a row or of its text. A larger one is refused and
    counted. Reading one takes about twice its size in memory; tokenising it takes no more."""
    tokenizer_threads: int | None = setting(
        None, at_least=1, way_out="unset it for one per core", fingerprint=False
    )
    """Threads that tokenise; unset: one per core."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from super().problems(prefix)
        if self.total_tokens is not None and self.total_tokens < self.seq_len:
            yield (
                f"{prefix}total_tokens is {self.total_tokens}; it must hold one sequence of "
                f"{prefix}seq_len {self.seq_len}; raise it"
            )
        if self.min_piece > max(self.seq_len, 1):
            yield (
                f"{prefix}min_piece is {self.min_piece}; it must be at most {prefix}seq_len "
                f"{self.seq_len}; lower it"
            )
        yield from self._pose_problems(prefix)
        yield from self._piece_problems(prefix)
        yield from self._source_problems(prefix)
        yield from self._weight_problems(prefix)
        weighted = any(s.weight is not None or s.length_weights for s in self.sources.values())
        yield from self.preset_problems(prefix, weighted)

    def _pose_problems(self, prefix: str) -> Iterator[str]:
        length = self.pose.target_length
        if length is None:
            return
        if length <= self.seq_len:
            yield (
                f"{prefix}pose.target_length is {length}; it must be above {prefix}seq_len "
                f"{self.seq_len}, or no position can be skipped; raise it, or unset it"
            )
        positions = "restart" if self.document_mask else "continue"
        if self.positions != positions:
            yield (
                f"{prefix}positions is {self.positions}; with {prefix}pose and "
                f"{prefix}document_mask={str(self.document_mask).lower()} the tokens that attend "
                f"to each other must have one count from 0; set {prefix}positions={positions}"
            )

    def _piece_problems(self, prefix: str) -> Iterator[str]:
        boundary = {"begin": self.begin, "end": self.end}
        tokens = {key: token for key, token in boundary.items() if token is not None}
        if lines := [
            line for key in tokens for line in boundary_problems(prefix, key, tokens[key])
        ]:
            yield from lines
            return
        count = sum(len(token) if isinstance(token, list) else 1 for token in tokens.values())
        for name, source in self.sources.items():
            length = self.seq_len if source.piece_len is None else source.piece_len
            if source.piece_len is not None and not self.min_piece <= length <= self.seq_len:
                yield (
                    f"{prefix}sources.{name}.piece_len is {length}; it must be between "
                    f"{prefix}min_piece {self.min_piece} and {prefix}seq_len {self.seq_len}; "
                    f"unset it for {prefix}seq_len"
                )
            elif 1 <= length <= count:
                key, token = next(iter(tokens.items()))
                yield (
                    f"{prefix}{key} is {token}; a piece of {name} has {length} tokens, and "
                    f"{prefix}begin and {prefix}end leave no room for text; raise "
                    f"{prefix}seq_len or piece_len"
                )

    def _source_problems(self, prefix: str) -> Iterator[str]:
        if self.sources and not any(source.loss for source in self.sources.values()):
            yield (
                "every source has loss=false, so there would be no labels; "
                "set loss=true on at least one source"
            )
        texts = [name for name, source in self.sources.items() if source.kind not in SYNTHETIC]
        for name, source in self.sources.items():
            if name not in texts and source.filler not in texts:
                yield (
                    f"{prefix}sources.{name}.filler is {source.filler}; it must name another "
                    f"source; one of {', '.join(sorted(texts))}"
                )

    def missing_source_problems(self, prefix: str) -> list[str]:
        """A line without a source, for the verbs that read documents."""
        if self.sources:
            return []
        return [
            f"{prefix}sources is empty; it must name at least one source; e.g. "
            f"{prefix}sources.mine.path=./documents"
        ]

    def _weight_problems(self, prefix: str) -> Iterator[str]:
        weights = {name: source.weight for name, source in self.sources.items()}
        total = sum(weight or 0 for weight in weights.values())
        missing = [name for name, weight in weights.items() if weight is None]
        if len(missing) < len(weights):
            for name in missing:
                yield (
                    f"{prefix}sources.{name}.weight is not set; either every source has a weight "
                    "or none; set it"
                )
            if not total > 0:
                yield (
                    f"{prefix}sources weights add up to 0; at least one must be above 0; set a "
                    "share such as 0.5"
                )
        elif any(source.kind in SYNTHETIC for source in self.sources.values()):
            yield (
                f"{prefix}sources has a synthetic source and no weights; its share must be given; "
                "set weights for all"
            )


def boundary_problems(prefix: str, key: str, token: object) -> Iterator[str]:
    """A line for a `begin` or `end` that is neither text nor ids."""
    ids = token if isinstance(token, list) else [token]
    is_text = isinstance(token, str)
    if not is_text and not (ids and all(type(i) is int and i >= 0 for i in ids)):
        yield (
            f"{prefix}{key} is {token}; it must be a token's string, bos, eos, an id of at least "
            f"0, or a list of ids; e.g. {prefix}{key}=[45147,29]"
        )
