"""The settings of the data stage: sources, mixture, packing."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from ropewalk.conf import reading
from ropewalk.conf.cleaning import ContaminationConfig, DuplicatesConfig
from ropewalk.conf.fields import neutral
from ropewalk.conf.mixing import MixtureConfig, SourceLengths
from ropewalk.conf.pose import PoseConfig

KINDS = ("auto", *reading.FILES, *reading.TABLES, "passkey", "repeat")
SYNTHETIC = ("passkey", "repeat")
PACKERS = ("window_fill", "best_fit", "concat", "single")
OVERLONG = ("split", "truncate", "drop", "error")


@dataclass(kw_only=True)
class SourceConfig(SourceLengths):
    path: str | None = None
    """File, folder, glob (books/**/*.jsonl) or URL that fsspec reads (s3://, hf://, https://); with kind=hub the name of a dataset;
    or `python:stdlib`, the standard library of the running Python, one document a package."""
    kind: str = "auto"
    """tree (one document a sub-folder), text, html, jsonl, parquet, arrow (also a folder that datasets saved) or hub (a dataset's
    name); auto looks at the files' names. passkey and repeat are synthetic and need `filler`."""
    text_key: str = "text"
    """The column or field that holds the text (jsonl, parquet, arrow, hub)."""
    template: str | None = None
    """Instead of `text_key`: a text with columns in braces, such as "{title}: {body}"; {{ and }} are braces. A command line's \\n is
    no new line: write one in YAML, or $'{title}\\n{body}' in a shell."""
    id_key: str | None = None
    """The column of a document's id, text or whole number; unset: the file and the place in it."""
    pattern: str | None = None
    """Glob of the files inside a folder, by name, or by the path inside when it has a slash; unset: by kind."""
    config: str | None = None
    """Which of a hub dataset's configurations."""
    split: str | None = None
    """Which split of a hub or saved dataset; unset: its only one."""
    revision: str | None = None
    """Branch, tag or commit of a hub dataset."""
    follow_links: bool = False
    """Read files that a link inside the folder leads to outside of it (a hub's cache); links to folders are never followed."""
    weight: float | None = None
    """Share of the plan's tokens, relative to the other sources; unset everywhere: every document once."""
    loss: bool = True
    """false: the source is read as context and teaches nothing, none of its labels counts."""
    filler: str | None = None
    """Synthetic kinds: the source whose text surrounds what is to be found."""
    piece_len: int | None = None
    """The longest piece of this source's documents, tokens; longer documents follow `data.overlong`; unset: `data.seq_len`."""

    def problems(self, at: str, names: set[str]) -> Iterator[str]:
        if self.kind not in KINDS:
            yield f"{at}.kind is {self.kind}; it must be one of {', '.join(KINDS)}; choose one"
        if self.kind in SYNTHETIC and self.filler not in names:
            yield f"{at}.filler is {self.filler}; it must name another source; one of {', '.join(sorted(names))}"
        if self.kind not in SYNTHETIC and self.path is None:
            yield f"{at}.path is not set; it must be a file, folder, glob, URL, name or python:stdlib; e.g. {at}.path=./documents"
        yield from reading.problems(self, at)
        if self.weight is not None and not (math.isfinite(self.weight) and self.weight >= 0):
            yield f"{at}.weight is {self.weight}; it must be a finite number of at least 0; set a share such as 0.3"
        yield from self.length_problems(at, self.kind in SYNTHETIC)


@dataclass(kw_only=True)
class DataConfig(MixtureConfig):
    seq_len: int
    """Tokens of one training sequence."""
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    tokens: int | None = None
    """Tokens in the plan (one epoch); unset: one pass over the source that runs out first."""
    heldout: float = 0.05
    """Share of the documents kept for eval, chosen by a hash of the document's id."""
    document_mask: bool = True
    """Attend only inside one's own document."""
    positions: str = "restart"
    """restart: each piece of a document starts at position 0; continue: one count through the sequence."""
    min_piece: int = 32
    """A document is not cut to leave a piece shorter than this, tokens; `concat` cuts where a sequence ends all the same."""
    packer: str = "window_fill"
    """window_fill (streaming, nearly full), best_fit (cuts only what is longer than a sequence), concat (documents end to end,
    cut at every border) or single (one document a sequence)."""
    overlong: str = "split"
    """A document longer than `seq_len` or its source's `piece_len`: split, truncate (the rest is counted as cut), drop or error."""
    begin: str | None = None
    """The token before each document: by its string, or bos or eos, the tokenizer's own. Budgets and lengths count it.
    On the command line a string such as <s> needs quotes inside quotes: 'data.begin="<s>"'."""
    end: str | None = None
    """The token after each document, as `begin`; a document that is cut short has none."""
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    contamination: ContaminationConfig = field(default_factory=ContaminationConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)
    workers: int | None = neutral()
    """Threads that tokenise; unset: the cores."""

    def problems(self) -> Iterator[str]:
        if self.seq_len < 2:
            yield f"data.seq_len is {self.seq_len}; it must be at least 2 tokens; e.g. data.seq_len=16384"
        if not self.sources:
            yield "data.sources is empty; it must name at least one source; e.g. data.sources.mine.path=./documents"
        if not 0 <= self.heldout < 1:
            yield f"data.heldout is {self.heldout}; it must be at least 0 and below 1; e.g. 0.05"
        if self.positions not in ("restart", "continue"):
            yield f"data.positions is {self.positions}; it must be restart or continue; choose one"
        if self.tokens is not None and self.tokens < self.seq_len:
            yield f"data.tokens is {self.tokens}; it must hold one sequence of data.seq_len {self.seq_len}; set more"
        if not 1 <= self.min_piece <= max(self.seq_len, 1):
            yield f"data.min_piece is {self.min_piece}; it must be between 1 and data.seq_len {self.seq_len}; set less"
        for name, choices in (("packer", PACKERS), ("overlong", OVERLONG)):
            if getattr(self, name) not in choices:
                yield f"data.{name} is {getattr(self, name)}; it must be one of {', '.join(choices)}; choose one"
        if self.workers is not None and self.workers < 1:
            yield f"data.workers is {self.workers}; it must be at least 1; unset it for the cores"
        yield from self._piece_problems()
        yield from self.duplicates.problems("data.duplicates")
        yield from self.contamination.problems("data.contamination")
        yield from self.pose.problems(self.seq_len, self.document_mask, self.positions)
        yield from self.mixture_problems(self.sources.values())
        if self.sources and not any(source.loss for source in self.sources.values()):
            yield "data.sources have loss false, all of them; at least one must teach; leave it out of one of them"
        weights = {name: s.weight for name, s in self.sources.items()}
        if any(w is not None for w in weights.values()):
            for name, weight in weights.items():
                if weight is None:
                    yield f"data.sources.{name}.weight is not set; either every source has a weight or none; set it"
            if not sum(w or 0 for w in weights.values()) > 0:
                yield "data.sources weights add up to 0; at least one must be above 0; set a share such as 0.5"
        elif any(s.kind in SYNTHETIC for s in self.sources.values()):
            yield "data.sources has a synthetic source and no weights; its share must be said; set weights for all"
        for name, source in self.sources.items():
            others = {n for n, s in self.sources.items() if s.kind not in SYNTHETIC}
            yield from source.problems(f"data.sources.{name}", others)

    def _piece_problems(self) -> Iterator[str]:
        marks = {key: getattr(self, key) for key in ("begin", "end") if getattr(self, key) is not None}
        for key in [key for key, word in marks.items() if not word]:
            yield f"data.{key} is empty; it must be a token of the tokenizer, bos or eos; unset it for none"
        for name, source in self.sources.items():
            length = source.piece_len
            if length is not None and not self.min_piece <= length <= self.seq_len:
                yield (
                    f"data.sources.{name}.piece_len is {length}; it must be between data.min_piece {self.min_piece} and "
                    f"data.seq_len {self.seq_len}; unset it for data.seq_len"
                )
            elif marks and 1 <= (length or self.seq_len) <= len(marks):
                yield (
                    f"data.{next(iter(marks))} is {next(iter(marks.values()))}; a piece of {name} has {length or self.seq_len} "
                    f"tokens, and data.begin and data.end leave no room for text; raise data.seq_len or piece_len"
                )
