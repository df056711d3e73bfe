"""The samples of a configuration at a length: prompts that fit, with what is known of each."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.eval.requests import Prompt, Prompts
from ropewalk.eval.ruler import build, fitting
from ropewalk.eval.ruler.configurations import ALL, Configuration
from ropewalk.eval.ruler.draft import Body, CannotFit, Draft, Draw
from ropewalk.eval.ruler.inputs import Inputs
from ropewalk.eval.tasks.task import EvalSuite, Sample

NAMES = tuple(ALL)


@dataclass(frozen=True)
class Cell:
    """A configuration at a length."""

    suite: EvalSuite
    inputs: Inputs
    configuration: Configuration
    length: int

    def samples(self, count: int) -> list[Sample]:
        """The first `count` samples. Raises: CannotFit; DataError for a tokenizer that loses
        an answer."""
        size = None if self.inputs.exact else self._first_size()
        return [self._sample(number, size) for number in range(count)]

    @property
    def lacks_data(self) -> bool:
        needed = self.configuration.data
        return bool(needed) and needed not in self.inputs.questions

    @property
    def protocol(self) -> dict[str, Any]:
        """All that two accuracies must share to be comparable."""
        settings, configuration = self.inputs.settings, self.configuration
        words, words_hash = self.inputs.words_of(configuration)
        haystack, haystack_hash = self.inputs.haystack_of(configuration)
        return {
            "protocol": self.inputs.protocol,
            "data": f"ruler, {configuration.name}, {settings.samples} samples",
            "form": settings.form,
            "wording": self.inputs.wording.id,
            "words": words,
            "words_hash": words_hash,
            "haystack": haystack,
            "haystack_hash": haystack_hash,
            "shots": build.shots(configuration, settings.shots),
            "budget": configuration.budget,
            "score": "all" if configuration.every else "any",
        }

    @property
    def room(self) -> int:
        """Tokens of the prompt. RULER leaves out the one that begins a document."""
        begin = 0 if self.inputs.exact else self._before
        return self.length - self.configuration.budget + begin

    @property
    def _before(self) -> int:
        base = self.inputs.settings.form == "base"
        return self.suite.boundary_tokens.before if base else 0

    def draft(self, number: int) -> Draft:
        cell = (NAMES.index(self.configuration.name) << 32) + self.length
        draw = Draw(self.inputs.exact, self.length, self.suite.seed, cell, number)
        return build.draft(
            self.configuration, self.inputs, draw, lambda text: len(self.suite.encode(text))
        )

    def ids(self, body: Body) -> np.ndarray:
        """The prompt as token ids, in the form that is set. Raises: ConfigError, DataError."""
        if self.inputs.settings.form == "chat":
            assert self.suite.chat is not None
            return self.suite.chat(body.message, body.prefix)
        ids = self.suite.encode(body.message + body.prefix)
        begin = self.suite.boundary_tokens.begin
        return ids if begin is None else np.concatenate([[begin], ids])

    def _first_size(self) -> int:
        """RULER's: found with one sample, in steps."""
        asked, step = self.draft(0), build.step(self.configuration, self.length)
        return fitting.in_steps(self._tokens(asked), self.room, asked.least, asked.most, step)

    def _tokens(self, asked: Draft) -> Callable[[int], int]:
        return lambda size: len(self.ids(asked.body(size)))

    def _sample(self, number: int, size: int | None) -> Sample:
        asked = self.draft(number)
        self._refuse_lost(asked.references)
        body, ids = self._full(asked) if size is None else self._shrunk(asked, size)
        # the reference is no part of the prompt: the engine takes it for a guess of the reply
        answer = self.suite.encode(
            asked.answer if body.prefix.endswith(" ") else f" {asked.answer}"
        )
        name = f"ruler/{self.configuration.name}/{self.length}/{number:03}"
        every = self.configuration.every
        # one reference of several ends no reply: a prompt's `until` names texts that all must come
        until = asked.references if every or len(asked.references) == 1 else ()
        prompt = Prompt(ids, answer, max_new_tokens=self.configuration.budget, until=until)
        facts = {
            "configuration": self.configuration.name,
            "length": self.length,
            "fill": len(ids) + self.configuration.budget,
            "depths": [round(depth, 4) for depth in body.depths],
            "references": list(asked.references),
            "prompt_hash": hashlib.sha256((body.message + body.prefix).encode()).hexdigest()[:16],
            **self.protocol,
        }
        return Sample(name, name, Prompts((prompt,)), facts)

    def _full(self, asked: Draft) -> tuple[Body, np.ndarray]:
        """The prompt within one unit of the length. Raises: CannotFit."""
        last: dict[int, tuple[Body, np.ndarray]] = {}

        def tokens(size: int) -> int:
            body = asked.body(size)
            ids = self.ids(body)
            if len(ids) <= self.room:
                last.clear()
                last[size] = body, ids
            return len(ids)

        size = fitting.largest(tokens, self.room, asked.least, asked.most)
        body, ids = last[size]
        if size == asked.most and self.room - len(ids) > len(ids) / size:
            raise CannotFit(
                f"its haystack is used up after {len(ids):,} tokens of {self.room:,}; name a "
                "longer one"
            )
        return body, ids

    def _shrunk(self, asked: Draft, size: int) -> tuple[Body, np.ndarray]:
        """By RULER's steps until the prompt fits. Raises: CannotFit."""
        step = build.step(self.configuration, self.length)
        for smaller in (*range(size, asked.least, -step), asked.least):
            body = asked.body(smaller)
            if len(ids := self.ids(body)) <= self.room:
                return body, ids
        raise CannotFit(f"its smallest prompt has {len(ids):,} tokens, of {self.room:,}")

    def _refuse_lost(self, references: Sequence[str]) -> None:
        """Raises: DataError for a reference that the tokenizer does not give back."""
        assert self.suite.decode is not None
        for reference in references:
            back = self.suite.decode(self.suite.encode(f" {reference}").tolist())
            if reference.lower() not in back.lower():
                raise DataError(
                    f"eval.ruler: the tokenizer encodes the answer {reference!r} and decodes it as "
                    f"{back.strip()!r}; a reply must be able to hold it; leave "
                    f"{self.configuration.name} out, or use a tokenizer that keeps text"
                )
