"""A solver that reads nothing but a prompt finds the stored references, and prompts are full."""

import heapq
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
import ruler_solver as solver
import ruler_suite
from scipy import stats

from ropewalk.data.dataset import BoundaryTokens
from ropewalk.eval.requests import Prompt, Prompts
from ropewalk.eval.ruler.configurations import ALL
from ropewalk.eval.ruler.frequency import nested_counts
from ropewalk.eval.ruler.inputs import read
from ropewalk.eval.ruler.wording import Wording
from ropewalk.eval.tasks.ruler import Ruler
from ropewalk.eval.tasks.task import EvalSuite, Sample

MODES = ("ruler_exact", "ruler")
ORDERED = ("vt", "fwe")  # the others are compared as sets


def prompt(sample: Sample) -> Prompt:
    assert isinstance(sample.request, Prompts)
    (only,) = sample.request.prompts
    return only


def text(suite: EvalSuite, sample: Sample) -> str:
    assert suite.decode is not None
    return suite.decode(prompt(sample).ids.tolist())


def wording(suite: EvalSuite) -> Wording:
    return read(suite.config.ruler, [], list).wording


def samples(suite: EvalSuite) -> Sequence[Sample]:
    return Ruler().samples(suite)


@pytest.fixture(scope="module")
def settings(files: dict[str, str], wording_file: str) -> dict[str, dict[str, Any]]:
    """By mode."""
    return {"ruler_exact": files, "ruler": {**files, "wording": wording_file}}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("mode", MODES)
def test_the_solver_finds_the_references_of_every_configuration(
    settings: dict[str, Any], mode: str, seed: int
) -> None:
    suite = ruler_suite.suite(
        seed=seed, mode=mode, configurations=["all"], lengths=[1500, 5000], samples=3,
        **settings[mode],
    )  # fmt: skip
    made = samples(suite)
    for sample in made:
        facts = sample.facts
        family = ALL[facts["configuration"]].family
        answers = solver.solve(text(suite, sample), family, wording(suite))
        if family == "qa":
            assert answers and answers[0] in facts["references"]
        else:
            expected = facts["references"]
            assert len(answers) == len(expected) == len(set(expected)), sample.id
            key = list if family in ORDERED else set
            assert key(answers) == key(expected), sample.id  # type: ignore[operator]
    assert {s.facts["configuration"] for s in made} == {*ALL}
    assert len({s.id for s in made}) == len(made)
    assert len({s.facts["prompt_hash"] for s in made}) == len(made)


def units(context: str, family: str, haystack: str) -> list[str]:
    """What a prompt grows by, with its border."""
    if family == "qa":
        return [f"\n\n{part}" for part in context.split("\n\n")]
    if haystack == "needles":
        return [f"\n{line}" for line in context.split("\n")]
    if haystack == "noise":
        return [f"\n{part}." for line in context.split("\n") for part in line.split(".")]
    if family == "cwe":
        return re.findall(r" \d+\. .+?(?= \d+\. |$)", f" {context}")
    return [f" {word}" for word in context.split(" ")]


@pytest.mark.parametrize("begin", [None, 0])
def test_exact_prompts_are_full_to_within_one_unit(files: dict[str, str], begin: int) -> None:
    suite = ruler_suite.suite(
        marks=BoundaryTokens(begin), configurations=["all"], lengths=[1500, 5000], samples=2,
        **files,
    )  # fmt: skip
    for sample in samples(suite):
        configuration, length = ALL[sample.facts["configuration"]], sample.facts["length"]
        ids, budget = prompt(sample).ids, prompt(sample).max_new_tokens
        assert begin is None or ids[0] == begin
        assert sample.facts["fill"] == len(ids) + budget <= length
        context = text(suite, sample)
        parts = units(context, configuration.family, configuration.haystack)
        largest = max(len(suite.encode(part)) for part in parts)
        if configuration.family == "qa":
            documents = [*read(suite.config.ruler, [configuration], list).questions.values()]
            largest = max(len(suite.encode(d)) for d in documents[0].documents) + 8
        assert length - len(ids) - budget <= largest, (sample.id, largest)


