"""The plan over its stores: sequences by number, whole or one rank's slice, in constant time and with no state.

Legend: S tokens of one sequence, P pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import read_json
from ropewalk.conf.data import DataConfig
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.loading import balance
from ropewalk.data.loading.collate import Layout, Read, Row, layout, read_span
from ropewalk.data.loading.label_mask import mask_labels
from ropewalk.data.loading.pose import Pose
from ropewalk.data.tokens import store as token_store
from ropewalk.data.tokens.arrow_table import to_numpy
from ropewalk.data.tokens.boundaries import BoundaryTokens
from ropewalk.data.tokens.store import Store


class PackedSequences:
    """What a finished plan holds. `pose` skips positions ahead, by sequence and epoch; of the stores `silent` (by place) no label
    counts."""

    def __init__(
        self,
        plan: Path,
        stores: Sequence[Path],
        pose: Pose | None = None,
        silent: Sequence[int] = (),
    ) -> None:
        facts = manifest.read(plan)
        assert facts is not None, f"{plan.name} is not finished"
        self.seq_len: int = facts.facts["seq_len"]
        self.document_mask: bool = facts.facts["document_mask"]
        self.restart: bool = facts.facts["positions"] == "restart"
        self.marks = BoundaryTokens(facts.facts.get("begin"), facts.facts.get("end"))
        self.pose, self.silent = pose, np.isin(np.arange(len(stores)), silent)
        self.stores = [token_store.load(folder, heldout=0.0) for folder in stores]
        self.first = np.cumsum([0, *(len(s.length) for s in self.stores)])
        column = (
            pa.ipc.open_file(pa.memory_map(str(plan / "plan.arrow")))
            .read_all()["pieces"]
            .combine_chunks()
        )
        self.offsets = to_numpy(column.offsets)
        flat = column.values
        self.document, self.start, self.length = (
            to_numpy(flat.field(k)) for k in ("document", "start", "length")
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> Row:
        """Sequence `number` of the first epoch, padded to S with a pad document of its own."""
        return self.read(number)

    def read(self, number: int, epoch: int = 0, low: int = 0, high: int | None = None) -> Row:
        """Places `[low, high)` of a sequence, with the borders of all of it; only the pieces that stand there are read."""
        span = self._span(number)
        at = layout(
            self.length[span], self.seq_len, document_mask=self.document_mask, restart=self.restart
        )
        if self.pose is not None:
            at = _skipping(at, self.pose, number, epoch)
        row = read_span(at, self._pieces(span), low, self.seq_len if high is None else high)
        if self.silent.any():
            quiet = self._silent(span)
            mask_labels(row.labels, at.starts[quiet], at.ends[quiet], low)
        return row

    def _silent(self, span: slice) -> np.ndarray:
        """(P,) which pieces are of sources that teach nothing."""
        found: np.ndarray = self.silent[
            self.first.searchsorted(self.document[span], side="right") - 1
        ]
        return found

    def _pieces(self, span: slice) -> Read:
        """Reads the pieces at `span` by their place in it. Called for every piece, so it is given plain numbers."""
        sources = self.first.searchsorted(self.document[span], side="right") - 1
        indices, starts = (
            (self.document[span] - self.first[sources]).tolist(),
            self.start[span].tolist(),
        )
        stores = [self.stores[source] for source in sources.tolist()]
        if self.marks.count:
            return lambda at, start, length: self.marks.read(
                stores[at], indices[at], starts[at] + start, length
            )
        return lambda at, start, length: stores[at].document(
            indices[at], starts[at] + start, length
        )

    def num_tokens(self, number: int) -> int:
        """How many of the S are no padding."""
        return int(self.length[self._span(number)].sum())

    def num_labels(self, number: int) -> int:
        """How many labels of the sequence count, read off the plan: every token of a piece but its last."""
        span = self._span(number)
        lengths = self.length[span][~self._silent(span)] if self.silent.any() else self.length[span]
        return int(lengths.sum()) - len(lengths)

    def attention_work(self, number: int) -> int:
        """The attention's work on the sequence, read off the plan."""
        lengths = self.length[self._span(number)]
        return int(
            balance.attention_work(
                lengths, np.array([0, len(lengths)]), self.seq_len, self.document_mask
            )[0]
        )

    def piece_sources(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The pieces of a sequence: how long each is, and the place of the store that it is of. (P,) both, read off the plan."""
        span = self._span(number)
        return self.length[span], self.first.searchsorted(self.document[span], side="right") - 1

    def _span(self, number: int) -> slice:
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))


def _skipping(at: Layout, pose: Pose, number: int, epoch: int) -> Layout:
    """Every stretch that attends to itself skips ahead on its own."""
    borders = at.cu_seqlens.astype(np.int64)
    runs, shifts = pose.runs(number, epoch, borders[:-1], np.diff(borders))
    return replace(at, window=pose.target_length, runs=runs, shifts=shifts)


@dataclass(frozen=True)
class DataArtifacts:
    """Where the data stage of a run left its parts (the stores and the plan lie in the cache)."""

    plan: Path
    stores: dict[str, Path]
    tokenizer: Path
    heldout: float  # share of the documents that evaluation keeps
    pose: dict[str, Any] | None = None
    silent: Sequence[str] = ()

    @classmethod
    def of(cls, run_dir: Path, cache: Path) -> "DataArtifacts":
        where = read_json(run_dir / "data" / "where.json")
        return cls(
            plan=cache / "plans" / where["plan"],
            stores={name: cache / "tokens" / key for name, key in where["stores"].items()},
            tokenizer=run_dir / "data" / "tokenizer",
            heldout=where["heldout"],
            pose=where.get("pose"),
            silent=where.get("silent", ()),
        )

    def sequences(self) -> PackedSequences:
        pose = None if self.pose is None else Pose(**self.pose)
        silent = [at for at, name in enumerate(self.stores) if name in self.silent]
        return PackedSequences(self.plan, list(self.stores.values()), pose, silent)

    def store(self, name: str) -> Store:
        return token_store.load(self.stores[name], self.heldout)

    def text_stores(self, config: DataConfig) -> list[Store]:
        """The stores of real text, each once: two sources may read one folder at two lengths of piece."""
        folders = [
            self.stores[name]
            for name, source in config.sources.items()
            if source.kind not in SYNTHETIC
        ]
        return [token_store.load(folder, self.heldout) for folder in dict.fromkeys(folders)]
