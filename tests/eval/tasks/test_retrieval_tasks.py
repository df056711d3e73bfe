"""Retrieval tasks on results by hand: models that always, never, or by depth give the answer."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import byte_codec
import numpy as np
import pytest
from scipy import stats

from ropewalk.conf.errors import DataError
from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.eval_retrieval import KeyValueEvalConfig, MultiDocumentConfig, NeedleConfig
from ropewalk.data.dataset import BoundaryTokens
from ropewalk.eval.measure.inputs import Inputs, refuse_nothing
from ropewalk.eval.requests import Prompt, Prompts, Reply
from ropewalk.eval.tasks import retrieval
from ropewalk.eval.tasks.effective_length import EffectiveLengthTask
from ropewalk.eval.tasks.json_kv import JsonKeyValue
from ropewalk.eval.tasks.lost_in_middle import LostInMiddle
from ropewalk.eval.tasks.multi_document_qa import MultiDocumentQa
from ropewalk.eval.tasks.needle import Needle
from ropewalk.eval.tasks.task import EvalSuite, Measured, Sample, Task

FILLERS = [np.arange(1000, 9000), np.arange(20000, 26000), np.arange(40000, 40050)]
MARKS = BoundaryTokens(300, 301)
Says = Callable[[Sample, int], bool]
TASKS: list[Task] = [JsonKeyValue(), Needle(), MultiDocumentQa()]


def suite(marks: BoundaryTokens = MARKS, **settings: Any) -> EvalSuite:
    config = EvalConfig(
        tasks=["json_kv"],
        json_kv=KeyValueEvalConfig(haystacks=24, digits=5),
        needle=NeedleConfig(haystacks=6, single_haystacks=3),
        multi_document_qa=MultiDocumentConfig(haystacks=4),
    )
    for key, value in settings.items():
        setattr(config, key, value)
    codec = (byte_codec.encode, byte_codec.decode)
    return EvalSuite(config, 1024, 4096, [], FILLERS, codec[0], 0, marks, codec[1])


@pytest.fixture(scope="module")
def shared() -> EvalSuite:
    return suite()


def prompts(sample: Sample) -> Sequence[Prompt]:
    assert isinstance(sample.request, Prompts)
    return sample.request.prompts


def measured(task: Task, suite: EvalSuite, says: Says, base: Says | None = None) -> Measured:
    """`says`: whether a model gives the answer to a sample's question of a number."""
    samples = task.samples(suite)

    def results(model: Says) -> list[tuple[Reply, ...]]:
        return [
            tuple(
                Reply(len(p.answer) if model(sample, k) else len(p.answer) - 1, 1.0)
                for k, p in enumerate(prompts(sample))
            )
            for sample in samples
        ]

    return Measured(suite, samples, results(says), None if base is None else results(base))


def rows(task: Task, suite: EvalSuite, says: Says, base: Says | None = None) -> list[Any]:
    made: list[Any] = task.rows(measured(task, suite, says, base))
    json.dumps(made)
    return made


def always(sample: Sample, number: int) -> bool:
    return True


def never(sample: Sample, number: int) -> bool:
    return False


def read(text: str) -> str:
    """A reader of the prompt alone: the JSON object, the pass keys, or the biographies."""
    if 'Key: "' in text:
        pairs: dict[str, str] = json.loads(text[text.index("{") : text.index("}") + 1])
        return pairs[text.rsplit('Key: "', 1)[1].split('"')[0]]
    if "pass key of the" in text:
        found = dict(re.findall(r"pass key of the (\w+) is (\d+)\.", text))
        return " " + found[text.rsplit("of the ", 1)[1].split()[0]]
    name, *_ = re.findall(r"\w+ \w\. \w+", text.rsplit("Question:", 1)[1])
    words = ("born in", "studied", "works as a", "plays the")
    verb = next(word for word in words if text.endswith(word))
    match = re.search(rf"{re.escape(name)}[^.]*?{verb} (\w+)|{re.escape(name)} {verb} (\w+)", text)
    return " " + next(filter(None, match.groups())) if match else ""


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_reader_of_the_decoded_prompt_gives_the_references(task: Task, shared: EvalSuite) -> None:
    for sample in task.samples(shared):
        for prompt in prompts(sample):
            answer = byte_codec.decode(prompt.answer)
            ids = prompt.ids[prompt.ids != 300]
            if sample.facts.get("documents") == "closed book":
                assert read(byte_codec.decode(ids)) == ""
            else:
                assert read(byte_codec.decode(ids)) == answer
            assert prompt.ids[0] == 300 and (prompt.ids == 300).sum() == 1
            assert prompt.tokens <= sample.facts["length"] - 1  # an end token would fit
            assert prompt.max_new_tokens == 0


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize(("says", "accuracy"), [(always, 1.0), (never, 0.0)])
def test_a_model_that_always_or_never_answers(
    task: Task, shared: EvalSuite, says: Says, accuracy: float
) -> None:
    made = rows(task, shared, says)
    assert {row["accuracy"] for row in made if row["n"]} == {accuracy}
    for row in made:
        assert row["unit"] == "haystack" and row["protocol"] and row["length"] >= 1024
        if row.get("haystack") == "held-out text":
            assert row["haystack_hash"] == shared.haystack_hash  # as results.json has it
        if row["n"]:
            assert (row["high"] == pytest.approx(1)) is bool(accuracy)
            assert 0 <= row["low"] < row["high"] <= 1


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_questions_of_one_haystack_share_its_context(task: Task, shared: EvalSuite) -> None:
    for sample in task.samples(shared):
        first, *others = prompts(sample)
        if sample.facts.get("needles") == 1:
            continue
        for prompt in others:
            assert prompt.context == first.context > 0
            assert np.array_equal(prompt.ids[: prompt.context], first.ids[: first.context])
        longest = max(len(prompt.ids) - prompt.context for prompt in prompts(sample))
        assert longest < 120


