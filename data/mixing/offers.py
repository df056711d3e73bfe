"""The plan as the stage makes it: what the sources offer -> shares -> sequences in the cache -> the ledger."""

from dataclasses import replace

from ropewalk.conf.data_mixture import rules
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.mixing import lengths, overlong
from ropewalk.data.mixing.overlong import Candidates
from ropewalk.data.mixing.supply import BucketedSource, refuse_empty
from ropewalk.data.tokens.boundaries import BoundaryTokens
from ropewalk.data.tokens.store import Store


def longest(config: Config, name: str) -> int:
    """The longest piece of a source's documents, tokens."""
    found = config.data.sources[name].piece_len
    return config.data.seq_len if found is None else found


def offered(config: Config, name: str, opened: Store, marks: BoundaryTokens) -> Candidates:
    """What the source gives. One of weight 0 gives nothing, so none of its documents is too long or short. Raises: DataError."""
    source = config.data.sources[name]
    if source.weight == 0:
        return overlong.offer(name, opened, longest(config, name), "split", marks)
    left_out = lengths.outside(name, opened.length + marks.count, ~opened.heldout, source.span)
    found = overlong.offer(
        name, opened, longest(config, name), config.data.overlong, marks, left_out
    )
    tokens = int(opened.length[left_out].sum())
    return replace(found, outside_length=tokens, outside_length_documents=int(left_out.sum()))


def _texts(config: Config) -> list[str]:
    """The sources whose documents have lengths of their own and are in the mixture."""
    return [
        name for name, s in config.data.sources.items() if s.kind not in SYNTHETIC and s.weight != 0
    ]


def _length_weights(config: Config, name: str) -> dict[str, float]:
    own = config.data.sources[name].length_weights
    return (config.data.length_weights if own is None else own) if name in _texts(config) else {}


def _supply(
    config: Config, name: str, offer: Candidates, opened: Store, marks: BoundaryTokens
) -> BucketedSource:
    sizes = opened.length + marks.count
    rates = lengths.rates(sizes, rules(_length_weights(config, name)))
    buckets = rules(config.data.buckets) if name in _texts(config) else []
    return BucketedSource.of(
        name, sizes, offer.lengths, offer.usable, opened.key, config.seed, rates, buckets
    )


def rounds(
    config: Config, opened: dict[str, Store], offers: dict[str, Candidates], marks: BoundaryTokens
) -> dict[str, int | None] | None:
    """Tokens that one round of each source gives, None for a synthetic one; None where no setting makes a difference by length.

    Raises: DataError when no document lies in a bucket, or none of a source may be taken.
    """
    texts = _texts(config)
    if not any(config.data.buckets or _length_weights(config, name) for name in texts):
        return None
    found = {name: _supply(config, name, offers[name], opened[name], marks) for name in texts}
    refuse_empty(found)
    return {
        **dict.fromkeys(config.data.sources),
        **{name: supply.round() for name, supply in found.items()},
    }
