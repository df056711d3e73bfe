"""Needles in held-out text: pass keys of several names in one text (multi-key), every one asked on
one prefill; and single needles as a check of a few cells.
"""

from collections.abc import Sequence

import numpy as np

from ropewalk.data.random_streams import Purpose, generator
from ropewalk.data.retrieval import needles, random_names, random_span
from ropewalk.eval.report.figures.heatmap import heat_maps
from ropewalk.eval.report.figures.style import Drawing
from ropewalk.eval.requests import Prompts
from ropewalk.eval.tasks import haystacks
from ropewalk.eval.tasks.haystacks import Built, Row
from ropewalk.eval.tasks.json_kv import mean_reading
from ropewalk.eval.tasks.task import EvalSuite, Measured, ModelRows, Rows, Sample

SINGLE = 1


class Needle(haystacks.HaystackTask):
    """No verdict: a pass key found is the least that a model can do."""

    name = "needle"
    title = "Needles, multi-key"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """A sample for each text, with all its questions. Raises: DataError without enough text."""
        return built(suite).samples

    def rows(self, measured: Measured) -> Rows:
        """By needles and length: a row for each depth, then one of all depths."""
        suite, rows = measured.suite, list[Row]()
        own = {"unit": "haystack", "haystack": "held-out text", "seed": suite.seed}
        own["haystack_hash"] = suite.haystack_hash
        for length, reason in built(suite).reasons.items():
            count = suite.config.needle.needles
            facts = {"needles": count, "protocol": protocol(count), **own}
            rows.append(haystacks.not_measurable(length, reason, **facts))
        cells = {(s.facts["needles"], s.facts["length"]) for s in measured.samples}
        for count, length in sorted(cells, key=lambda cell: (-cell[0], cell[1])):
            part = measured.select(needles=count, length=length)
            facts = {**haystacks.prompt_facts(part.samples), "protocol": protocol(count), **own}
            answers = [*haystacks.answers(part)]
            shares = [*haystacks.by_depth(answers), haystacks.over_depths(answers, suite.seed)]
            rows += [{"needles": count, "length": length, **row, **facts} for row in shares]
        return rows

    def figure(self, rows: ModelRows, window: int | None) -> Drawing | None:
        """The multi-key rows: single needles are too few for a map."""
        return heat_maps(_multi_key(rows), "share of pass keys found, each among several names")

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        return mean_reading(_multi_key(rows), window, "the pass keys found over all depths are")


def lengths(suite: EvalSuite) -> list[int]:
    return sorted(suite.config.needle.lengths or suite.contexts)


def protocol(count: int) -> str:
    kind = "single needle" if count == SINGLE else f"multi-key, {count} needles of different names"
    return f"{kind}; greedy answer, every token"


def built(suite: EvalSuite) -> Built:
    """Made once for a suite. Raises: DataError."""
    return suite.once("needle", lambda: _build(suite))


def _build(suite: EvalSuite) -> Built:
    settings, longest = suite.config.needle, max(lengths(suite))
    suite.refuse_short_filler("eval.needle.lengths", lengths(suite))
    multi = haystacks.build(lengths(suite), settings.haystacks, lambda *at: [_multi(suite, *at)])
    if longest in multi.reasons:
        return multi
    singles = [_single(suite, longest, number) for number in range(settings.single_haystacks)]
    return Built([*multi.samples, *singles], multi.reasons)


def _multi(suite: EvalSuite, length: int, number: int) -> Sample:
    count = suite.config.needle.needles
    depths = np.linspace(0, 1, count).round(4).tolist()
    rng = generator(Purpose.EVAL_NEEDLE, suite.seed, (length << 20) + number)
    filler = random_span(suite.filler(length, number), length, rng)
    names, keys = random_names(count, rng)
    room = haystacks.room(suite, length)
    haystack = needles(suite.encode, filler, room, depths, names, keys)
    facts = {"length": length, "needles": count}
    return haystacks.sample(suite, f"needle/multi/{length}/{number:03}", haystack, facts)


def _single(suite: EvalSuite, length: int, number: int) -> Sample:
    """One text and needle at each depth. The deepest is first: each next prompt has as many tokens
    in common with the one before as lie before its needle."""
    depths = sorted(suite.config.needle.single_depths, reverse=True)
    index = (1 << 60) + (length << 20) + number
    rng = generator(Purpose.EVAL_NEEDLE, suite.seed, index)
    filler = random_span(suite.filler(length, number), length, rng)
    names, keys = random_names(SINGLE, rng)
    room = haystacks.room(suite, length)
    name = f"needle/single/{length}/{number:03}"
    parts = [
        haystacks.sample(
            suite, name, needles(suite.encode, filler, room, [depth], names, keys), {}, context=0
        )
        for depth in depths
    ]
    prompts = [
        prompt
        for part in parts
        if isinstance(part.request, Prompts)
        for prompt in part.request.prompts
    ]
    joined = {key: [part.facts[key][0] for part in parts] for key in ("depths", "values")}
    facts = {"length": length, "needles": SINGLE, "pairs": SINGLE, "fill": parts[0].facts["fill"]}
    return Sample(name, name, Prompts(tuple(prompts)), {**facts, **joined})


def _multi_key(rows: ModelRows) -> ModelRows:
    return {name: [r for r in part if r["needles"] != SINGLE] for name, part in rows.items()}