def test_single_needles_share_most_from_the_deepest_to_the_first(shared: EvalSuite) -> None:
    singles = [s for s in Needle().samples(shared) if s.facts["needles"] == 1]
    assert len(singles) == 3 and {s.facts["length"] for s in singles} == {4096}
    for sample in singles:
        assert sample.facts["depths"] == [1.0, 0.5, 0.0]
        one, two, three = (prompt.ids for prompt in prompts(sample))
        assert len(one) == len(two) == len(three)
        equal = [int(np.argmin(a == b)) for a, b in ((one, two), (two, three))]
        assert equal[0] == pytest.approx(len(one) / 2, rel=0.05) and equal[1] == 1


def by_place(sample: Sample, number: int) -> bool:
    """Right at depths up to 0.2 and from 0.8 on; in every fourth haystack at all depths."""
    depth = sample.facts["depths"][number]
    return depth < 0.2 or depth > 0.8 or sample.id.endswith(("0", "4", "8"))


def test_the_curve_by_depth_is_that_of_the_model(shared: EvalSuite) -> None:
    expected = {d: 1.0 for d in (0.05, 0.15, 0.85, 0.95)}
    made = rows(JsonKeyValue(), shared, by_place)
    counted = [n for n in range(24) if str(n)[-1] in "048"]
    for length in (1024, 2048, 4096):
        cells = {r["depth"]: r for r in made if r["length"] == length and "depth" in r}
        assert [*cells] == pytest.approx(np.arange(0.05, 1, 0.1))
        for depth, cell in cells.items():
            hits = 24 * expected.get(round(depth, 2), len(counted) / 24)
            assert cell["n"] == 24 and cell["accuracy"] == pytest.approx(hits / 24)
            interval = stats.binomtest(round(hits), 24).proportion_ci(method="wilson")
            assert (cell["low"], cell["high"]) == pytest.approx(tuple(interval), abs=1e-6)
        (mean,) = [r for r in made if r["length"] == length and "depth" not in r]
        assert mean["n"] == 240 and mean["haystacks"] == 24
        assert mean["accuracy"] == pytest.approx(0.4 + 0.6 * len(counted) / 24)
        low, high = stats.binomtest(round(mean["accuracy"] * 240), 240).proportion_ci()
        assert mean["high"] - mean["low"] > 1.4 * (high - low)  # answers of one haystack agree


def test_primacy_recency_and_the_worst_depth(shared: EvalSuite) -> None:
    shared.config.tasks = ["json_kv", "lost_in_middle"]
    share = sum(str(n)[-1] in "048" for n in range(24)) / 24
    made = rows(LostInMiddle(), shared, by_place)
    assert {row["length"] for row in made} == {1024, 2048, 4096}
    for length in (1024, 2048, 4096):
        of = {r["measure"]: r for r in made if r["length"] == length}
        assert of["first fifth"]["value"] == of["last fifth"]["value"] == 1
        assert of["middle fifth"]["value"] == pytest.approx(share)
        for name in ("primacy", "recency"):
            row = of[name]
            assert row["value"] == pytest.approx(1 - share) and row["n"] == 24
            assert 0 < row["low"] < row["value"] < row["high"] < 1
        assert of["worst"]["value"] == pytest.approx(share) and of["worst"]["depth"] == 0.25
        assert 0.2 < of["worst"]["depth_low"] <= of["worst"]["depth_high"] < 0.8
        assert sum(r["measure"] == "curve" and r["length"] == length for r in made) == 10


