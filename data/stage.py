"""The data stage: sources -> token stores -> cleaning -> plan -> ledger."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.manifest import Manifest
from ropewalk.conf.data import DataConfig
from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC, SourceConfig
from ropewalk.data import planning, sources, synthetic, train_tokenizer
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.cleaning import clean
from ropewalk.data.ledger import findings
from ropewalk.data.ledger.entries import context_only_sources, without_context_only
from ropewalk.data.mixing import offers, shares
from ropewalk.data.mixing.overlong import Candidates
from ropewalk.data.mixture import Mixture
from ropewalk.data.prepared import PreparedData
from ropewalk.data.sources import GroupedListing, SourceListing
from ropewalk.data.tokenizer import RunTokenizer
from ropewalk.data.tokens import shards
from ropewalk.data.tokens import store as token_store
from ropewalk.data.tokens.encode import encode_with
from ropewalk.data.tokens.given_ids import GivenIds
from ropewalk.data.tokens.locate import Locator
from ropewalk.data.tokens.store import FORMAT, BoundaryTokens, Store
from ropewalk.data.tokens.text_store import TextStore
from ropewalk.data.tokens.write import TokenizeOptions


@dataclass(frozen=True)
class Inputs:
    """Where the base's tokenizer is; None for a base made from scratch."""

    tokenizer: str | None
    revision: str | None = None
    trust_remote_code: bool = False
    listings: Mapping[str, SourceListing] = field(default_factory=dict)
    """Text sources that are listed already, by name; the others are listed here."""
    loaded: RunTokenizer | None = None
    """The tokenizer, if the preflight has loaded it."""


def run(config: Config, inputs: Inputs, output: Path) -> tuple[Manifest, str]:
    """Run the stage, or skip its finished parts. Raises: ConfigError, DataError, ProofError."""
    return prepare(config, inputs).write(output)


def prepare(config: Config, inputs: Inputs) -> PreparedData:
    """Make stores and plan, or skip their finished parts.

    Raises: ConfigError, DataError, ProofError.
    """
    clean.require_packages(config.data)
    cache = Path(config.cache_dir).expanduser()
    tokenizer, text_stores = _text_stores(config, inputs)
    tokenizer = _for_readers(config, inputs, tokenizer)
    boundaries = boundary_tokens(config.data, tokenizer)
    texts = {name: _finish_store(config, name, text) for name, text in text_stores.items()}
    usable = {n: offers.candidates(config, n, texts[n], boundaries) for n in texts}
    cleaned = clean.clean(config.data, texts, usable, cache)
    mixture = _mixture(config, texts, cleaned, boundaries, tokenizer)
    plan = planning.make_plan(mixture, cache)
    ledger = without_context_only(
        planning.make_ledger(mixture, plan), context_only_sources(config.data)
    )
    ledger = findings.with_findings(cleaned.add_to_ledger(ledger))
    return PreparedData(_artifacts(mixture, tokenizer, plan), tokenizer, ledger)


def _text_stores(config: Config, inputs: Inputs) -> tuple[RunTokenizer, dict[str, TextStore]]:
    """The tokenizer, and the store of each text source, finished or not."""
    cache, data = Path(config.cache_dir).expanduser(), config.data
    texts = {name: s for name, s in data.sources.items() if s.kind not in SYNTHETIC}
    listings = {
        name: sources.grouped(
            inputs.listings.get(name) or sources.list_source(source, name, data.max_document_bytes),
            cache,
        )
        for name, source in texts.items()
    }
    tokenizer = _tokenizer(config, inputs, listings)
    encode, locate = encode_with(tokenizer.backend), Locator(tokenizer.backend)
    size = tokenizers.vocab_size(tokenizer)
    cache_key = {"format": FORMAT, "tokenizer": tokenizers.encoding_fingerprint(tokenizer)}
    stores = {}
    for name, listing in listings.items():
        given = given_ids(name, texts[name], tokenizer)
        if given is not None and isinstance(listing, SourceListing):
            listing = listing.cut_at(given.begin, given.end)
        options = TokenizeOptions(name, encode, size, workers(data), locate, given)
        stores[name] = TextStore.from_listing(cache, cache_key, texts[name], listing, options)
    return tokenizer, stores


