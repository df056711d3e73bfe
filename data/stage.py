"""The data stage: sources -> token stores -> plan -> ledger."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from ropewalk.conf import manifest
from ropewalk.conf.data import SYNTHETIC, SourceConfig
from ropewalk.conf.errors import DataError
from ropewalk.conf.manifest import Manifest, read_json, run_shared, run_stage, write_json
from ropewalk.conf.schema import Config
from ropewalk.data import cleaning, mixture, remarks, retrieval, shares, sources, store
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.marks import Marks
from ropewalk.data.mixture import FORMAT
from ropewalk.data.overlong import Offer
from ropewalk.data.sources import Document, Listed, Refusal


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
    texts = {name: s for name, s in config.data.sources.items() if s.kind not in SYNTHETIC}
    listed = {name: sources.listed(s, name) for name, s in texts.items()}
    tokenizer = _tokenizer(config, inputs, listed, cache)
    marks = _marks(config, tokenizer)
    stores = {name: _text_store(config, name, s, listed[name], tokenizer, cache) for name, s in texts.items()}
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
        for item in _items(config.data.sources[name], at):
            if isinstance(item, Document) and not store.is_heldout(item.id, config.data.heldout):
                yield item.text


def _items(source: SourceConfig, listed: Listed) -> Iterator[Document | Refusal]:
    return (item for unit in listed.units for item in sources.read(source, listed, unit))


def _text_store(
    config: Config,
    name: str,
    source: SourceConfig,
    listed: Listed,
    tokenizer: PreTrainedTokenizerBase,
    cache: Path,
) -> Path:
    decides = {
        "format": FORMAT,
        "tokenizer": tokenizers.identity(tokenizer),
        "heldout": config.data.heldout,
        "source": listed.identity(),
    }
    folder = cache / "tokens" / manifest.fingerprint(decides)[:16]

    def work(temporary: Path) -> dict[str, Any]:
        size = sum(unit.size for unit in listed.units)
        with tqdm(total=size, unit="B", unit_scale=True, desc=f"tokenise {name}", disable=None) as bar:
            encode = store.encode_with(tokenizers.backend(tokenizer))
            facts = store.write(
                temporary, _items(source, listed), encode, len(tokenizer), config.data.heldout, bar.update
            )
        return {"kind": listed.kind, **facts}

    _, said = run_shared(f"tokens of {name}", decides, folder, work)
    print(said)
    facts = store.load(folder).facts
    if facts["documents"] == 0:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in facts["refused"].items())
        raise DataError(
            f"data.sources.{name}.path is {source.path}; no document could be read ({reasons}); mend the files"
        )
    return folder


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
        return {"kind": source.kind, **store.write_ids(temporary, made, len(tokenizer))}

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
