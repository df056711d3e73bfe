"""What the other stages read: training sequences by number, and held-out windows. The data stage's public face.

Legend: S tokens of one sequence, P pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from ropewalk.conf import manifest
from ropewalk.conf.manifest import read_json
from ropewalk.data import store as token_store
from ropewalk.data.marks import Marks
from ropewalk.data.store import Store, numbers

IGNORE = -100


@dataclass(frozen=True)
class Row:
    """One sequence, or several laid end to end."""

    input_ids: np.ndarray  # (S,) int64
    labels: np.ndarray  # (S,) int64, already shifted: the next token, IGNORE at a piece's last token and on padding
    position_ids: np.ndarray  # (S,) int64
    cu_seqlens: np.ndarray  # (documents + 1,) int32: attention stays between two neighbours


class Sequences:
    """The plan over its stores, read in constant time by sequence number."""

    def __init__(self, plan: Path, stores: Sequence[Path]) -> None:
        facts = manifest.read(plan)
        assert facts is not None, f"{plan.name} is not finished"
        self.seq_len: int = facts.facts["seq_len"]
        self.document_mask: bool = facts.facts["document_mask"]
        self.restart: bool = facts.facts["positions"] == "restart"
        self.marks = Marks(facts.facts.get("begin"), facts.facts.get("end"))
        self.stores = [token_store.load(folder) for folder in stores]
        self.first = np.cumsum([0, *(len(s.length) for s in self.stores)])
        column = pa.ipc.open_file(pa.memory_map(str(plan / "plan.arrow"))).read_all()["pieces"].combine_chunks()
        self.offsets = numbers(column.offsets)
        flat = column.values
        self.document, self.start, self.length = (numbers(flat.field(k)) for k in ("document", "start", "length"))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> Row:
        """Sequence `number`, padded to S with a pad document of its own."""
        span = slice(int(self.offsets[number]), int(self.offsets[number + 1]))
        lengths = [int(n) for n in self.length[span]]
        pieces = [
            self._piece(int(d), int(s), n)
            for d, s, n in zip(self.document[span], self.start[span], lengths, strict=True)
        ]
        return lay(pieces, self.seq_len, document_mask=self.document_mask, restart=self.restart)

    def labels(self, number: int) -> int:
        """How many labels of the sequence count, read off the plan: every token of a piece but its last."""
        lengths = self.length[int(self.offsets[number]) : int(self.offsets[number + 1])]
        return int(lengths.sum()) - len(lengths)

    def _piece(self, document: int, start: int, length: int) -> np.ndarray:
        source = int(np.searchsorted(self.first, document, side="right")) - 1
        return self.marks.read(self.stores[source], document - int(self.first[source]), start, length)


def lay(pieces: Sequence[np.ndarray], seq_len: int, *, document_mask: bool = True, restart: bool = True) -> Row:
    """Pieces end to end -> one Row of `seq_len` tokens."""
    lengths = [len(p) for p in pieces]
    padding = seq_len - sum(lengths)
    ids = np.zeros(seq_len, dtype=np.int64)
    ids[: seq_len - padding] = np.concatenate(pieces) if pieces else []
    labels = np.full(seq_len, IGNORE, dtype=np.int64)
    labels[: seq_len - padding - 1] = ids[1 : seq_len - padding]
    ends = np.cumsum(lengths)
    labels[ends - 1] = IGNORE
    spans = lengths + ([padding] if padding else [])
    positions = np.concatenate([np.arange(n) for n in spans]) if restart else np.arange(seq_len)
    borders = np.cumsum([0, *spans]) if document_mask else np.array([0, seq_len])
    return Row(ids, labels, positions.astype(np.int64), borders.astype(np.int32))


def join(rows: Sequence[Row]) -> Row:
    """A micro-batch laid end to end: its sequences never see each other."""
    shifts = np.cumsum([0, *(len(r.input_ids) for r in rows)])
    borders = [r.cu_seqlens[1:] + shift for r, shift in zip(rows, shifts, strict=False)]
    return Row(
        np.concatenate([r.input_ids for r in rows]),
        np.concatenate([r.labels for r in rows]),
        np.concatenate([r.position_ids for r in rows]),
        np.concatenate([[0], *borders]).astype(np.int32),
    )


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def numbers_of_step(step: int, *, seed: int, count: int, batch: int) -> list[int]:
    """Sequence numbers of the global batch of `step` (from 0): a function of `(seed, step)` alone, epoch after epoch."""
    places = range(step * batch, (step + 1) * batch)
    return [int(_order(seed, place // count, count)[place % count]) for place in places]


@dataclass(frozen=True)
class Window:
    """A stretch of held-out text; windows of one document are not independent of one another."""

    document: str
    ids: np.ndarray  # (length,) int64


def heldout_windows(store: Store, length: int, most: int, per_document: int) -> list[Window]:
    """Up to `most` stretches of `length` tokens, evenly spread over the held-out documents that are long enough."""
    found: list[list[Window]] = []
    for index in np.flatnonzero(store.heldout & (store.length >= length)).tolist():
        count = min(per_document, int(store.length[index]) // length)
        starts = np.linspace(0, int(store.length[index]) - length, count).astype(int) if count > 1 else [0]
        found.append([Window(store.ids[index], store.document(index, int(s), length).astype(np.int64)) for s in starts])
    return [windows[k] for k in range(per_document) for windows in found if k < len(windows)][:most]


def heldout_text(store: Store) -> np.ndarray:
    """All held-out tokens end to end: the filler of eval's questions."""
    parts = [store.document(i) for i in np.flatnonzero(store.heldout).tolist()]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


@dataclass(frozen=True)
class DataFolders:
    """Where the data stage of a run left its parts (the stores and the plan lie in the cache)."""

    plan: Path
    stores: dict[str, Path]
    tokenizer: Path

    @classmethod
    def of(cls, run_dir: Path, cache: Path) -> "DataFolders":
        where = read_json(run_dir / "data" / "where.json")
        return cls(
            plan=cache / "plans" / where["plan"],
            stores={name: cache / "tokens" / key for name, key in where["stores"].items()},
            tokenizer=run_dir / "data" / "tokenizer",
        )

    def sequences(self) -> Sequences:
        return Sequences(self.plan, list(self.stores.values()))

    def store(self, name: str) -> Store:
        return token_store.load(self.stores[name])
