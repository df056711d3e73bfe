"""The data stage: sources -> token stores -> plan -> ledger."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ropewalk.conf import manifest
from ropewalk.conf.data import SYNTHETIC, DataConfig, SourceConfig
from ropewalk.conf.errors import DataError
from ropewalk.conf.manifest import Manifest, read_json, run_shared, run_stage, write_json
from ropewalk.conf.schema import Config
from ropewalk.data import cleaning, merge, mixture, remarks, retrieval, shards, shares, sources, store
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.encode import encode_with
from ropewalk.data.marks import Marks
from ropewalk.data.mixture import FORMAT
from ropewalk.data.overlong import Offer
from ropewalk.data.sources import Document, Listed
from ropewalk.data.text_store import TextStore, told_when_full
from ropewalk.data.write import How


@dataclass(frozen=True)
class Inputs:
    """What launch hands over: where the base's tokenizer is; None for a base made from scratch."""

    tokenizer: str | None
    revision: str | None = None
    trust_remote_code: bool = False


def run(config: Config, inputs: Inputs, output: Path) -> tuple[Manifest, str]:
    """Run the stage, or skip what is done. Raises: ConfigError, DataError."""
    cleaning.require(config.data)
    cache = Path(config.cache_dir).expanduser()
    tokenizer, texts = _texts(config, inputs)
    marks = _marks(config, tokenizer)
    stores = {name: _finished(text, name) for name, text in texts.items()}
    opened = {name: store.load(folder) for name, folder in stores.items()}
    offers = {name: mixture.offered(config, name, opened[name], marks) for name in texts}
    cleaned = cleaning.clean(config.data, opened, offers, cache)
    offers = dict(cleaned.offers)
    budget = _budgets(config, offers, mixture.rounds(config, opened, offers, marks))
    for name, source in config.data.sources.items():
        if source.kind in SYNTHETIC:
            filler = cleaned.stores[source.filler or ""]
            if filler.heldout.all() and budget[name]:
                raise DataError(
                    f"data.sources.{source.filler} is the filler of {name} and all of it is held out; it must have training "
                    "documents; add some or lower data.heldout"
                )
            length = mixture.longest(config, name) - marks.count
            stores[name] = _synthetic_store(config, name, source, filler, budget[name] or 0, length, tokenizer, cache)
            offers[name] = mixture.offered(config, name, store.load(stores[name]), marks)
            budget[name] = None if budget[name] else 0  # all that was made: the documents stay whole
    stores = {name: stores[name] for name in config.data.sources}
    folder = mixture.make(config, stores, offers, budget, marks, cache)
    decides = {
        "plan": folder.name,
        "stores": {n: f.name for n, f in stores.items()},
        "tokenizer": tokenizers.identity(tokenizer),
        **_pose(config),
    }

    ledger = remarks.told(cleaned.enter(mixture.ledger(stores, offers, folder)))

    def work(temporary: Path) -> dict[str, Any]:
        tokenizers.save(tokenizer, temporary / "tokenizer")
        write_json(temporary / "where.json", decides)
        write_json(temporary / "ledger.json", ledger)
        return {"sequences": ledger["plan"]["sequences"], "tokens": ledger["plan"]["tokens"]}

    done = run_stage("data", decides, output, work)
    _renew(output / "ledger.json", ledger)
    return done


def _renew(path: Path, ledger: dict[str, Any]) -> None:
    """What is looked for may change when what is trained on does not: then the ledger tells it, and nothing is redone."""
    if read_json(path) != ledger:
        write_json(path, ledger)


def make_shards(config: Config, inputs: Inputs, task: int, tasks: int) -> list[tuple[str, int]]:
    """Make shards task, task + tasks, ... of all text sources, counted through them in the settings' order: any number of
    tasks, on any machines that share the cache, and in the end the same stores. Returns (source, shard) of each.

    Raises: ConfigError, DataError.
    """
    _, texts = _texts(config, inputs)
    mine = [(name, number) for name, text in texts.items() for number in range(len(text.shards))][task::tasks]
    for name, text in texts.items():
        text.make([number for source, number in mine if source == name])
    return mine


def missing_shards(config: Config, inputs: Inputs) -> list[str]:
    """The shards that are not there yet, as SOURCE/SHARD. Raises: ConfigError, DataError."""
    _, texts = _texts(config, inputs)
    return [f"{name}/{shards.name(number)}" for name, text in texts.items() for number in text.missing()]


def _texts(config: Config, inputs: Inputs) -> tuple[PreTrainedTokenizerBase, dict[str, TextStore]]:
    """The tokenizer and, made or not, the store of each text source."""
    cache, data = Path(config.cache_dir).expanduser(), config.data
    listed = {name: sources.listed(s, name) for name, s in data.sources.items() if s.kind not in SYNTHETIC}
    tokenizer = _tokenizer(config, inputs, listed, cache)
    encode, size, found = encode_with(tokenizers.backend(tokenizer)), tokenizers.size(tokenizer), {}
    decides = {"format": FORMAT, "tokenizer": tokenizers.identity(tokenizer), "heldout": data.heldout}
    for name, at in listed.items():
        how = How(name, encode, size, data.heldout, workers(data))
        found[name] = TextStore.of(cache, decides, data.sources[name], at, how)
    return tokenizer, found