def test_a_reply_has_rulers_budget_and_ends_early_only_when_no_score_can_change(
    files: dict[str, str],
) -> None:
    suite = ruler_suite.suite(configurations=["all"], lengths=[6000], samples=1, **files)
    budgets = {s.facts["configuration"]: prompt(s).max_new_tokens for s in samples(suite)}
    assert {budgets[name] for name in ALL if name.startswith("niah")} == {128}
    others = {"vt": 30, "cwe": 120, "fwe": 50, "qa_1": 32, "qa_2": 32}
    assert {name: budgets[name] for name in others} == others
    for sample in samples(suite):
        references = tuple(sample.facts["references"])
        assert prompt(sample).until == (
            () if sample.facts["configuration"] == "qa_1" else references
        )


def test_the_answers_place_sweeps_the_haystack(files: dict[str, str]) -> None:
    """Depths of 60 samples in six bins, by the chi-square test; values have all first digits."""
    suite = ruler_suite.suite(
        configurations=["niah_single_1", "niah_single_2", "niah_multikey_2", "niah_multiquery"],
        lengths=[1500], samples=60, **files,
    )  # fmt: skip
    made = samples(suite)
    for name in ("niah_single_1", "niah_single_2", "niah_multikey_2", "niah_multiquery"):
        depths = np.concatenate(
            [s.facts["depths"] for s in made if s.facts["configuration"] == name]
        )
        counts, _ = np.histogram(depths, 6, (0, 1))
        assert stats.chisquare(counts).pvalue > 0.01, (name, counts)
    digits = [int(r[0]) for s in made for r in s.facts["references"]]
    assert stats.chisquare(np.bincount(digits, minlength=10)[1:]).pvalue > 1e-3


def test_a_higher_number_of_samples_keeps_the_first_ones(files: dict[str, str]) -> None:
    few, many = (
        samples(ruler_suite.suite(configurations=["progress"], lengths=[1500], samples=n, **files))
        for n in (2, 5)
    )
    known = {s.id: s.facts["prompt_hash"] for s in many}
    assert (
        all(known[s.id] == s.facts["prompt_hash"] for s in few) and len(known) == 5 * len(few) / 2
    )


def test_common_words_stand_elsewhere_in_each_exact_list_and_at_the_same_places_in_rulers(
    settings: dict[str, Any],
) -> None:
    for mode in MODES:
        suite = ruler_suite.suite(
            mode=mode, configurations=["cwe"], lengths=[6000], samples=4, **settings[mode]
        )
        places: dict[int, set[tuple[int, ...]]] = {}
        for sample in samples(suite):
            answers = set(sample.facts["references"])
            template, prefix = wording(suite).cwe, wording(suite).cwe_prefix
            context, _ = solver.read(text(suite, sample), template, prefix)
            items = re.findall(r"\d+\. (.+?)(?= \d+\. |$)", context)
            common = tuple(n for n, word in enumerate(items) if word in answers)
            places.setdefault(len(items), set()).add(common)
        orders = [len(group) for group in places.values()]
        assert sum(orders) == 4 if mode == "ruler_exact" else orders == [1] * len(orders), mode


@pytest.mark.parametrize(
    ("count", "depth"), [(25, 0.92), (50, 0.39), (100, 0.71), (200, 0.28), (400, 0.59), (800, 0.78)]
)
def test_rulers_shuffle_has_gold_at_one_place_for_each_number_of_documents(
    count: int, depth: float
) -> None:
    """The depths that were found in RULER's code (finding 5 of the research)."""
    from ropewalk.eval.ruler.draft import Draw

    for number in (0, 7):
        order = Draw(False, 4096, 0, 0, number).order(range(count))
        assert round(order.index(0) / (count - 1), 2) == depth