def _tokenizer(
    config: Config, inputs: Inputs, listings: dict[str, SourceListing | GroupedListing]
) -> RunTokenizer:
    if inputs.tokenizer is None:
        return train_tokenizer.train_tokenizer(config, listings)
    if inputs.loaded is not None:
        return inputs.loaded
    return tokenizers.load(inputs.tokenizer, inputs.revision, inputs.trust_remote_code)


def _for_readers(config: Config, inputs: Inputs, tokenizer: RunTokenizer) -> RunTokenizer:
    """The tokenizer with the files that go with the trained model. Prints what they change."""
    cache = Path(config.cache_dir).expanduser() / "tokenizers"
    model_config = (
        tokenizers.read_model_config(inputs.tokenizer, inputs.revision) if inputs.tokenizer else {}
    )
    files, line = tokenizers.for_readers(tokenizer, model_config, cache, inputs.trust_remote_code)
    if line:
        print(f"warning: {line}", flush=True)
    return files


def given_ids(name: str, source: SourceConfig, tokenizer: RunTokenizer) -> GivenIds | None:
    """How the token ids of a source are cut; None for text. Raises: ConfigError."""
    if not source.gives_ids:
        return None
    begin, end = (
        None if token is None else _token_ids(f"data.sources.{name}.{key}", token, tokenizer)
        for key, token in (("ids_begin", source.ids_begin), ("ids_end", source.ids_end))
    )
    setting = f"kind is {source.kind}" if source.ids_key is None else f"ids_key is {source.ids_key}"
    return GivenIds(setting, tokenizer.backend, begin, end)  # type: ignore[arg-type]


def workers(data: DataConfig) -> int:
    """Threads that tokenise: as set, or all cores that this process may use."""
    return data.tokenizer_threads or len(os.sched_getaffinity(0))


def boundary_tokens(data: DataConfig, tokenizer: RunTokenizer) -> BoundaryTokens:
    """The ids of `data.begin` and `data.end`. Raises: ConfigError for no token of the tokenizer."""
    begin, end = (
        None if token is None else _token_ids(key, token, tokenizer)
        for key, token in (("data.begin", data.begin), ("data.end", data.end))
    )
    return BoundaryTokens(begin, end)


def _token_ids(key: str, token: Any, tokenizer: RunTokenizer) -> int | list[int]:
    """The id of a token, or the ids of several. Raises: ConfigError."""
    if isinstance(token, str):
        return tokenizers.token_id(tokenizer, key, token)
    given = token if isinstance(token, list) else [token]
    if (largest := max(given)) >= (size := tokenizers.vocab_size(tokenizer)):
        raise ConfigError(
            f"{key} is {token}; {largest} is no id of the tokenizer, whose vocabulary has {size} "
            "tokens; give ids below that"
        )
    return list(given) if len(given) > 1 else int(given[0])


def _finish_store(config: Config, name: str, text: TextStore) -> Store:
    """Make a source's missing shards and open its store. Raises: DataError, ConfigError."""
    text.make(list(range(len(text.shards))))
    print(text.publish())
    store = token_store.load(text.folder, config.data.heldout_share)
    if store.metadata["documents"] == 0:
        refused = store.metadata["refused"].items()
        reasons = ", ".join(f"{reason}: {count}" for reason, count in refused)
        reasons = reasons or "its files hold none"
        raise DataError(
            f"data.sources.{name}.path is {text.source.path}; no document could be read "
            f"({reasons}); mend the files"
        )
    return store


