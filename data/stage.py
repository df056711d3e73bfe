"""The data stage: sources -> token stores -> plan -> ledger."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ropewalk.conf.artifacts.manifest import Manifest, read_json, run_stage, write_json
from ropewalk.conf.data import DataConfig
from ropewalk.conf.errors import DataError
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data import sources, synthetic, train_tokenizer
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.cleaning import clean
from ropewalk.data.ledger import findings
from ropewalk.data.loading import label_mask
from ropewalk.data.mixing import offers as mixing_offers
from ropewalk.data.mixing import shares
from ropewalk.data.mixing.overlong import Candidates
from ropewalk.data.planning import FORMAT, ledger, make
from ropewalk.data.sources import SourceListing
from ropewalk.data.tokens import shards, store
from ropewalk.data.tokens.boundaries import BoundaryTokens
from ropewalk.data.tokens.encode import encode_with
from ropewalk.data.tokens.store import Store
from ropewalk.data.tokens.text_store import TextStore
from ropewalk.data.tokens.write import TokenizeOptions


@dataclass(frozen=True)
class Inputs:
    """What launch hands over: where the base's tokenizer is; None for a base made from scratch."""

    tokenizer: str | None
    revision: str | None = None
    trust_remote_code: bool = False


def run(config: Config, inputs: Inputs, output: Path) -> tuple[Manifest, str]:
    """Run the stage, or skip what is done. Raises: ConfigError, DataError, ProofError."""
    clean.require_packages(config.data)
    cache, held = Path(config.cache_dir).expanduser(), config.data.heldout
    tokenizer, texts = _texts(config, inputs)
    marks = _marks(config, tokenizer)
    opened = {name: store.load(_made(text, name), held) for name, text in texts.items()}
    offered = {name: mixing_offers.offered(config, name, opened[name], marks) for name in opened}
    cleaned = clean.clean(config.data, opened, offered, cache)
    budget = _budgets(
        config, cleaned.offers, mixing_offers.rounds(config, opened, cleaned.offers, marks)
    )
    made = _synthetic(config, cleaned.stores, budget, marks, tokenizer)
    stores = {n: made[n] if n in made else texts[n].folder for n in config.data.sources}
    offers = {
        **cleaned.offers,
        **{
            n: mixing_offers.offered(config, n, store.load(at, held), marks)
            for n, at in made.items()
        },
    }
    budget |= {
        n: None if budget[n] else 0 for n in made
    }  # all that was made: the documents stay whole
    folder = make(config, stores, offers, budget, marks, cache)
    ledger = findings.with_findings(cleaned.add_to_ledger(_ledger(config, stores, offers, folder)))
    return _finish(config, output, tokenizer, stores, folder, ledger)


def _synthetic(
    config: Config,
    texts: Mapping[str, Store],
    budget: Mapping[str, int | None],
    marks: BoundaryTokens,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Path]:
    """The stores of the synthetic sources; a document with its marks is as long as the source's longest piece. Raises: DataError."""
    found = {}
    for name in [name for name, source in config.data.sources.items() if source.kind in SYNTHETIC]:
        filler, length = (
            texts[config.data.sources[name].filler or ""],
            mixing_offers.longest(config, name) - marks.count,
        )
        found[name] = synthetic.store_of(config, name, filler, budget[name] or 0, length, tokenizer)
    return found


def _ledger(
    config: Config, stores: dict[str, Path], offers: dict[str, Candidates], plan: Path
) -> dict[str, Any]:
    return label_mask.add_to_ledger(
        ledger(config, stores, offers, plan), label_mask.context_only_sources(config.data)
    )


def _finish(
    config: Config,
    output: Path,
    tokenizer: PreTrainedTokenizerBase,
    stores: dict[str, Path],
    plan: Path,
    ledger: dict[str, Any],
) -> tuple[Manifest, str]:
    """What the run's folder holds: the tokenizer, where stores and plan lie in the cache, and the ledger."""
    decides = {
        "plan": plan.name,
        "stores": {n: f.name for n, f in stores.items()},
        "heldout": config.data.heldout,
        "tokenizer": tokenizers.identity(tokenizer),
        "tokenizer_files": tokenizers.saved_identity(tokenizer),
        **_pose(config),
        **({"silent": names} if (names := label_mask.context_only_sources(config.data)) else {}),
    }

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
    mine = [(name, number) for name, text in texts.items() for number in range(len(text.shards))][
        task::tasks
    ]
    for name, text in texts.items():
        text.make([number for source, number in mine if source == name])
    return mine


def missing_shards(config: Config, inputs: Inputs) -> list[str]:
    """The shards that are not there yet, as SOURCE/SHARD. Raises: ConfigError, DataError."""
    _, texts = _texts(config, inputs)
    return [
        f"{name}/{shards.folder_name(number)}"
        for name, text in texts.items()
        for number in text.missing()
    ]


def prove_shards(config: Config, inputs: Inputs) -> None:
    """Before shards that are all there are merged: their bytes must be those that were written. Raises: DataError."""
    for text in _texts(config, inputs)[1].values():
        text.verify()


def _texts(config: Config, inputs: Inputs) -> tuple[PreTrainedTokenizerBase, dict[str, TextStore]]:
    """The tokenizer and, made or not, the store of each text source."""
    cache, data = Path(config.cache_dir).expanduser(), config.data
    listed = {
        name: sources.list_source(s, name)
        for name, s in data.sources.items()
        if s.kind not in SYNTHETIC
    }
    tokenizer = _tokenizer(config, inputs, listed)
    encode, size, found = encode_with(tokenizers.backend(tokenizer)), tokenizers.size(tokenizer), {}
    decides = {"format": FORMAT, "tokenizer": tokenizers.identity(tokenizer)}
    for name, at in listed.items():
        how = TokenizeOptions(name, encode, size, workers(data))
        found[name] = TextStore.of(cache, decides, data.sources[name], at, how)
    return tokenizer, found


def _tokenizer(
    config: Config, inputs: Inputs, listed: dict[str, SourceListing]
) -> PreTrainedTokenizerBase:
    if inputs.tokenizer is None:
        return train_tokenizer.train_tokenizer(config, listed)
    return tokenizers.load(inputs.tokenizer, inputs.revision, inputs.trust_remote_code)


def workers(data: DataConfig) -> int:
    """Threads that tokenise: as set, else the cores that this process may use."""
    return data.workers or len(os.sched_getaffinity(0))


def _made(text: TextStore, name: str) -> Path:
    """The folder of a source's store, made where it is not there. Raises: DataError, ConfigError."""
    text.make(text.missing())
    print(text.publish())
    facts = store.load(text.folder, heldout=0.0).metadata
    if facts["documents"] == 0:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in facts["refused"].items())
        raise DataError(
            f"data.sources.{name}.path is {text.source.path}; no document could be read ({reasons}); mend the files"
        )
    return text.folder


def _marks(config: Config, tokenizer: PreTrainedTokenizerBase) -> BoundaryTokens:
    words = {"data.begin": config.data.begin, "data.end": config.data.end}
    return BoundaryTokens(
        *(
            None if word is None else tokenizers.token_id(tokenizer, key, word)
            for key, word in words.items()
        )
    )


def _pose(config: Config) -> dict[str, Any]:
    """How the reader skips positions: part of what the stage gives to training, and no part of the plan."""
    pose = config.data.pose
    if pose.target_length is None:
        return {}
    return {
        "pose": {"target_length": pose.target_length, "chunks": pose.chunks, "seed": config.seed}
    }


def _budgets(
    config: Config, offers: dict[str, Candidates], rounds: dict[str, int | None] | None
) -> dict[str, int | None]:
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
