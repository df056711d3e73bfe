"""The tokenizer of a base made from scratch: trained on the sources' training text, once for what decides it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import run_shared
from ropewalk.conf.schema import Config
from ropewalk.data import sources
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.planning import FORMAT
from ropewalk.data.sources import Document, Listed
from ropewalk.data.tokens import store


def train_tokenizer(config: Config, listed: dict[str, Listed]) -> PreTrainedTokenizerBase:
    """From the cache, made where it is not there. `listed`: the text sources. Raises: DataError."""
    assert config.model.scratch is not None
    size = config.model.scratch.vocab_size
    decides = {
        "format": FORMAT,
        "vocab_size": size,
        "heldout": config.data.heldout,
        "sources": {n: at.identity() for n, at in listed.items()},
    }
    folder = Path(config.cache_dir).expanduser() / "tokenizers" / manifest.fingerprint(decides)[:16]

    def work(temporary: Path) -> dict[str, Any]:
        tokenizers.save(tokenizers.train(_training_texts(config, listed), size), temporary)
        return {}

    print(run_shared("tokenizer", decides, folder, work)[1])
    return tokenizers.load(str(folder))


def _training_texts(config: Config, listed: dict[str, Listed]) -> Iterator[str]:
    """Texts of every source but what is held out for eval."""
    for name, at in listed.items():
        for item in (
            item for unit in at.units for item in sources.read(config.data.sources[name], at, unit)
        ):
            if isinstance(item, Document) and not store.is_heldout(item.id, config.data.heldout):
                yield item.text