def test_gold_documents_are_swept_in_exact_mode(settings: dict[str, Any]) -> None:
    depths = {}
    for mode in MODES:
        suite = ruler_suite.suite(
            mode=mode, configurations=["qa_1"], lengths=[6000], samples=24, **settings[mode]
        )
        depths[mode] = [d for s in samples(suite) for d in s.facts["depths"]]
    counts, _ = np.histogram(depths["ruler_exact"], 4, (0, 1))
    assert stats.chisquare(counts).pvalue > 0.01
    # the few samples with fewer documents have another place
    middle = np.median(depths["ruler"])
    assert sum(abs(depth - middle) < 0.05 for depth in depths["ruler"]) > 12


def test_rulers_sizes_go_in_steps(settings: dict[str, Any]) -> None:
    """Lines in steps of 25 (below 4096 of 5), as counted in the prompts."""
    for length, step in ((4096, 25), (2048, 5)):
        suite = ruler_suite.suite(
            mode="ruler", configurations=["niah_single_1", "niah_multikey_2"], lengths=[length],
            samples=3, **settings["ruler"],
        )  # fmt: skip
        for sample in samples(suite):
            line = "It rains" if sample.facts["configuration"] == "niah_single_1" else "A remark"
            lines = text(suite, sample).count(line) - (line == "A remark")
            assert lines % step == 0 and lines > 0


def test_solved_examples_stand_before_the_question(files: dict[str, str]) -> None:
    suite = ruler_suite.suite(configurations=["all"], lengths=[8000], samples=1, shots=2, **files)
    for sample in samples(suite):
        whole = text(suite, sample)
        family = ALL[sample.facts["configuration"]].family
        prefix = {"qa": "Answer:", "niah": "The code "}.get(family, "Answer: The ")
        assert whole.count(prefix) >= 3 and sample.facts["shots"] == 2
        answers = solver.solve(whole, family, wording(suite))
        assert set(answers) <= set(sample.facts["references"]), sample.id


def test_chat_form_puts_the_question_in_the_template_and_the_answers_beginning_after_it(
    files: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("chat")
    for file in ruler_suite.DEMO.glob("tokenizer*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    template = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    (folder / "chat_template.jinja").write_text(template + "{{ '<assistant>' }}")
    from dataclasses import replace

    from ropewalk.data import tokenizer as tokenizers

    base = ruler_suite.suite(
        form="chat", configurations=["all"], lengths=[6000], samples=2, **files
    )
    suite = replace(base, chat=tokenizers.chat_encoder(tokenizers.load(str(folder))))
    for sample in samples(suite):
        whole = text(suite, sample)
        family = ALL[sample.facts["configuration"]].family
        question, prefix = whole.split("</><assistant>")
        assert whole.startswith("<user>") and prefix.startswith(" ")
        answers = solver.solve(question.removeprefix("<user>") + prefix, family, wording(suite))
        assert set(answers) <= set(sample.facts["references"]) and answers
        assert sample.facts["fill"] <= 6000 and sample.facts["form"] == "chat"


@pytest.mark.parametrize("vocabulary", [5, 40, 2600])
def test_counts_of_frequent_words_grow_by_one_use_and_keep_their_ranks(vocabulary: int) -> None:
    """The oracle merges the times of all uses by a heap."""
    uses = heapq.merge(
        *([(k * r * r, r) for k in range(1, 2000)] for r in range(1, vocabulary + 1))
    )
    expected = [0] * vocabulary
    for size, (_, rank) in enumerate(islice(uses, 600), 1):
        expected[rank - 1] += 1
        counts = nested_counts(size, vocabulary).tolist()
        assert counts == expected
        if size >= 73:
            assert counts[1] > counts[2] > counts[3] > counts[4] == max(counts[4:])
