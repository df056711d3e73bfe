"""JSON key-value retrieval: one object of random pairs, asked at every depth on one prefill."""

from collections.abc import Sequence
from functools import partial

from ropewalk.data.random_streams import Purpose, generator
from ropewalk.data.retrieval import key_value
from ropewalk.eval.report.figures.heatmap import heat_maps
from ropewalk.eval.report.figures.style import Drawing
from ropewalk.eval.report.sentences import list_by_model, sentence
from ropewalk.eval.tasks import haystacks
from ropewalk.eval.tasks.haystacks import Built, Row
from ropewalk.eval.tasks.task import EvalSuite, Measured, ModelRows, Rows, Sample


class JsonKeyValue(haystacks.HaystackTask):
    """No verdict: the effective length judges the same answers."""

    name = "json_kv"
    title = "JSON key-value retrieval"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """A sample for each object, with all its questions. Raises: DataError."""
        return built(suite).samples

    def rows(self, measured: Measured) -> Rows:
        """By length: a row for each depth, then one of all depths (without `depth`)."""
        suite, rows = measured.suite, list[Row]()
        settings = suite.config.json_kv
        own = {"unit": "haystack", "protocol": protocol(suite), "shots": settings.shots}
        own["seed"] = suite.seed
        reasons = built(suite).reasons
        for length in lengths(suite):
            if length in reasons:
                rows.append(haystacks.not_measurable(length, reasons[length], **own))
                continue
            part = measured.select(length=length)
            facts = {**haystacks.prompt_facts(part.samples), **own}
            facts["chance"] = round(1 / facts["pairs"], 4)
            answers = [*haystacks.answers(part)]
            cells = [*haystacks.by_depth(answers), haystacks.over_depths(answers, suite.seed)]
            rows += [{"length": length, **cell, **facts} for cell in cells]
        return rows

    def figure(self, rows: ModelRows, window: int | None) -> Drawing | None:
        return heat_maps(rows, "share of values found, one scale for all")

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        return mean_reading(rows, window, "the share of values found over all depths is")


def lengths(suite: EvalSuite) -> list[int]:
    return sorted(suite.config.json_kv.lengths or suite.contexts)


def protocol(suite: EvalSuite) -> str:
    settings = suite.config.json_kv
    texts = "uuid" if settings.digits is None else f"{settings.digits}-digit"
    judged = (
        "greedy answer, every token"
        if not settings.max_new_tokens
        else (f"value in {settings.max_new_tokens} new tokens")
    )
    return f"JSON key-value, {texts} keys and values, {settings.shots} shots; {judged}"


def built(suite: EvalSuite) -> Built:
    """Made once for a suite. Raises: DataError."""
    return suite.once("json_kv", lambda: _build(suite))


def _build(suite: EvalSuite) -> Built:
    settings = suite.config.json_kv

    def make(length: int, number: int) -> list[Sample]:
        rng = generator(Purpose.EVAL_KEY_VALUE, suite.seed, (length << 20) + number)
        room = haystacks.room(suite, length, settings.max_new_tokens)
        haystack = key_value(
            suite.encode,
            room,
            rng,
            positions=settings.positions,
            shots=settings.shots,
            digits=settings.digits,
        )
        name, facts = f"json_kv/{length}/{number:03}", {"length": length}
        new = settings.max_new_tokens
        return [haystacks.sample(suite, name, haystack, facts, max_new_tokens=new)]

    return haystacks.build(lengths(suite), settings.haystacks, make)


def mean_reading(rows: ModelRows, window: int | None, words: str) -> str | None:
    """The rows of all depths, at the longest length and at the base's window."""
    means = {name: [row for row in part if "depth" not in row] for name, part in rows.items()}
    measured = {r["length"] for part in means.values() for r in part if r.get("n")}
    clauses = []
    for length in sorted(measured, reverse=True):
        if length in (max(measured), window):
            text = list_by_model(means, partial(_share_text, length))
            clauses.append(f"at {length:,} tokens {words} {text}")
    return sentence(clauses)


def _share_text(length: int, means: Sequence[Row]) -> str | None:
    measured = [r for r in means if r["length"] == length and r.get("accuracy") is not None]
    if not measured:
        return None
    low, high = measured[0].get("low"), measured[0].get("high")
    interval = "" if low is None or high is None else f", {low:.0%} to {high:.0%}"
    return f"{measured[0]['accuracy']:.0%}{interval}"
