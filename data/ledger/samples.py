"""Sample sequences of a plan as the trainer reads them, decoded around the piece borders."""

import unicodedata
from collections.abc import Callable, Iterator

import numpy as np

from ropewalk.data import hash_random
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataArtifacts, Row
from ropewalk.data.tokens.corpus import Corpus

SIDE = 40  # tokens shown at either end of a piece
FIRST, LAST = 8, 4  # pieces shown of a sequence that has more
Decode = Callable[[np.ndarray], str]


def pages(folders: DataArtifacts, count: int, seed: int, trust_remote_code: bool = False) -> str:
    """At most `count` sequences of the plan, selected by the seed."""
    sequences = folders.sequences()
    corpus = Corpus({name: folders.store(name) for name in folders.stores})
    tokenizer = tokenizers.load(str(folders.tokenizer), trust_remote_code=trust_remote_code)
    backend = tokenizer.backend

    def name_of(document: int) -> str:
        source, index = corpus.locate(document)
        return f"{source}: {corpus.stores[source].ids[index]}"

    def decode(ids: np.ndarray) -> str:
        return backend.decode(ids.tolist(), skip_special_tokens=False)

    lines: list[str] = []
    for number in sample_numbers(len(sequences), count, seed):
        documents, start, length = sequences.plan.sequence(number)
        named = [name_of(document) for document in documents.tolist()]
        lines += [
            f"sequence {number:,} of {len(sequences):,}",
            *page(sequences[number], named, start, length, decode),
            "",
        ]
    return "\n".join(lines)


def sample_numbers(sequences: int, count: int, seed: int) -> list[int]:
    """Sequence numbers in the order of a hash."""
    order = hash_random.sort_keys(seed, "pages", np.arange(sequences, dtype=np.uint64))
    return np.argsort(order)[:count].tolist()


def page(
    row: Row, named: list[str], start: np.ndarray, length: np.ndarray, decode: Decode
) -> Iterator[str]:
    """One sequence, a piece after the other. `named`, `start`, `length`: (pieces,)."""
    ends = np.cumsum(length)
    shown = [i for i in range(len(named)) if i < FIRST or i >= len(named) - LAST]
    for index in shown:
        if index and index - 1 not in shown:
            yield f"  ... {index - FIRST:,} pieces between ..."
        low, high = int(ends[index] - length[index]), int(ends[index])
        positions, first = row.position_ids[[low, high - 1]].tolist(), int(start[index])
        yield (
            f"  {named[index]}, tokens {first:,} to {first + high - low - 1:,} of it; in the "
            f"sequence {low:,} to {high - 1:,}, positions {positions[0]:,} to {positions[1]:,}"
        )
        yield from (f"    | {line}" for line in _text(row.input_ids[low:high], decode))
    if padding := len(row.input_ids) - (int(ends[-1]) if len(ends) else 0):
        yield f"  {padding:,} tokens of padding"


def _text(ids: np.ndarray, decode: Decode) -> Iterator[str]:
    """Lines of a piece; only the beginning and the end of a long one."""
    if len(ids) <= 2 * SIDE:
        yield from harmless(decode(ids)).split("\n")
        return
    yield from harmless(decode(ids[:SIDE])).split("\n")
    yield f"[... {len(ids) - 2 * SIDE:,} tokens ...]"
    yield from harmless(decode(ids[-SIDE:])).split("\n")


def harmless(text: str) -> str:
    """Escape control characters except line ends and tabs, which could steer the terminal."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c)[0] != "C" else ascii(c)[1:-1] for c in text
    )