def test_a_fall_to_the_end_is_no_primacy_of_the_middle(shared: EvalSuite) -> None:
    """LongChat's published curve rises to the end: its recency is large, its primacy none."""
    curve = (37.0, 37.0, 38.2, 38.2, 35.4, 35.4, 65.6, 65.6, 88.6, 88.6)
    rng = np.random.default_rng(0)
    draws = {s.id: rng.uniform(0, 100, 10) for s in JsonKeyValue().samples(shared)}
    made = rows(LostInMiddle(), shared, lambda s, k: bool(draws[s.id][k] < curve[k]))
    for length in (1024, 2048, 4096):
        of = {r["measure"]: r for r in made if r["length"] == length}
        assert of["recency"]["low"] > 0 and of["recency"]["low"] < 0.532 < of["recency"]["high"]
        assert of["primacy"]["low"] < 0.016 < of["primacy"]["high"]


def test_the_difference_to_the_base_is_paired_by_haystack(shared: EvalSuite) -> None:
    made = rows(JsonKeyValue(), shared, always, by_place)
    means = [row for row in made if "depth" not in row]
    share = 0.6 * (1 - sum(str(n)[-1] in "048" for n in range(24)) / 24)
    for row in means:
        assert row["difference"] == pytest.approx(share)
        assert 0 < row["difference_low"] < share < row["difference_high"]


def test_no_difference_to_the_base_is_not_certain_of_few_haystacks(shared: EvalSuite) -> None:
    for says in (always, never):
        for row in rows(JsonKeyValue(), shared, says, says):
            if "depth" not in row:
                assert row["difference"] == 0
                assert row["difference_low"] < -0.03 and row["difference_high"] > 0.03


def up_to(length: int, share: float = 1.0) -> Says:
    """Right up to a length; beyond it in a share of the haystacks."""

    def says(sample: Sample, number: int) -> bool:
        return bool(sample.facts["length"] <= length or int(sample.id[-3:]) < 24 * share)

    return says


@pytest.mark.parametrize(
    ("says", "value", "text"),
    [
        (up_to(2048, 0.5), 2048, "2K, 95% 2K-2K"),
        (up_to(1024, 0.0), 1024, "1K, 95% 1K-1K"),
        (up_to(2048, 0.9), 4096, "4K, 95% 2K-4K"),
        (always, 4096, "4K, 95% 4K-4K"),
    ],
)
def test_the_effective_length_by_the_own_score(
    shared: EvalSuite, says: Says, value: int, text: str
) -> None:
    (row,) = rows(EffectiveLengthTask(), shared, says)
    assert (row["value"], row["text"]) == (value, text)
    assert row["source"] == "json_kv" and row["n"] == 24 and row["unit"] == "haystack"


def test_a_low_score_at_the_base_window_is_not_measurable(shared: EvalSuite) -> None:
    (row,) = rows(EffectiveLengthTask(), shared, lambda s, k: k == 0)
    assert row["value"] is None and row["low"] is None and row["base_score"] == pytest.approx(0.1)
    assert row["reason"] == (
        "not measurable: the score at the base window of 1,024 tokens is 10%, below 20%"
    )


def test_a_length_without_room_is_a_row_with_the_reason() -> None:
    short = suite(json_kv=KeyValueEvalConfig(lengths=[200, 4096], haystacks=2))
    made = rows(JsonKeyValue(), short, always)
    assert made[0]["length"] == 200 and made[0]["accuracy"] is None and made[0]["n"] == 0
    assert "it must hold 2 shots and 4 records" in made[0]["reason"]
    (row,) = rows(EffectiveLengthTask(), short, always)
    assert row["value"] is None and "no score at the base window of 1,024" in row["reason"]


def test_held_out_text_that_is_too_short_is_refused() -> None:
    with pytest.raises(DataError, match=r"eval.needle.lengths is \[100000\]; held-out text has 14"):
        Needle().samples(suite(needle=NeedleConfig(lengths=[100_000])))


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("needle", {"needle": NeedleConfig(lengths=[100_000])}, "eval.needle.lengths is"),
        ("json_kv", {"json_kv": KeyValueEvalConfig(digits=2)}, "eval.json_kv.digits is 2"),
        ("effective_length", {"json_kv": KeyValueEvalConfig(digits=2)}, "digits is 2"),
    ],
)
def test_what_cannot_be_asked_is_told_before_the_training(
    task: str, settings: dict[str, Any], words: str
) -> None:
    tried = suite(tasks=["passkey"], **settings)
    retrieval.try_samples(tried)
    tried.config.tasks = [task]
    with pytest.raises(DataError, match=words):
        retrieval.try_samples(tried)


