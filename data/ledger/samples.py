"""Sample sequences of a plan to read: what the trainer is given, decoded around the borders of its pieces."""

import unicodedata
from collections.abc import Callable, Iterator

import numpy as np

from ropewalk.data import hash_random
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataArtifacts, Row
from ropewalk.data.ledger.statistics import Pieces

SIDE = 40  # tokens shown at either end of a piece
FIRST, LAST = 8, 4  # pieces shown of a sequence that has more
Decode = Callable[[np.ndarray], str]


def pages(folders: DataArtifacts, count: int, seed: int) -> str:
    """`count` sequences of the plan, or all there are; which ones the seed decides."""
    sequences, pieces = folders.sequences(), Pieces.read(folders.plan)
    stores = {name: folders.store(name) for name in folders.stores}
    first = np.cumsum([0, *(len(s.length) for s in stores.values())])
    backend = tokenizers.backend(tokenizers.load(str(folders.tokenizer)))

    def name_of(document: int) -> str:
        at = int(np.searchsorted(first, document, side="right")) - 1
        name = list(stores)[at]
        return f"{name}: {stores[name].ids[document - int(first[at])]}"

    def decode(ids: np.ndarray) -> str:
        return backend.decode(ids.tolist(), skip_special_tokens=False)

    lines: list[str] = []
    for number in chosen(len(sequences), count, seed):
        here = slice(int(pieces.offsets[number]), int(pieces.offsets[number + 1]))
        named = [name_of(int(d)) for d in pieces.document[here]]
        lines += [
            f"sequence {number:,} of {len(sequences):,}",
            *page(sequences[number], named, pieces.start[here], pieces.length[here], decode),
            "",
        ]
    return "\n".join(lines)


def chosen(sequences: int, count: int, seed: int) -> list[int]:
    """Sequence numbers in the order of a hash."""
    order = hash_random.sort_keys(seed, "pages", np.arange(sequences, dtype=np.uint64))
    return np.argsort(order)[:count].tolist()


def page(
    row: Row, named: list[str], start: np.ndarray, length: np.ndarray, decode: Decode
) -> Iterator[str]:
    """One sequence, a piece after the other. `named`, `start`, `length`: (pieces,)."""
    ends = np.cumsum(length)
    shown = [at for at in range(len(named)) if at < FIRST or at >= len(named) - LAST]
    for at in shown:
        if at and at - 1 not in shown:
            yield f"  ... {at - FIRST:,} pieces between ..."
        low, high = int(ends[at] - length[at]), int(ends[at])
        places, first = row.position_ids[[low, high - 1]].tolist(), int(start[at])
        yield (
            f"  {named[at]}, tokens {first:,} to {first + high - low - 1:,} of it; in the sequence {low:,} to {high - 1:,}, "
            f"positions {places[0]:,} to {places[1]:,}"
        )
        yield from (f"    | {line}" for line in _text(row.input_ids[low:high], decode))
    if padding := len(row.input_ids) - (int(ends[-1]) if len(ends) else 0):
        yield f"  {padding:,} tokens of padding"


def _text(ids: np.ndarray, decode: Decode) -> Iterator[str]:
    """Its lines; of a long piece the beginning and the end."""
    if len(ids) <= 2 * SIDE:
        yield from harmless(decode(ids)).split("\n")
        return
    yield from harmless(decode(ids[:SIDE])).split("\n")
    yield f"[... {len(ids) - 2 * SIDE:,} tokens ...]"
    yield from harmless(decode(ids[-SIDE:])).split("\n")


def harmless(text: str) -> str:
    """A document must not steer the terminal it is shown on: control characters but line ends and tabs are spelled out."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c)[0] != "C" else ascii(c)[1:-1] for c in text
    )
