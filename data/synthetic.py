"""Token stores of synthetic documents, made of the training text of another source.

An answer in them stands far after the text that gives it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import run_shared
from ropewalk.conf.errors import DataError
from ropewalk.conf.schema import Config
from ropewalk.data import retrieval
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.random_streams import Purpose, generator
from ropewalk.data.tokenizer import RunTokenizer
from ropewalk.data.tokens import merge
from ropewalk.data.tokens.store import FORMAT, Store


class TrainingText:
    """The training documents of a store end to end; a span of tokens is read when it is taken."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.documents = np.flatnonzero(~store.heldout)
        self.ends = np.cumsum(store.length[self.documents], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, span: slice) -> np.ndarray:
        """(tokens,) int64."""
        start, stop, _ = span.indices(len(self))
        parts = [np.empty(0, np.int64)]
        for number in range(int(np.searchsorted(self.ends, start, side="right")), len(self.ends)):
            index = int(self.documents[number])
            length = int(self.store.length[index])
            first = int(self.ends[number]) - length
            if first >= stop:
                break
            low, high = max(start - first, 0), min(stop - first, length)
            parts.append(self.store.document(index, low, high - low).astype(np.int64))
        return np.concatenate(parts)


def make_store(
    config: Config,
    name: str,
    filler: Store,
    tokens: int,
    length: int,
    tokenizer: RunTokenizer,
) -> Path:
    """Make the store of synthetic source `name`, or find it in the cache; returns its folder.

    Documents have at most `length` tokens, and at least `tokens` together.
    Raises: DataError for a filler without training text.
    """
    source = config.data.sources[name]
    if filler.heldout.all() and tokens:
        raise DataError(
            f"data.sources.{source.filler} is the filler of {name} and all of it is held out; "
            "it must have training documents; add some or lower data.heldout_share"
        )
    cache_key = {
        "format": FORMAT,
        "kind": source.kind,
        "filler": [filler.fingerprint, filler.heldout_digest],
        "tokens": tokens,
        "length": length,
        "seed": config.seed,
    }
    folder = Path(config.cache_dir).expanduser() / "tokens" / manifest.fingerprint(cache_key)[:16]

    def work(temporary: Path) -> dict[str, Any]:
        encode, vocab_size = tokenizers.text_encoder(tokenizer), tokenizers.vocab_size(tokenizer)
        documents = _documents(source.kind, filler, tokens, length, config.seed, encode)
        metadata = merge.synthetic_store(temporary, name, documents, vocab_size)
        return {"kind": source.kind, **metadata}

    print(run_shared(f"tokens of {name}", cache_key, folder, work)[1])
    return folder


def _documents(
    kind: str,
    filler: Store,
    tokens: int,
    length: int,
    seed: int,
    encode: Callable[[str], np.ndarray],
) -> Iterator[np.ndarray]:
    """Documents of at most `length` tokens, at least `tokens` together, from training text only."""
    text = TrainingText(filler)
    total = number = 0
    while total < tokens:
        rng = generator(Purpose.SYNTHETIC_DOCUMENT, seed, number)
        if kind == "repeat":
            ids = retrieval.repeat(text, length, rng)
        else:
            ids = _passkey(encode, text, length, full_length=number % 2 == 1, rng=rng)
        yield ids
        total += len(ids)
        number += 1


def _passkey(
    encode: Callable[[str], np.ndarray],
    text: retrieval.Tokens,
    length: int,
    full_length: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """A pass key in `length` tokens, or in a random shorter document.

    A model learns to look back a little before it looks back far, so half of them are shorter.
    """
    if not full_length:
        templates = (retrieval.NEEDLE, retrieval.QUESTION + retrieval.ANSWER)
        task = 8 + sum(len(encode(template.format(key="00000"))) for template in templates)
        length = int(rng.integers(max(length // 8, min(task, length)), length + 1))
    filler = retrieval.random_span(text, length, rng)
    key = retrieval.random_key(rng)
    return retrieval.passkey(encode, filler, key, length, float(rng.uniform())).ids
