"""Scores as RULER counts them, and rows of made-up replies: perfect, empty, permuted, short."""

import ast
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ruler_suite
from scipy import stats

from ropewalk.eval.requests import Prompts, Reply, Result
from ropewalk.eval.ruler import scoring
from ropewalk.eval.ruler.configurations import ALL
from ropewalk.eval.tasks.ruler import Ruler, score_of
from ropewalk.eval.tasks.task import EvalSuite, Measured, Sample

REPLIES = [
    "", " 7 ", "One, two and THREE.", "one\x00two\n\tthree", "  three, two, one", "no", "I know",
    "a\u00e9", "fourteen", "1. one 2. two",
]  # fmt: skip
REFERENCES = [["one"], ["one", "two", "three"], ["no"], ["7"], ["a\u00c9", "four"], ["x", "y"]]


def harness() -> dict[str, Any]:
    """lm-eval's pure functions, by name, without the package's imports."""
    spec = find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs pip install 'ropewalk[eval]'")
    path = Path(spec.submodule_search_locations[0]) / "tasks" / "ruler" / "common_utils.py"
    names = ("postprocess_pred", "string_match_all", "string_match_part")
    functions = [n for n in ast.parse(path.read_text()).body if getattr(n, "name", "") in names]
    scope: dict[str, Any] = {"re": __import__("re")}
    exec(compile(ast.Module(functions, []), str(path), "exec"), scope)
    return scope


def test_the_score_of_all_references_is_the_harness_one() -> None:
    theirs = harness()
    for reply in REPLIES:
        for references in REFERENCES:
            cleaned = theirs["postprocess_pred"]([reply])
            expected = theirs["string_match_all"](cleaned, [references])
            assert scoring.score(reply, references, every=True) == pytest.approx(expected)


def test_the_score_of_any_reference_is_rulers_and_not_the_harness_share() -> None:
    """RULER's is the largest over the references; lm-eval divides by their number."""
    theirs = harness()
    for reply in REPLIES:
        cleaned = theirs["postprocess_pred"]([reply])
        for references in REFERENCES:
            each = [theirs["string_match_part"](cleaned, [[one]]) for one in references]
            assert scoring.score(reply, references, every=False) == max(each)
    assert scoring.score("a four", ["five", "four"], every=False) == 1


@pytest.fixture(scope="module")
def suite(files: dict[str, str]) -> EvalSuite:
    return ruler_suite.suite(
        window=1500, configurations=["all"], lengths=[5000], samples=12, **files
    )


@pytest.fixture(scope="module")
def samples(suite: EvalSuite) -> Sequence[Sample]:
    return Ruler().samples(suite)


def measured(
    suite: EvalSuite,
    samples: Sequence[Sample],
    reply: Callable[[Sample], str],
    base: Callable[[Sample], str] | None = None,
) -> Measured:
    def results(text: Callable[[Sample], str]) -> list[Result]:
        return [(Reply(0, 0.0, tuple(suite.encode(text(s)).tolist())),) for s in samples]

    return Measured(suite, samples, results(reply), None if base is None else results(base))


def right(sample: Sample) -> str:
    return " " + ", ".join(sample.facts["references"])


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["configuration"]: row for row in rows}


def test_perfect_replies_score_one_and_empty_ones_zero(
    suite: EvalSuite, samples: Sequence[Sample]
) -> None:
    perfect = by_name(Ruler().rows(measured(suite, samples, right)))
    empty = by_name(Ruler().rows(measured(suite, samples, lambda _: "")))
    assert [*perfect] == [*ALL, "mean"]
    for name in perfect:
        assert perfect[name]["accuracy"] == 1 and perfect[name]["high"] == pytest.approx(1)
        assert empty[name]["accuracy"] == 0 and empty[name]["low"] == pytest.approx(0)
        n = 12 * (13 if name == "mean" else 1)
        assert perfect[name]["n"] == n
        low = stats.binomtest(n, n).proportion_ci(method="wilson").low
        assert perfect[name]["low"] == pytest.approx(low, abs=1e-6)
    assert perfect["mean"]["data"] == "ruler, 13 configurations, 12 samples"


