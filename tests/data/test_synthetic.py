"""The text of a filler, span by span. Oracle: numpy on its training documents end to end."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from stores import in_memory

from ropewalk.data.synthetic import TrainingText

DOCUMENTS = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), min_size=1, max_size=6)


@given(DOCUMENTS, st.data())
def test_spans_are_those_of_the_training_documents_end_to_end(
    documents: list[list[int]], data: st.DataObject
) -> None:
    heldout = data.draw(st.lists(st.booleans(), min_size=len(documents), max_size=len(documents)))
    text = TrainingText(in_memory(documents, heldout))
    training = [ids for ids, held_out in zip(documents, heldout, strict=True) if not held_out]
    expected = np.concatenate([np.empty(0, np.int64), *training]).astype(np.int64)
    low, high = (data.draw(st.integers(0, 30)) for _ in range(2))
    assert len(text) == len(expected)
    assert text[low:high].tolist() == expected[low:high].tolist()
    assert text[low:high].dtype == np.int64
