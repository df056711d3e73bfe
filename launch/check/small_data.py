"""A few packed sequences for the small model, by the data stage's own files.

The token ids are arithmetic, so that every rank knows what it must receive without reading it.

    S tokens of a sequence   P pieces
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ropewalk.conf.artifacts.manifest import Manifest, publish
from ropewalk.conf.data import DataConfig
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import IGNORE, DataArtifacts
from ropewalk.data.packing import plan
from ropewalk.data.packing.packed import Packed
from ropewalk.data.tokens import merge
from ropewalk.launch.check.small_model import VOCABULARY

SHARES = ((0.37, 0.06, 0.41), (0.52, 0.06), (0.11, 0.52, 0.3), (0.6, 0.02, 0.2))
"""Of a sequence, by its documents; the rest is padding. The second has most of it, so that a mean
of means is another number than the mean."""
SHORTEST = 2
TEXT = "The rope is laid in the long walk, yarn upon yarn, strand upon strand. "


@dataclass(frozen=True)
class SmallData:
    """What the sequences hold."""

    seq_len: int
    lengths: list[list[int]]
    """Tokens of each document, by sequence."""

    @classmethod
    def of(cls, sequences: int, seq_len: int) -> "SmallData":
        rows = [
            [max(SHORTEST, int(share * seq_len)) for share in SHARES[number % len(SHARES)]]
            for number in range(sequences)
        ]
        return cls(seq_len, rows)

    @classmethod
    def of_long_documents(cls, sequences: int, seq_len: int) -> "SmallData":
        """Each sequence is one document, the most work that a sequence can be."""
        return cls(seq_len, [[seq_len]] * sequences)

    def document(self, sequence: int, index: int) -> np.ndarray:
        """The ids of a document, (tokens,) int64."""
        number = sum(map(len, self.lengths[:sequence])) + index
        steps = np.arange(self.lengths[sequence][index], dtype=np.int64)
        return (7 + 131 * number + steps * (steps + 17 + number)) % VOCABULARY

    def documents(self, sequence: int) -> list[np.ndarray]:
        return [self.document(sequence, index) for index in range(len(self.lengths[sequence]))]

    def expected(self, sequence: int, restart: bool) -> dict[str, np.ndarray]:
        """`input_ids`, `labels` and `position_ids` (S,) of a sequence, by their definition.

        `restart`: positions begin anew with each document. Padding has the label IGNORE.
        """
        documents = self.documents(sequence)
        ids, labels, positions = (np.zeros(self.seq_len, np.int64) for _ in range(3))
        labels[:] = IGNORE
        start = 0
        for document in documents:
            end = start + len(document)
            ids[start:end], labels[start : end - 1] = document, document[1:]
            positions[start:end] = np.arange(len(document)) + (0 if restart else start)
            start = end
        positions[start:] = np.arange(self.seq_len - start) + (0 if restart else start)
        return {"input_ids": ids, "labels": labels, "position_ids": positions}


def write(data: SmallData, settings: DataConfig, folder: Path) -> DataArtifacts:
    """A token store, a plan and a tokenizer in `folder`."""
    store, rows, tokenizer = (folder / name for name in ("store", "plan", "tokenizer"))
    for path in (store, rows, tokenizer):
        path.mkdir(parents=True)
    sequences = range(len(data.lengths))
    documents = (document for number in sequences for document in data.documents(number))
    facts = {"document_mask": settings.document_mask, "positions": settings.positions}
    plan.write(rows, [_packed(data.lengths)])
    tokenizers.save(tokenizers.train([TEXT * 20], VOCABULARY), tokenizer)
    metadata = merge.synthetic_store(store, "check", documents, VOCABULARY)
    return artifacts(
        folder, _finish(store, metadata), _finish(rows, {"seq_len": data.seq_len} | facts)
    )


def artifacts(folder: Path, store: Path | None = None, rows: Path | None = None) -> DataArtifacts:
    """Where `write` put them."""
    return DataArtifacts(
        rows or folder / "plan.done",
        {"check": store or folder / "store.done"},
        folder / "tokenizer",
        heldout=0.0,
    )


def _finish(folder: Path, facts: dict[str, object]) -> Path:
    manifest = Manifest.for_content("check", {})
    manifest.facts = facts
    done = folder.with_name(f"{folder.name}.done")
    publish(folder, done, manifest)
    return done


def _packed(lengths: Sequence[Sequence[int]]) -> Packed:
    """Every document is one piece."""
    flat = np.array([n for row in lengths for n in row], dtype=np.int64)
    offsets = np.cumsum([0, *(len(row) for row in lengths)])
    return Packed(np.arange(len(flat)), np.zeros(len(flat), np.int64), flat, offsets)