def test_permuted_replies_score_what_the_rows_give_as_chance(
    suite: EvalSuite, samples: Sequence[Sample]
) -> None:
    """Each reply is the next sample's references: chance says what that is worth, near zero."""
    following = {}
    for name in ALL:
        part = [s for s in samples if s.facts["configuration"] == name]
        following |= {a.id: b for a, b in zip(part, [*part[1:], part[0]], strict=True)}
    perfect = by_name(Ruler().rows(measured(suite, samples, right)))
    shifted = by_name(Ruler().rows(measured(suite, samples, lambda s: right(following[s.id]))))
    for name in ALL:
        part = [s for s in samples if s.facts["configuration"] == name]
        pairs = [score_of(a, right(b)) for a in part for b in part if a is not b]
        assert perfect[name]["chance"] == pytest.approx(np.mean(pairs))
        assert perfect[name]["chance"] <= 0.02 and shifted[name]["accuracy"] <= 0.1, name


def test_a_partial_reply_scores_the_share_and_the_mean_weighs_configurations_equally(
    suite: EvalSuite, samples: Sequence[Sample]
) -> None:
    rows = by_name(Ruler().rows(measured(suite, samples, lambda s: s.facts["references"][0])))
    shares = {"niah_multivalue": 1 / 4, "niah_multiquery": 1 / 4, "vt": 1 / 5, "cwe": 1 / 10}
    expected = {name: shares.get(name, 1 / 3 if name == "fwe" else 1.0) for name in ALL}
    for name, share in expected.items():
        assert rows[name]["accuracy"] == pytest.approx(share), name
    assert rows["mean"]["accuracy"] == pytest.approx(np.mean([*expected.values()]))


def test_the_means_interval_resamples_questions_within_configurations(
    suite: EvalSuite, samples: Sequence[Sample]
) -> None:
    """Against a plain bootstrap in a loop, where configurations differ far more than questions;
    and the base is paired question by question."""
    rng = np.random.Generator(np.random.PCG64(3))
    shares = dict(zip(ALL, np.linspace(0.05, 0.95, len(ALL)), strict=True))
    lucky = {s.id: bool(rng.random() < shares[s.facts["configuration"]]) for s in samples}
    also = {s.id: bool(rng.random() < 0.3) and lucky[s.id] for s in samples}
    row = by_name(
        Ruler().rows(
            measured(
                suite, samples,
                lambda s: right(s) if lucky[s.id] else "", lambda s: right(s) if also[s.id] else "",
            )
        )
    )["mean"]  # fmt: skip
    hits = np.array([[lucky[s.id] for s in samples if s.facts["configuration"] == c] for c in ALL])
    base = np.array([[also[s.id] for s in samples if s.facts["configuration"] == c] for c in ALL])
    means, changes = [], []
    for _ in range(4000):
        chosen = rng.integers(12, size=(13, 12))
        means.append(np.take_along_axis(hits, chosen, 1).mean())
        changes.append(np.take_along_axis(hits.astype(int) - base, chosen, 1).mean())
    assert row["accuracy"] == pytest.approx(hits.mean())
    assert row["difference"] == pytest.approx((hits.astype(int) - base).mean())
    for keys, draws in ((("low", "high"), means), (("difference_low", "difference_high"), changes)):
        expected = np.quantile(draws, [0.025, 0.975])
        assert [row[key] for key in keys] == pytest.approx(expected, abs=0.012)


def test_only_new_tokens_are_read() -> None:
    """A reply without the answer scores zero though the prompt has it."""
    suite = ruler_suite.suite(configurations=["niah_single_1"], lengths=[1500], samples=1)
    (sample,) = Ruler().samples(suite)
    assert isinstance(sample.request, Prompts)
    whole = sample.request.prompts[0].ids.tolist()
    assert suite.decode is not None and sample.facts["references"][0] in suite.decode(whole)
    (row,) = Ruler().rows(measured(suite, [sample], lambda _: " I do not know"))
    assert row["accuracy"] == 0 and row["chance"] is None
