"""The public face of the data stage: training sequences by number and step, and held-out text."""

from ropewalk.data.heldout import HeldoutText, Window, describe, in_turn
from ropewalk.data.loading.collate import IGNORE, Row, collate, concatenate
from ropewalk.data.loading.loader import BatchLoader, SequenceRef, TokenSpan, prefetch
from ropewalk.data.loading.packed import DataArtifacts, PackedSequences
from ropewalk.data.tokens.store import BoundaryTokens, Store

__all__ = [
    "IGNORE",
    "BatchLoader",
    "BoundaryTokens",
    "DataArtifacts",
    "HeldoutText",
    "PackedSequences",
    "Row",
    "SequenceRef",
    "Store",
    "TokenSpan",
    "Window",
    "collate",
    "concatenate",
    "describe",
    "in_turn",
    "prefetch",
]
