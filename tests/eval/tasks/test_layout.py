"""Questions and shorter contexts begin and end as training documents do, all sources in turn."""

from typing import Any

import numpy as np
import pytest

from ropewalk.conf.eval import EvalConfig
from ropewalk.data import retrieval
from ropewalk.data.dataset import BoundaryTokens, Window
from ropewalk.eval.requests import Prompt, Prompts
from ropewalk.eval.tasks.passkey import PasskeyRetrieval
from ropewalk.eval.tasks.task import EvalSuite

MARKS = [BoundaryTokens(), BoundaryTokens(7), BoundaryTokens(None, 8), BoundaryTokens(7, 8)]
SOURCES = [np.arange(1000, 1400), np.arange(2000, 2400), np.arange(3000, 3050)]


def encode(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int64)


def suite(marks: BoundaryTokens, windows: list[Window] | None = None, **config: Any) -> EvalSuite:
    settings = EvalConfig(**config)
    return EvalSuite(settings, 16, 64, windows or [], SOURCES, encode, 0, marks)


def prompts(suite: EvalSuite) -> list[Prompt]:
    return [
        prompt
        for sample in PasskeyRetrieval().samples(suite)
        if isinstance(sample.request, Prompts)
        for prompt in sample.request.prompts
    ]


@pytest.mark.parametrize("marks", MARKS)
def test_a_question_is_laid_out_as_a_training_document_of_the_same_text(
    marks: BoundaryTokens,
) -> None:
    tries = {"passkey_lengths": [240], "passkey_depths": [0.0, 1.0], "passkey_tries": 5}
    begin = [] if marks.begin is None else [marks.begin]
    end = [] if marks.end is None else [marks.end]  # as a training document would have
    for prompt in prompts(suite(marks, **tries)):
        ids = [*prompt.ids.tolist(), *prompt.answer.tolist()]
        text = ids[len(begin) :]
        assert len(ids) == 240 - len(end) and ids == [*begin, *text]
        assert not {7, 8} & set(text)
        answer = bytes(prompt.answer.tolist()).decode()
        words = "".join(chr(token) for token in text if token < 256)
        assert words.endswith(retrieval.QUESTION + answer) and words.count(answer.strip()) == 3


def test_the_sources_with_enough_text_give_the_filler_in_turn() -> None:
    settings = {"passkey_lengths": [240], "passkey_depths": [0.0, 0.5, 1.0], "passkey_tries": 3}
    sources = []
    for prompt in prompts(suite(BoundaryTokens(7), **settings)):
        sources.append({token // 1000 for token in prompt.ids.tolist() if token >= 1000})
    assert sources == [{1 + number % 2} for number in range(9)]


def test_all_sources_together_give_the_filler_where_none_has_enough() -> None:
    settings = {"passkey_lengths": [600], "passkey_depths": [0.0], "passkey_tries": 4}
    made = prompts(suite(BoundaryTokens(7), **settings))
    assert [len(prompt.ids) + len(prompt.answer) for prompt in made] == [600] * 4


@pytest.mark.parametrize("marks", MARKS)
def test_a_shorter_context_begins_as_a_document_and_keeps_the_last_tokens(
    marks: BoundaryTokens,
) -> None:
    ids = np.arange(100, 164)
    windows = [Window("a", ids), Window("b", ids + 500)]
    contexts = {context: suite(marks, windows).last_tokens(context) for context in (16, 32, 64)}
    assert contexts[64].tolist() == [ids.tolist(), (ids + 500).tolist()]
    for context in (16, 32):
        begin = [] if marks.begin is None else [marks.begin]
        size = context - len(begin)
        expected = [[*begin, *row[-size:]] for row in (ids.tolist(), (ids + 500).tolist())]
        assert contexts[context].tolist() == expected
