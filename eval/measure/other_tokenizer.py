"""Held-out text for a model with another tokenizer: the same documents, decoded and encoded anew.

Windows begin at the same character. A window's text is longer or shorter there, since its tokens
are: what two tokenizers give compares by bytes, not by tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data.dataset import BoundaryTokens, HeldoutText, Store, Window
from ropewalk.data.tokenizer import RunTokenizer, text_encoder


@dataclass(frozen=True)
class OtherTokenizer:
    """From the ids of one tokenizer to those of another, by the text."""

    source: RunTokenizer
    target: RunTokenizer
    name: str
    """Of the model that has `target`, for messages."""

    def text(self, ids: np.ndarray) -> str:
        """Raises: DataError when the text does not give the same ids again."""
        text = _decoded(self.source, ids)
        if not np.array_equal(text_encoder(self.source)(text), ids):
            raise DataError(
                f"{self.name} has another tokenizer than the run; the run's own must give back a "
                "held-out document by its ids, and does not; measure that model in a run of its "
                "own, with model.path set to it"
            )
        return text

    def ids(self, text: str) -> np.ndarray:
        """Raises: DataError when the ids do not give the text again."""
        ids = text_encoder(self.target)(text)
        if _decoded(self.target, ids) != text:
            raise DataError(
                f"{self.name} has a tokenizer that changes a held-out document (its ids decode to "
                "another text); it must give every text back, or answers cannot be judged; leave "
                "the model out"
            )
        return ids

    def heldout(self, text: HeldoutText, marks: BoundaryTokens) -> HeldoutText:
        """The held-out documents under the target. `marks`: the target's tokens around them."""
        stores = {name: self._store(store) for name, store in text.stores.items()}
        return HeldoutText(stores, marks, text.context_only)

    def _store(self, store: Store) -> Store:
        kept = np.flatnonzero(store.heldout)
        texts = [self.ids(self.text(store.document(index))) for index in kept.tolist()]
        lengths = np.array([len(ids) for ids in texts], np.int64)
        return Store(
            tokens=np.concatenate([np.empty(0, np.int64), *texts]),
            offset=np.cumsum([0, *lengths])[:-1],
            length=lengths,
            heldout=np.ones(len(kept), bool),
            key=store.key[kept],
            ids=[store.ids[index] for index in kept.tolist()],
            metadata={},
            fingerprint=store.fingerprint,
        )

    def windows(
        self, windows: Sequence[Window], text: HeldoutText, marks: BoundaryTokens, length: int
    ) -> list[Window]:
        """The windows of `text` from the same characters on, `length` tokens each under the target.

        One whose document ends before is left out.
        """
        places = {name: _places(store) for name, store in text.stores.items()}
        under_target = []
        for window in windows:
            store = text.stores[window.source]
            ids = store.document(places[window.source][window.document])
            rest = self.ids(self._from(ids, window.start))
            if len(rest) + marks.count >= length:
                laid = marks.lay_out(rest, 0, length).astype(np.int64)
                under_target.append(Window(window.document, laid, window.source, window.start))
        return under_target

    def _from(self, ids: np.ndarray, start: int) -> str:
        """The text from a token on, without a character that is split by the border."""
        text, before = self.text(ids), _decoded(self.source, ids[:start]).rstrip("\ufffd")
        return text[len(before) :]


def _decoded(tokenizer: RunTokenizer, ids: np.ndarray) -> str:
    return str(tokenizer.backend.decode(ids.tolist(), skip_special_tokens=False))


def _places(store: Store) -> Mapping[str, int]:
    return {store.ids[index]: index for index in np.flatnonzero(store.heldout).tolist()}
