"""The settings of the data stage: sources, mixture, packing."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ropewalk.conf.cleaning import ContaminationConfig, DuplicatesConfig
from ropewalk.conf.data_mixture import MixtureConfig
from ropewalk.conf.rules import problems as rule_problems
from ropewalk.conf.rules import setting
from ropewalk.conf.sources import SYNTHETIC, SourceConfig

PACKERS = ("window_fill", "best_fit", "concat", "single")
OVERLONG = ("split", "truncate", "drop", "error")


@dataclass(kw_only=True)
class PoseConfig:
    """PoSE (arXiv 2309.10400): short sequences whose positions skip ahead, drawn anew each
    epoch, so that they cover a longer window."""

    target_length: int | None = None
    """The window that positions cover, tokens: the rope plan's new one; unset: no position is
    skipped."""
    chunks: int = 2
    """Parts of a document between which positions skip; the paper has 2."""

    def problems(self, seq_len: int, document_mask: bool, positions: str) -> Iterator[str]:
        if self.chunks < 2:
            yield (
                f"data.pose.chunks is {self.chunks}; positions skip between at least 2; the paper "
                "has 2"
            )
        if self.target_length is None:
            return
        if self.target_length <= seq_len:
            yield (
                f"data.pose.target_length is {self.target_length}; it must be above data.seq_len "
                f"{seq_len}, or nothing can be skipped; raise it, or unset it"
            )
        wanted = "restart" if document_mask else "continue"
        if positions != wanted:
            yield (
                f"data.positions is {positions}; with data.pose and "
                f"data.document_mask={str(document_mask).lower()} the positions of what attends "
                f"to itself must be one count from 0; set data.positions={wanted}"
            )


@dataclass(kw_only=True)
class DataConfig(MixtureConfig):
    seq_len: int
    """Tokens of one training sequence."""
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """Where the documents come from, by a name of your choice."""
    total_tokens: int | None = None
    """Tokens in the plan (one epoch); unset: one pass over the source that runs out first."""
    heldout_share: float = 0.05
    """Share of the documents kept for eval, chosen by a hash of the document's id."""
    document_mask: bool = True
    """Attend only inside one's own document."""
    positions: str = "restart"
    """restart: each piece of a document starts at position 0; continue: one count through the
    sequence."""
    min_piece: int = 32
    """A document is not cut to leave a piece shorter than this, tokens; `concat` cuts where a
    sequence ends all the same."""
    packer: str = "window_fill"
    """window_fill (streaming, nearly full), best_fit (cuts only what is longer than a sequence),
    concat (documents end to end, cut at every border) or single (one document a sequence)."""
    overlong: str = "split"
    """A document longer than `seq_len` or its source's `piece_len`: split, truncate (the rest is
    counted as cut), drop or error."""
    begin: str | None = None
    """The token before each document: by its string, or bos or eos, the tokenizer's own. Budgets
    and lengths count it. On the command line a string such as <s> needs quotes inside quotes:
    'data.begin="<s>"'."""
    end: str | None = None
    """The token after each document, as `begin`; a document that is cut short has none."""
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    contamination: ContaminationConfig = field(default_factory=ContaminationConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)
    tokenizer_threads: int | None = setting(None, fingerprint=False)
    """Threads that tokenise; unset: one per core."""

    def problems(self) -> Iterator[str]:
        if self.seq_len < 2:
            yield (
                f"data.seq_len is {self.seq_len}; it must be at least 2 tokens; e.g. "
                "data.seq_len=16384"
            )
        if not self.sources:
            yield (
                "data.sources is empty; it must name at least one source; e.g. "
                "data.sources.mine.path=./documents"
            )
        if not 0 <= self.heldout_share < 1:
            yield (
                f"data.heldout_share is {self.heldout_share}; it must be at least 0 and below 1; "
                "e.g. 0.05"
            )
        if self.positions not in ("restart", "continue"):
            yield f"data.positions is {self.positions}; it must be restart or continue; choose one"
        if self.total_tokens is not None and self.total_tokens < self.seq_len:
            yield (
                f"data.total_tokens is {self.total_tokens}; it must hold one sequence of "
                f"data.seq_len {self.seq_len}; set more"
            )
        if not 1 <= self.min_piece <= max(self.seq_len, 1):
            yield (
                f"data.min_piece is {self.min_piece}; it must be between 1 and data.seq_len "
                f"{self.seq_len}; set less"
            )
        for name, choices in (("packer", PACKERS), ("overlong", OVERLONG)):
            if getattr(self, name) not in choices:
                yield (
                    f"data.{name} is {getattr(self, name)}; it must be one of "
                    f"{', '.join(choices)}; choose one"
                )
        if self.tokenizer_threads is not None and self.tokenizer_threads < 1:
            yield (
                f"data.tokenizer_threads is {self.tokenizer_threads}; it must be at least 1; "
                "unset it for the cores"
            )
        yield from self._piece_problems()
        yield from rule_problems(self.duplicates, "data.duplicates.")
        yield from rule_problems(self.contamination, "data.contamination.")
        yield from self.pose.problems(self.seq_len, self.document_mask, self.positions)
        yield from self.mixture_problems(self.sources.values())
        if self.sources and not any(source.loss for source in self.sources.values()):
            yield (
                "every source has loss=false, so there would be no labels; "
                "set loss=true on at least one source"
            )
        weights = {name: s.weight for name, s in self.sources.items()}
        if any(w is not None for w in weights.values()):
            for name, weight in weights.items():
                if weight is None:
                    yield (
                        f"data.sources.{name}.weight is not set; either every source has a weight "
                        "or none; set it"
                    )
            if not sum(w or 0 for w in weights.values()) > 0:
                yield (
                    "data.sources weights add up to 0; at least one must be above 0; set a share "
                    "such as 0.5"
                )
        elif any(s.kind in SYNTHETIC for s in self.sources.values()):
            yield (
                "data.sources has a synthetic source and no weights; its share must be said; set "
                "weights for all"
            )
        for name, source in self.sources.items():
            others = {n for n, s in self.sources.items() if s.kind not in SYNTHETIC}
            yield from source.problems(f"data.sources.{name}", others)

    def _piece_problems(self) -> Iterator[str]:
        marks = {
            key: getattr(self, key) for key in ("begin", "end") if getattr(self, key) is not None
        }
        for key in [key for key, word in marks.items() if not word]:
            yield (
                f"data.{key} is empty; it must be a token of the tokenizer, bos or eos; unset it "
                "for none"
            )
        for name, source in self.sources.items():
            length = source.piece_len
            if length is not None and not self.min_piece <= length <= self.seq_len:
                yield (
                    f"data.sources.{name}.piece_len is {length}; it must be between "
                    f"data.min_piece {self.min_piece} and data.seq_len {self.seq_len}; unset it "
                    "for data.seq_len"
                )
            elif marks and 1 <= (length or self.seq_len) <= len(marks):
                yield (
                    f"data.{next(iter(marks))} is {next(iter(marks.values()))}; a piece of {name} "
                    f"has {length or self.seq_len} tokens, and data.begin and data.end leave no "
                    "room for text; raise data.seq_len or piece_len"
                )
