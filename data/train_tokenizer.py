"""The tokenizer of a base made from scratch: trained on the sources' training text, then cached."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import run_shared
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.sources import Document, GroupedListing, SourceListing
from ropewalk.data.tokenizer import RunTokenizer
from ropewalk.data.tokens import store
from ropewalk.data.tokens.store import FORMAT


def train_tokenizer(
    config: Config, listings: dict[str, SourceListing | GroupedListing]
) -> RunTokenizer:
    """Train on the text sources `listings`, or load from the cache. Raises: DataError."""
    assert config.model.scratch is not None
    vocab_size = config.model.scratch.vocab_size
    cache = Path(config.cache_dir).expanduser()
    cache_key = {
        "format": FORMAT,
        "vocab_size": vocab_size,
        "heldout": config.data.heldout_share,
        "sources": {name: listing.identity(cache) for name, listing in listings.items()},
    }
    folder = cache / "tokenizers" / manifest.fingerprint(cache_key)[:16]

    def work(temporary: Path) -> dict[str, Any]:
        texts = _training_texts(listings, config.data.heldout_share)
        tokenizers.save(tokenizers.train(texts, vocab_size), temporary)
        return {}

    print(run_shared("tokenizer", cache_key, folder, work)[1])
    return tokenizers.load(str(folder))


def _training_texts(
    listings: dict[str, SourceListing | GroupedListing], heldout: float
) -> Iterator[str]:
    """The text of every document that is not held out for eval."""
    for listing in listings.values():
        for unit in listing.units:
            for item in listing.documents(unit):
                if isinstance(item, Document) and not store.is_heldout(item.id, heldout):
                    yield str(item.text)
