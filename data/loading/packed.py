"""The sequences of a plan, read from its token stores by number, whole or as a rank's slice.

Legend: S tokens of one sequence, P pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import read_json
from ropewalk.conf.data import DataConfig
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.heldout import HeldoutText
from ropewalk.data.loading.collate import IGNORE, Layout, ReadPiece, Row, layout, read_span
from ropewalk.data.loading.pose import Pose
from ropewalk.data.packing.plan import PlanFile
from ropewalk.data.tokens import store as token_store
from ropewalk.data.tokens.store import BoundaryTokens, Store


class PackedSequences:
    """The sequences of a finished plan.

    `pose` skips positions ahead, by sequence and epoch. `context_only` are the indices of the
    stores whose labels do not count.
    """

    def __init__(
        self,
        plan_path: Path,
        stores: Sequence[Path],
        pose: Pose | None = None,
        context_only: Sequence[int] = (),
    ) -> None:
        finished = manifest.read(plan_path)
        assert finished is not None, f"{plan_path.name} is not finished"
        metadata = finished.facts
        self.seq_len: int = metadata["seq_len"]
        self.document_mask: bool = metadata["document_mask"]
        self.restart_positions: bool = metadata["positions"] == "restart"
        self.boundary_tokens = BoundaryTokens(metadata.get("begin"), metadata.get("end"))
        self.pose = pose
        self.context_only = np.isin(np.arange(len(stores)), context_only)
        self.stores = [token_store.load(folder, heldout=0.0) for folder in stores]
        self.first_document = np.cumsum([0, *(len(store.length) for store in self.stores)])
        self.plan = PlanFile(plan_path)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, number: int) -> Row:
        """Sequence `number` in the first epoch, padded to S; the padding is a separate document."""
        return self.read(number)

    def read(self, number: int, epoch: int = 0, low: int = 0, high: int | None = None) -> Row:
        """Tokens `[low, high)` of a sequence, with the document borders of all of it.

        Only the pieces in that range are read.
        """
        lengths, sources = self.piece_sources(number)
        pieces = layout(
            lengths,
            self.seq_len,
            document_mask=self.document_mask,
            restart_positions=self.restart_positions,
        )
        if self.pose is not None:
            pieces = _skip_positions(pieces, self.pose, number, epoch)
        read_piece = self._read_piece(number, sources)
        row = read_span(pieces, read_piece, low, self.seq_len if high is None else high)
        if self.context_only.any():
            masked = self.context_only[sources]
            mask_labels(row.labels, pieces.starts[masked], pieces.ends[masked], low)
        return row

    def _read_piece(self, number: int, sources: np.ndarray) -> ReadPiece:
        """A function that reads a piece of the sequence by its index.

        It runs for every piece, so it uses Python integers.
        """
        document, start, _ = self.plan.sequence(number)
        documents, starts = (document - self.first_document[sources]).tolist(), start.tolist()
        stores = [self.stores[source] for source in sources.tolist()]
        if self.boundary_tokens.count:
            return lambda index, start, length: self.boundary_tokens.read(
                stores[index], documents[index], starts[index] + start, length
            )
        return lambda index, start, length: stores[index].document(
            documents[index], starts[index] + start, length
        )

    def num_tokens(self, number: int) -> int:
        """Tokens of the sequence without padding."""
        return int(self.plan.sequence(number)[2].sum())

    def num_labels(self, number: int) -> int:
        """Labels of the sequence that count: all tokens of a piece but the last, by the plan."""
        lengths, sources = self.piece_sources(number)
        lengths = lengths[~self.context_only[sources]]
        return int(lengths.sum()) - len(lengths)

    def attention_work(self, number: int) -> int:
        """The attention work of the sequence, in tokens squared. From the plan alone."""
        lengths = self.plan.sequence(number)[2]
        offsets = np.array([0, len(lengths)])
        return int(attention_work(lengths, offsets, self.seq_len, self.document_mask)[0])

    def piece_sources(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The length of each piece of a sequence, and the index of its store, by the plan; (P,)."""
        document, _, length = self.plan.sequence(number)
        return length, self.first_document.searchsorted(document, side="right") - 1


def _skip_positions(pieces: Layout, pose: Pose, number: int, epoch: int) -> Layout:
    """Every stretch that attends to itself skips ahead on its own."""
    borders = pieces.cu_seqlens.astype(np.int64)
    runs, shifts = pose.runs(number, epoch, borders[:-1], np.diff(borders))
    return replace(pieces, window=pose.target_length, runs=runs, shifts=shifts)


@dataclass(frozen=True)
class DataArtifacts:
    """The outputs of a run's data stage; the stores and the plan lie in the cache."""

    plan: Path
    stores: dict[str, Path]
    tokenizer: Path
    heldout: float  # share of the documents that are held out
    pose: dict[str, Any] | None = None
    context_only: Sequence[str] = ()  # sources whose labels do not count

    @classmethod
    def of(cls, run_dir: Path, cache: Path) -> "DataArtifacts":
        artifacts = read_json(run_dir / "data" / "where.json")
        return cls(
            plan=cache / "plans" / artifacts["plan"],
            stores={name: cache / "tokens" / key for name, key in artifacts["stores"].items()},
            tokenizer=run_dir / "data" / "tokenizer",
            heldout=artifacts["heldout"],
            pose=artifacts.get("pose"),
            context_only=artifacts.get("silent", ()),
        )

    def sequences(self) -> PackedSequences:
        pose = None if self.pose is None else Pose(**self.pose)
        indices = [index for index, name in enumerate(self.stores) if name in self.context_only]
        return PackedSequences(self.plan, list(self.stores.values()), pose, indices)

    def store(self, name: str) -> Store:
        return token_store.load(self.stores[name], self.heldout)

    def heldout_text(self, config: DataConfig) -> HeldoutText:
        """The held-out text of the text sources whose labels count; of all when none does."""
        texts = {name: s for name, s in config.sources.items() if s.kind not in SYNTHETIC}
        counted = [name for name in texts if name not in self.context_only] or list(texts)
        names: dict[Path, list[str]] = {}
        for name in counted:
            names.setdefault(self.stores[name], []).append(name)
        stores = {" + ".join(n): token_store.load(f, self.heldout) for f, n in names.items()}
        left_out = [name for name in texts if self.stores[name] not in names]
        return HeldoutText(stores, boundary_tokens(self.plan), left_out)


def boundary_tokens(plan_path: Path) -> BoundaryTokens:
    """The ids around each document of a finished plan."""
    finished = manifest.read(plan_path)
    assert finished is not None, f"{plan_path.name} is not finished"
    return BoundaryTokens(finished.facts.get("begin"), finished.facts.get("end"))


def attention_work(
    lengths: np.ndarray, offsets: np.ndarray, seq_len: int, document_mask: bool = True
) -> np.ndarray:
    """(sequences,) int64, tokens squared.

    `lengths` (pieces,): those of sequence n are at `offsets[n]` to `offsets[n + 1]`.
    """
    if not document_mask:
        return np.full(len(offsets) - 1, seq_len * seq_len, dtype=np.int64)
    sizes = lengths.astype(np.int64)
    filled, squares = (np.diff(np.append(0, np.cumsum(x))[offsets]) for x in (sizes, sizes * sizes))
    return squares + (seq_len - filled) ** 2


def mask_labels(labels: np.ndarray, starts: np.ndarray, ends: np.ndarray, low: int) -> None:
    """Set the labels of pieces `[start, end)` (P,) to IGNORE, in place.

    `labels` begin at token `low` of the sequence.
    """
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        labels[max(start - low, 0) : max(end - low, 0)] = IGNORE
