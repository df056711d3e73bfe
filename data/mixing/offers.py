"""From a source's settings and its opened store to its candidates and its bucketed source."""

from collections.abc import Mapping
from dataclasses import replace

from ropewalk.conf.data_mixture import rules
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.mixing import overlong, supply
from ropewalk.data.mixing.overlong import Candidates
from ropewalk.data.mixing.supply import BucketedSource, refuse_empty
from ropewalk.data.tokens.store import BoundaryTokens, Store


def max_piece(config: Config, name: str) -> int:
    """The longest piece of a source's documents, in tokens."""
    piece_len = config.data.sources[name].piece_len
    return config.data.seq_len if piece_len is None else piece_len


def candidates(
    config: Config, name: str, store: Store, boundary_tokens: BoundaryTokens
) -> Candidates:
    """The documents that the mixture may take of a source.

    Raises: DataError when no document is within the length limits, or by `data.overlong`.
    """
    source, limit = config.data.sources[name], max_piece(config, name)
    if source.weight == 0:  # nothing is taken, so no document is too long or too short
        return overlong.candidates(name, store, limit, "split", boundary_tokens)
    sizes = boundary_tokens.with_boundaries(store.length)
    excluded = supply.outside(name, sizes, ~store.heldout, source.span)
    usable = overlong.candidates(
        name, store, limit, config.data.overlong, boundary_tokens, excluded
    )
    tokens = int(store.length[excluded].sum())
    return replace(usable, outside_length=tokens, outside_length_documents=int(excluded.sum()))


def text_sources(config: Config) -> list[str]:
    """The sources in the mixture whose documents have lengths of their own."""
    sources = config.data.sources.items()
    return [name for name, s in sources if s.kind not in SYNTHETIC and s.weight != 0]


def length_weights(config: Config, name: str) -> dict[str, float]:
    """Expected repeats by length: the source's own setting, or the one for all."""
    if name not in text_sources(config):
        return {}
    weights = config.data.sources[name].length_weights
    return config.data.length_weights if weights is None else weights


def bucketed_source(
    config: Config, name: str, usable: Candidates, store: Store, boundary_tokens: BoundaryTokens
) -> BucketedSource:
    """A source's candidates with their rates, in buckets of length."""
    sizes = boundary_tokens.with_boundaries(store.length)
    rates = supply.rates(sizes, rules(length_weights(config, name)))
    buckets = rules(config.data.buckets) if name in text_sources(config) else []
    return BucketedSource.from_documents(
        name, sizes, usable.lengths, usable.usable, store.key, config.seed, rates, buckets
    )


def round_tokens(
    config: Config,
    stores: Mapping[str, Store],
    usable: Mapping[str, Candidates],
    boundary_tokens: BoundaryTokens,
) -> dict[str, int | None] | None:
    """Tokens of one round of each source, None for a synthetic one.

    None instead of a dict when no setting distinguishes documents by length.
    Raises: DataError when a bucket holds no document, or a source gives no token.
    """
    names = text_sources(config)
    if not any(config.data.buckets or length_weights(config, name) for name in names):
        return None
    sources = {
        name: bucketed_source(config, name, usable[name], stores[name], boundary_tokens)
        for name in names
    }
    refuse_empty(sources)
    tokens: dict[str, int | None] = dict.fromkeys(config.data.sources)
    return tokens | {name: source.round_tokens() for name, source in sources.items()}
