"""The engine: which documents share a pass, and which are computed in calls with a cache."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from ropewalk.conf.log import log
from ropewalk.data.dataset import IGNORE
from ropewalk.eval.engine import calls, passes, whole
from ropewalk.eval.engine.branches import Branch
from ropewalk.eval.engine.cache import AppendCache
from ropewalk.eval.engine.calls import PromptCalls
from ropewalk.eval.engine.decoding import (
    Answer,
    End,
    TextOf,
    decode,
    decode_whole,
)
from ropewalk.eval.engine.finite import refuse_not_finite
from ropewalk.eval.engine.forward import Forward
from ropewalk.eval.engine.passes import Scores
from ropewalk.eval.requests import Prompt, Prompts, Request, Result, Text
from ropewalk.train.model.build import evaluating

CHUNK_TOKENS = 2048


class Engine:
    """One model that answers requests, a batch a call.

    `body`: the model without its head, where its weights are partitioned over the ranks.
    `chunk_tokens`: of a call with a cache. `share` False computes every prompt from its start, in
    the same calls, for proofs. `text_of`: the text of new tokens, for prompts that end at a text.
    `label` of the model, and `names` of requests by their digests: for messages.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batch_tokens: int,
        body: nn.Module | None = None,
        *,
        chunk_tokens: int = CHUNK_TOKENS,
        share: bool = True,
        text_of: TextOf | None = None,
        label: str = "the model",
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.model, self.batch_tokens, self.body = model, batch_tokens, body
        self.chunk_tokens, self.share, self.label = chunk_tokens, share, label
        self.forward, self.end = Forward(model, body), End.of(model, text_of)
        self.check = partial(refuse_not_finite, label, names or {})

    def batches(self, requests: Sequence[Request]) -> list[Sequence[Request]]:
        """The requests in their order, in parts that `measure` computes at once."""
        tokens = [calls.computed_tokens(request, self.chunk_tokens) for request in requests]
        return [requests[part] for part in calls.batches(tokens, self.batch_tokens)]

    def measure(self, requests: Sequence[Request]) -> list[Result]:
        """The result of each request. Collective where the weights are partitioned.

        Raises: NotFinite.
        """
        with evaluating(self.model), self.forward.in_step():
            packed = [n for n, request in enumerate(requests) if self._is_packed(request)]
            results = dict(zip(packed, self._packed([requests[n] for n in packed]), strict=True))
            answers: dict[int, list[Answer]] = {}
            for n, request in enumerate(requests):
                if n in results:
                    continue
                if isinstance(request, Text):
                    results[n] = self._text(request)
                else:
                    answers[n] = self._group(request)
            self._decode([answer for group in answers.values() for answer in group])
        results |= {n: tuple(answer.reply for answer in group) for n, group in answers.items()}
        return [results[n] for n in range(len(requests))]

    def _is_packed(self, request: Request) -> bool:
        return not self._whole_because and calls.is_packed(request, self.chunk_tokens)

    @cached_property
    def _whole_because(self) -> str:
        reason = whole.why_whole(self.model)
        if reason:
            self._say_whole(reason)
        return reason

    @cached_property
    def is_whole(self) -> bool:
        """Whether documents that are not packed are computed in one pass, each alone."""
        if self._whole_because:
            return True
        differ = whole.cached_calls_differ(self.forward) > 1
        if differ:
            self._say_whole("calls with a cache do not give what one pass gives")
        return differ

    def _say_whole(self, reason: str) -> None:
        log.info(f"eval: {self.label} computes long texts and prompts whole, no cache: {reason}")

    def _packed(self, requests: Sequence[Request]) -> Iterator[Result]:
        """Results of requests whose documents are laid end to end."""
        items = [(r, doc) for r in requests for doc in calls.documents(r)]
        scores = self.forward.documents([doc for _, doc in items], self.batch_tokens)
        for (request, _), part_scores in zip(items, scores, strict=True):
            self.check(request, part_scores.finite)
        of_document = iter(scores)
        for request in requests:
            if isinstance(request, Text):
                yield next(of_document).nll
            else:
                pairs = [(prompt, next(of_document)) for prompt in request.prompts]
                yield tuple(Answer.judged(request, *pair, self.end).reply for pair in pairs)

    def _text(self, text: Text) -> Result:
        """Losses of a long text, in calls with a cache."""
        if self.is_whole:
            whole.forget_longest_call(self.model)
            scores = self.forward.documents([calls.document(text)], self.batch_tokens)
        else:
            scores = list(self._text_calls(text))
        for part in scores:
            self.check(text, part.finite)
        return np.concatenate([part.nll for part in scores])

    def _text_calls(self, text: Text) -> Iterator[Scores]:
        cache = self._cache(text.tokens)
        start = 0
        for end in calls.text_ends(text, self.chunk_tokens):
            first, last = max(text.first - 1, start), min(end, text.tokens - 1)
            rows = slice(first - start, max(first, last) - start)
            inputs = passes.chunk(text.ids[start:end], start, cache, self.forward.device)
            yield self.forward(inputs, rows, text.ids[first + 1 : last + 1])
            start = end

    def _group(self, group: Prompts) -> list[Answer]:
        """The answers to the prompts of a group; the decoding of some has not ended."""
        if self.is_whole:
            return [self._whole(group, prompt) for prompt in group.prompts]
        order, plans = calls.ordered_calls(group, self.chunk_tokens)
        cache = self._cache(max(len(plan.document.ids) for plan in plans))
        answers: list[Answer] = []
        parts = list(calls.runs(plans))
        for part in parts:
            run = plans[part]
            before = [plans[part.start - 1] if part.start else None, *run]
            answers += [self._answer(group, run, n, before[n], cache) for n in range(len(run))]
            if len(parts) > 1:  # the next run overwrites the cache
                self._decode(answers[part])
        return [answers[order.index(n)] for n in range(len(order))]

    def _answer(
        self,
        group: Prompts,
        run: Sequence[PromptCalls],
        number: int,
        before: PromptCalls | None,
        cache: AppendCache,
    ) -> Answer:
        """The answer to a prompt of a run, judged. `before`: whose calls the cache has."""
        plan = run[number]
        scores = self._prompt_calls(plan, plan.shared_with(before) if self.share else 0, cache)
        self.check(group, scores.finite)
        answer = Answer.judged(group, plan.prompt, scores, self.end)
        if not answer.is_finished:
            trunk = plan.prompt.context if len(run) > 1 else answer.computed_tokens
            answer.branch = Branch.of(cache, trunk, answer.computed_tokens)
        return answer

    def _prompt_calls(self, plan: PromptCalls, start: int, cache: AppendCache) -> Scores:
        """The calls from `start` on; the scores of the answer."""
        cache.rollback(start)
        document = plan.document
        for end in [end for end in plan.ends if end > start]:
            inputs = passes.chunk(document.ids[start:end], start, cache, self.forward.device)
            rows, labels = slice(0, 0), document.labels[:0]
            if end == plan.ends[-1]:
                rows = slice(document.first - 1 - start, None)
                labels = np.append(document.labels, IGNORE)
            scores = self.forward(inputs, rows, labels)
            start = end
        return scores

    def _whole(self, group: Prompts, prompt: Prompt) -> Answer:
        document = calls.document(prompt)
        inputs = passes.packed([document.ids], self.forward.device)
        labels = np.append(document.labels, IGNORE)
        whole.forget_longest_call(self.model)
        scores = self.forward(inputs, slice(document.first - 1, None), labels)
        self.check(group, scores.finite)
        answer = Answer.judged(group, prompt, scores, self.end)
        decode_whole(self.forward, answer, self.end, self.check)
        return answer

    def _decode(self, answers: Sequence[Answer]) -> None:
        decode(self.forward, answers, self.end, self.check)

    def _cache(self, room: int) -> AppendCache:
        return AppendCache(whole.number_of_layers(self.model.config), room)