@pytest.mark.parametrize(
    ("asked", "built"),
    [
        (["json_kv", "needle", "multi_document_qa"], {*retrieval.TASKS}),
        (["lost_in_middle"], {"json_kv"}),
        (["effective_length", "needle"], {"json_kv", "needle"}),
        (["passkey"], set()),
    ],
)
def test_one_haystack_of_each_length_is_tried(
    monkeypatch: pytest.MonkeyPatch, asked: list[str], built: set[str]
) -> None:
    """Of the multi-document task one of each way to be asked."""
    ids: dict[str, list[str]] = {}

    def recorded(name: str, build: Any) -> Any:
        return lambda suite: ids.update({name: [s.id for s in build(suite).samples]})

    for name, build in [*retrieval.TASKS.items()]:
        monkeypatch.setitem(retrieval.TASKS, name, recorded(name, build))
    retrieval.try_samples(suite(tasks=asked))
    assert ids.keys() == built
    for name in built - {"multi_document_qa"}:
        assert len(ids[name]) == len({1024, 2048, 4096}), ids[name]
    assert not any("001" in one.split("/") for part in ids.values() for one in part)


def test_an_answer_that_does_not_decode_to_itself_is_refused() -> None:
    deaf = suite()
    object.__setattr__(deaf, "decode", lambda ids: byte_codec.decode(ids).replace("3", ""))
    with pytest.raises(DataError, match=r"json_kv: the tokens of the answer '\d+' decode to '\d+'"):
        JsonKeyValue().samples(deaf)


def test_decoded_replies_count_by_their_new_tokens_alone() -> None:
    """A reply that repeats the question or the key has no value in its new tokens."""
    settings = KeyValueEvalConfig(haystacks=2, digits=5, max_new_tokens=20)
    decoding = suite(json_kv=settings)
    samples = JsonKeyValue().samples(decoding)

    def reply(text: str) -> Reply:
        return Reply(0, 1.0, tuple(byte_codec.encode(text).tolist()))

    told = [tuple(reply(f"it is {v}.") for v in sample.facts["values"]) for sample in samples]
    echoed = [
        tuple(reply(byte_codec.decode(p.ids[p.context :])) for p in prompts(sample))
        for sample in samples
    ]
    for results, accuracy in ((told, 1.0), (echoed, 0.0)):
        made = JsonKeyValue().rows(Measured(decoding, samples, results))
        assert {row["accuracy"] for row in made} == {accuracy}
    for sample in samples:
        for prompt in prompts(sample):
            assert prompt.max_new_tokens == 20 and prompt.tokens <= sample.facts["length"]


def test_a_curve_that_no_length_can_hold_says_why() -> None:
    tiny = replace(suite(tasks=["json_kv", "lost_in_middle"]), length=64, base_window=64)
    assert not LostInMiddle().samples(tiny)
    (row,) = LostInMiddle().rows(Measured(tiny, [], []))
    assert (row["source"], row["length"], row["value"], row["n"]) == ("json_kv", 64, None, 0)
    assert row["reason"] == JsonKeyValue().rows(Measured(tiny, [], []))[0]["reason"]
    assert LostInMiddle().reading({"a": [row]}, 64) in (None, "")
    LostInMiddle().figure({"a": [row]}, 64)


def test_an_evaluation_without_a_question_is_refused() -> None:
    tiny = replace(suite(tasks=["json_kv"]), length=64, base_window=64)
    asked = {"json_kv": JsonKeyValue().samples(tiny)}
    with pytest.raises(DataError, match=r"^eval\.tasks is json_kv; one must have .* 64; .*; raise"):
        refuse_nothing(Inputs(tiny, asked, ""))
    large = suite(tasks=["json_kv"])
    refuse_nothing(Inputs(large, {"json_kv": JsonKeyValue().samples(large)}, ""))


def test_figures_and_readings_of_rows(shared: EvalSuite) -> None:
    shared.config.tasks = ["json_kv", "multi_document_qa"]
    for task in (*TASKS, LostInMiddle(), EffectiveLengthTask()):
        made = {"base": rows(task, shared, never), "extended": rows(task, shared, by_place)}
        figure = task.figure(made, 1024)
        assert task.name == "effective_length" or (figure and "<" in figure)
        reading = task.reading(made, 1024)
        assert reading and "extended" in reading and reading.endswith(".")
        assert task.figure({}, None) is None and task.reading({}, None) is None
