"""Positional skip-wise training (PoSE, arXiv 2309.10400, section 3.2): a context's positions. Pure.

A context of L tokens is split into N chunks. Chunk i keeps its inner distances and is moved ahead
by u_i, with u_0 = 0 and u_i drawn uniformly from u_(i-1) to T - L, T the target length: positions
rise, end below T, and any distance below T can occur. The paper leaves the chunks' text open (v_i);
here v_i = 0, the text is contiguous, so each token of a plan is read once. A chunk's length is
drawn uniformly from 1 to its even share of the remaining tokens, as the authors' code does for
N = 2.

C contexts: pieces under the document mask, else the whole sequence   N chunks
"""

from dataclasses import dataclass

import numpy as np

from ropewalk.data import hash_random


@dataclass(frozen=True)
class Pose:
    """Target length (tokens), chunks, and the seed that every draw comes from."""

    target_length: int
    chunks: int
    seed: int

    def runs(
        self, number: int, epoch: int, starts: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(C N,) indices where chunks start, and (C N,) position minus index in them.

        `starts`, `lengths`: (C,) the contexts of sequence `number`. Depends on the seed, the number
        and the epoch alone.
        """
        keys = (np.uint64(number) << np.uint64(32)) + np.arange(len(lengths), dtype=np.uint64)
        within, ahead = (np.zeros((len(lengths), self.chunks), dtype=np.int64) for _ in range(2))
        room = self.target_length - lengths
        for i in range(1, self.chunks):
            remaining = lengths - within[:, i - 1]
            even_share = np.maximum((remaining + 1) // (self.chunks - i + 1), 1)
            size = 1 + self._uniform(f"length:{i}", even_share, keys, epoch)
            within[:, i] = within[:, i - 1] + np.minimum(size, remaining)
            skip = self._uniform(f"skip:{i}", room - ahead[:, i - 1] + 1, keys, epoch)
            ahead[:, i] = ahead[:, i - 1] + skip
        return (starts[:, None] + within).ravel(), (ahead - starts[:, None]).ravel()

    def _uniform(self, label: str, counts: np.ndarray, keys: np.ndarray, epoch: int) -> np.ndarray:
        """Uniform draws from 0 to `counts` - 1 (C,); counts are below 2^32."""
        high = hash_random.sort_keys(self.seed, f"pose:{label}", keys, epoch) >> np.uint64(32)
        return ((high * counts.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)