def workers(data: DataConfig) -> int:
    """Threads that tokenise: as set, else the cores that this process may use."""
    return data.workers or len(os.sched_getaffinity(0))


def _tokenizer(config: Config, inputs: Inputs, listed: dict[str, Listed], cache: Path) -> PreTrainedTokenizerBase:
    if inputs.tokenizer is not None:
        return tokenizers.load(inputs.tokenizer, inputs.revision, inputs.trust_remote_code)
    assert config.model.scratch is not None
    size = config.model.scratch.vocab_size
    decides = {
        "format": FORMAT,
        "vocab_size": size,
        "heldout": config.data.heldout,
        "sources": {n: at.identity() for n, at in listed.items()},
    }
    folder = cache / "tokenizers" / manifest.fingerprint(decides)[:16]

    def work(temporary: Path) -> dict[str, Any]:
        tokenizers.save(tokenizers.train(_training_texts(config, listed), size), temporary)
        return {}

    print(run_shared("tokenizer", decides, folder, work)[1])
    return tokenizers.load(str(folder))


def _training_texts(config: Config, listed: dict[str, Listed]) -> Iterator[str]:
    """Texts of every source but what is held out for eval."""
    for name, at in listed.items():
        for item in (item for unit in at.units for item in sources.read(config.data.sources[name], at, unit)):
            if isinstance(item, Document) and not store.is_heldout(item.id, config.data.heldout):
                yield item.text


def _finished(text: TextStore, name: str) -> Path:
    """The folder of a source's store, made where it is not there. Raises: DataError, ConfigError."""
    text.make(text.missing())
    print(text.publish())
    facts = store.load(text.folder).facts
    if facts["documents"] == 0:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in facts["refused"].items())
        raise DataError(
            f"data.sources.{name}.path is {text.source.path}; no document could be read ({reasons}); mend the files"
        )
    return text.folder


def _marks(config: Config, tokenizer: PreTrainedTokenizerBase) -> Marks:
    words = {"data.begin": config.data.begin, "data.end": config.data.end}
    return Marks(*(None if word is None else tokenizers.token_id(tokenizer, key, word) for key, word in words.items()))


def _pose(config: Config) -> dict[str, Any]:
    """How the reader skips positions: part of what the stage gives to training, and no part of the plan."""
    pose = config.data.pose
    if pose.target_length is None:
        return {}
    return {"pose": {"target_length": pose.target_length, "chunks": pose.chunks, "seed": config.seed}}


def _budgets(config: Config, offers: dict[str, Offer], rounds: dict[str, int | None] | None) -> dict[str, int | None]:
    weights = {name: s.weight for name, s in config.data.sources.items()}
    available = {name: offers[name].tokens if name in offers else None for name in weights}
    found = shares.budgets(weights, available, config.data.tokens, rounds)
    total = sum(available[name] or 0 if found[name] is None else found[name] or 0 for name in found)
    if total < config.data.seq_len:
        have = ", ".join(f"{name}: {size}" for name, size in available.items() if size is not None)
        raise DataError(
            f"data.seq_len is {config.data.seq_len}; the sources give {total} training tokens ({have}), less than one "
            "sequence; add documents or lower data.seq_len"
        )
    return found


def _synthetic_store(
    config: Config,
    name: str,
    source: SourceConfig,
    filler: store.Store,
    tokens: int,
    length: int,
    tokenizer: PreTrainedTokenizerBase,
    cache: Path,
) -> Path:
    decides = {
        "format": FORMAT,
        "kind": source.kind,
        "filler": filler.fingerprint,
        "tokens": tokens,
        "length": length,
        "seed": config.seed,
    }
    folder = cache / "tokens" / manifest.fingerprint(decides)[:16]

    def work(temporary: Path) -> dict[str, Any]:
        made = _synthetic(source.kind, filler, tokens, length, config.seed, tokenizer)
        return {"kind": source.kind, **merge.one_shard(temporary, name, made, tokenizers.size(tokenizer))}

    with told_when_full(folder):
        print(run_shared(f"tokens of {name}", decides, folder, work)[1])
    return folder


def _synthetic(
    kind: str, filler: store.Store, tokens: int, length: int, seed: int, tokenizer: PreTrainedTokenizerBase
) -> Iterator[np.ndarray]:
    """Documents of at most `length` tokens, from training text only, until there are `tokens`.

    Half of what is asked of a pass key is near and half far: a model learns to look back a little before it looks back far.
    """
    encode = tokenizers.encode_ids(tokenizer)
    task = 8 + sum(
        len(encode(t.format(key="00000"))) for t in (retrieval.NEEDLE, retrieval.QUESTION + retrieval.ANSWER)
    )
    text = np.concatenate([filler.document(i) for i in np.flatnonzero(~filler.heldout).tolist()]).astype(np.int64)
    made = number = 0
    while made < tokens:
        rng = np.random.Generator(np.random.Philox(key=[seed, number]))
        if kind == "repeat":
            ids = retrieval.repeat(text, length, rng)
        else:
            size = length if number % 2 else int(rng.integers(max(length // 8, min(task, length)), length + 1))
            surroundings, key = retrieval.stretch(text, size, rng), retrieval.random_key(rng)
            ids = retrieval.passkey(encode, surroundings, key, size, float(rng.uniform())).ids
        yield ids
        made, number = made + len(ids), number + 1
