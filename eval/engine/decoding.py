"""Greedy decoding of new tokens after a prompt.

The reference answer is the draft: the pass that judges it gives the likeliest token after each of
its tokens, so its leading correct tokens, and the first token after them, are decoded already. The
others are decoded step by step, for several prompts in one batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from ropewalk.data.dataset import IGNORE
from ropewalk.eval.engine import passes
from ropewalk.eval.engine.branch_attention import NAME, attend_branches
from ropewalk.eval.engine.branches import Branch, BranchCache
from ropewalk.eval.engine.finite import Check
from ropewalk.eval.engine.forward import Forward
from ropewalk.eval.engine.passes import Scores
from ropewalk.eval.requests import Prompt, Prompts, Reply
from ropewalk.train.model.attention_swap import swapped_attention

TextOf = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class End:
    """When the decoding of a prompt is over."""

    eos: frozenset[int]
    text_of: TextOf | None

    @classmethod
    def of(cls, model: PreTrainedModel, text_of: TextOf | None) -> "End":
        """The end-of-sequence tokens of the generation config, or else of the config."""
        ids: Any = getattr(model.generation_config, "eos_token_id", None)
        ids = getattr(model.config, "eos_token_id", None) if ids is None else ids
        return cls(frozenset(np.atleast_1d([] if ids is None else ids).tolist()), text_of)

    def reached(self, prompt: Prompt, ids: Sequence[int]) -> bool:
        if len(ids) >= prompt.max_new_tokens or ids[-1] in self.eos:
            return True
        if not prompt.until:
            return False
        if self.text_of is None:
            raise ValueError("the prompt ends at a text; give the engine a function `text_of`")
        text = self.text_of(ids)
        return all(part in text for part in prompt.until)


@dataclass(eq=False)
class Answer:
    """A prompt that is being answered."""

    group: Prompts
    prompt: Prompt
    correct: int
    nll: float
    ids: list[int] = field(default_factory=list)
    """New tokens; the last one has not been computed."""
    is_finished: bool = True
    branch: Branch | None = None
    """Where the decoding goes on."""

    @classmethod
    def judged(cls, group: Prompts, prompt: Prompt, scores: Scores, end: End) -> "Answer":
        """`scores`: of the last token of the prompt and of each of the answer: (A + 1,); without
        the last of them where nothing is decoded."""
        hits = scores.tokens[: len(prompt.answer)] == prompt.answer
        correct = int(np.cumprod(hits).sum())
        nll = scores.nll[: len(prompt.answer)].sum(dtype=np.float64)
        answer = cls(group, prompt, correct, float(nll))
        if prompt.max_new_tokens:
            answer.is_finished = False
            for token in scores.tokens[: correct + 1].tolist():
                if not answer.is_finished:
                    answer.append(token, end)
        return answer

    @property
    def computed_tokens(self) -> int:
        """Of the prompt and the new tokens, those that have been computed."""
        return len(self.prompt.ids) + len(self.ids) - 1

    def append(self, token: int, end: End) -> None:
        self.ids.append(token)
        self.is_finished = end.reached(self.prompt, self.ids)

    @property
    def reply(self) -> Reply:
        return Reply(self.correct, self.nll, tuple(self.ids))


def decode(forward: Forward, answers: Sequence[Answer], end: End, check: Check) -> None:
    """Decode the answers to their ends, a token of each at a step."""
    active = [answer for answer in answers if not answer.is_finished]
    if not active:
        return
    left = max(answer.prompt.max_new_tokens - len(answer.ids) for answer in active)
    branches = BranchCache([_branch(answer) for answer in active], left)
    with swapped_attention(forward.model, NAME, attend_branches):
        while active:
            tokens = [answer.ids[-1] for answer in active]
            scores = forward(
                passes.step(tokens, branches), slice(None), np.full(len(active), IGNORE)
            )
            branches.advance()
            for answer, token in zip(active, scores.tokens.tolist(), strict=True):
                check(answer.group, token >= 0)
                answer.append(token, end)
            rows = [row for row, answer in enumerate(active) if not answer.is_finished]
            if len(rows) < len(active) and rows:
                branches.keep(rows)
            active = [active[row] for row in rows]


def _branch(answer: Answer) -> Branch:
    assert answer.branch is not None
    return answer.branch


def decode_whole(forward: Forward, answer: Answer, end: End, check: Check) -> None:
    """Decode an answer with a pass of the whole prompt for each new token."""
    while not answer.is_finished:
        ids = np.concatenate([answer.prompt.ids, np.array(answer.ids, dtype=np.int64)])
        last = slice(len(ids) - 1, None)
        scores = forward(passes.packed([ids], forward.device), last, np.full(1, IGNORE))
        check(answer.group, scores.finite)
        answer.append(int(scores.tokens[0]), end)
