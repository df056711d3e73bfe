"""Made-up documents, whose answers stand far before them: a store of them is made of the training text of another source."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import run_shared
from ropewalk.conf.errors import DataError
from ropewalk.conf.schema import Config
from ropewalk.data import retrieval
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.tokens import merge
from ropewalk.data.tokens.store import FORMAT, Store


def store_of(
    config: Config,
    name: str,
    filler: Store,
    tokens: int,
    length: int,
    tokenizer: PreTrainedTokenizerBase,
) -> Path:
    """The folder of a synthetic source's store, made where it is not there: documents of at most `length` tokens, together at
    least `tokens`. Raises: DataError for a filler without training text."""
    kind, filled_by = config.data.sources[name].kind, config.data.sources[name].filler
    if filler.heldout.all() and tokens:
        raise DataError(
            f"data.sources.{filled_by} is the filler of {name} and all of it is held out; it must have training "
            "documents; add some or lower data.heldout_share"
        )
    sizes = {"tokens": tokens, "length": length, "seed": config.seed}
    decides = {
        "format": FORMAT,
        "kind": kind,
        "filler": [filler.fingerprint, filler.heldout_digest],
        **sizes,
    }
    folder = Path(config.cache_dir).expanduser() / "tokens" / manifest.fingerprint(decides)[:16]

    def work(temporary: Path) -> dict[str, Any]:
        made = _documents(kind, filler, tokens, length, config.seed, tokenizer)
        return {
            "kind": kind,
            **merge.synthetic_store(temporary, name, made, tokenizers.size(tokenizer)),
        }

    print(run_shared(f"tokens of {name}", decides, folder, work)[1])
    return folder


def _documents(
    kind: str,
    filler: Store,
    tokens: int,
    length: int,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[np.ndarray]:
    """Documents of at most `length` tokens, from training text only, until there are `tokens`.

    Half of what is asked of a pass key is near and half far: a model learns to look back a little before it looks back far.
    """
    encode = tokenizers.encode_ids(tokenizer)
    task = 8 + sum(
        len(encode(t.format(key="00000")))
        for t in (retrieval.NEEDLE, retrieval.QUESTION + retrieval.ANSWER)
    )
    text = np.concatenate(
        [filler.document(i) for i in np.flatnonzero(~filler.heldout).tolist()]
    ).astype(np.int64)
    made = number = 0
    while made < tokens:
        rng = np.random.Generator(np.random.Philox(key=[seed, number]))
        if kind == "repeat":
            ids = retrieval.repeat(text, length, rng)
        else:
            size = (
                length
                if number % 2
                else int(rng.integers(max(length // 8, min(task, length)), length + 1))
            )
            surroundings, key = retrieval.stretch(text, size, rng), retrieval.random_key(rng)
            ids = retrieval.passkey(encode, surroundings, key, size, float(rng.uniform())).ids
        yield ids
        made, number = made + len(ids), number + 1