def _mixture(
    config: Config,
    texts: Mapping[str, Store],
    cleaned: clean.Cleaned,
    boundaries: BoundaryTokens,
    tokenizer: RunTokenizer,
) -> Mixture:
    """The text sources after cleaning, and the synthetic ones made of them. Raises: DataError."""
    rounds = offers.round_tokens(config, texts, cleaned.offers, boundaries)
    budgets = _budgets(config, cleaned.offers, rounds)
    stores, usable = dict(texts), dict(cleaned.offers)
    for name in [name for name in config.data.sources if name not in texts]:
        filler = cleaned.stores[config.data.sources[name].filler or ""]
        # with its boundary tokens, a document is as long as the source's longest piece
        length = offers.max_piece(config, name) - boundaries.count
        folder = synthetic.make_store(config, name, filler, budgets[name] or 0, length, tokenizer)
        stores[name] = token_store.load(folder, config.data.heldout_share)
        usable[name] = offers.candidates(config, name, stores[name], boundaries)
        budgets[name] = None if budgets[name] else 0  # every synthetic document, uncut
    ordered = {name: stores[name] for name in config.data.sources}
    return Mixture(config, ordered, usable, budgets, boundaries)


def _budgets(
    config: Config, usable: Mapping[str, Candidates], rounds: dict[str, int | None] | None
) -> dict[str, int | None]:
    """Tokens of each source; None: one round of all documents.

    Raises: DataError for less than a sequence.
    """
    weights = {name: source.weight for name, source in config.data.sources.items()}
    available = {name: usable[name].tokens if name in usable else None for name in weights}
    budgets = shares.token_budgets(weights, available, config.data.total_tokens, rounds)
    total = sum(
        (available[name] if budget is None else budget) or 0 for name, budget in budgets.items()
    )
    if total < config.data.seq_len:
        sizes = ", ".join(f"{name}: {size}" for name, size in available.items() if size is not None)
        raise DataError(
            f"data.seq_len is {config.data.seq_len}; the sources give {total} training tokens "
            f"({sizes}), less than one sequence; add documents or lower data.seq_len"
        )
    return budgets


def _artifacts(mixture: Mixture, tokenizer: RunTokenizer, plan: Path) -> dict[str, Any]:
    """The names of stores and plan in the cache, and what else decides the sequences."""
    config = mixture.config
    artifacts = {
        "plan": plan.name,
        "stores": {name: store.cache_name for name, store in mixture.stores.items()},
        "heldout": config.data.heldout_share,
        "tokenizer": tokenizers.encoding_fingerprint(tokenizer),
        "tokenizer_files": tokenizers.files_fingerprint(tokenizer),
        **_pose(config),
    }
    if context_only := context_only_sources(config.data):
        artifacts["silent"] = context_only
    return artifacts


def _pose(config: Config) -> dict[str, Any]:
    """How the loader skips positions: part of what the stage hands to training, not of the plan."""
    pose = config.data.pose
    if pose.target_length is None:
        return {}
    values = {"target_length": pose.target_length, "chunks": pose.chunks, "seed": config.seed}
    return {"pose": values}


def make_shards(config: Config, inputs: Inputs, task: int, tasks: int) -> list[tuple[str, int]]:
    """Make shards task, task + tasks, ... of all text sources, in the order of the settings.

    Any number of tasks, on any machines that share the cache, make the same stores. Returns
    (source, shard) of each. Raises: ConfigError, DataError.
    """
    _, stores = _text_stores(config, inputs)
    shards_of_all = [
        (name, number) for name, s in stores.items() for number in range(len(s.shards))
    ]
    task_shards = shards_of_all[task::tasks]
    for name, store in stores.items():
        store.make([number for source, number in task_shards if source == name])
    return task_shards


def missing_shards(config: Config, inputs: Inputs) -> list[str]:
    """The shards that do not exist yet, as SOURCE/SHARD. Raises: ConfigError, DataError."""
    _, stores = _text_stores(config, inputs)
    return [
        f"{name}/{shards.folder_name(number)}"
        for name, store in stores.items()
        for number in store.missing()
    ]


def verify_shards(config: Config, inputs: Inputs) -> None:
    """Check the bytes of all shards before they are merged. Raises: DataError."""
    _, stores = _text_stores(config, inputs)
    for store in stores.values():
        store.verify()
