"""RULER's wording comes from the installed lm-eval, its slips put right; none of it is here."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import ruler_solver as solver
import ruler_suite

from ropewalk.eval.requests import Prompts
from ropewalk.eval.ruler import harness, wording
from ropewalk.eval.ruler.configurations import ALL
from ropewalk.eval.tasks.ruler import Ruler

ROOT = Path(__file__).parents[3]
spec = find_spec("lm_eval")
pytestmark = pytest.mark.skipif(spec is None, reason="needs pip install 'ropewalk[eval]'")


def sources() -> str:
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "tasks" / "ruler"
    return "\n".join(path.read_text() for path in sorted(folder.glob("*.py")))


def fragments(text: str) -> list[str]:
    """The fixed parts of a template, as Python source has them."""
    parts = re.split(r"\{\w+\}", text)
    return [part.encode("unicode_escape").decode() for part in parts if part.strip()]


def test_every_text_is_the_harness_own_but_for_two_slips() -> None:
    theirs, texts = sources(), harness.wording(trailing_space=True)
    for name in wording.FIELDS:
        if name == "niah_one":
            continue  # made of niah_many by RULER's replacements
        text = getattr(texts, name)
        if name == "vt_prefix":
            text = text.replace("assigned", "assgined")
        for fragment in fragments(text.strip(" ")):
            assert fragment.strip() in theirs, (name, fragment)
    assert "assgined" in theirs and "assgined" not in texts.vt_prefix
    assert "assigned" in texts.vt_prefix
    assert texts.source == f"lm-eval {harness.version('lm_eval')}"


def test_prefixes_begin_with_their_space_and_the_template_of_one_value_is_singular() -> None:
    texts = harness.wording(trailing_space=True)
    prefixes = [name for name in wording.FIELDS if name.endswith("_prefix")]
    assert all(re.match(r" \S", getattr(texts, name)) for name in prefixes)
    assert [name for name in prefixes if getattr(texts, name).endswith(" ")] == ["vt_prefix"]
    assert not harness.wording(trailing_space=False).vt_prefix.endswith(" ")
    assert "{kinds}" not in texts.niah_one and not re.search(r"\b(are|Some)\b", texts.niah_one)
    assert "{kinds}" in texts.niah_many and "{kinds}" in texts.niah_many_prefix


def test_no_text_of_rulers_prompts_is_in_the_repository() -> None:
    texts = harness.wording(trailing_space=True)
    theirs = {
        fragment
        for name in wording.FIELDS
        for fragment in re.split(r"\{\w+\}|\n|(?<=\.) ", getattr(texts, name))
        if len(fragment) > 12
    }
    assert len(theirs) > 20
    folders = ("conf", "data", "eval", "launch", "train", "tests", "docs")
    files = [
        p for f in folders for p in (ROOT / f).rglob("*") if p.suffix in (".py", ".md", ".yaml")
    ]
    for path in files:
        content = path.read_text(encoding="utf-8", errors="replace")
        assert not [fragment for fragment in theirs if fragment in content], path


def test_the_solver_finds_the_references_in_rulers_own_prompts(files: dict[str, str]) -> None:
    suite = ruler_suite.suite(
        mode="ruler", configurations=["all"], lengths=[8192], samples=2, **files
    )
    texts = harness.wording(trailing_space=True)
    assert suite.decode is not None
    names = set()
    for sample in Ruler().samples(suite):
        assert isinstance(sample.request, Prompts)
        (prompt,) = sample.request.prompts
        facts, whole = sample.facts, suite.decode(prompt.ids.tolist())
        answers = solver.solve(whole, ALL[facts["configuration"]].family, texts)
        assert answers and set(answers) <= set(facts["references"])
        assert len(answers) in (len(facts["references"]), 1)
        assert len(prompt.ids) + prompt.max_new_tokens <= 8192 and facts["protocol"] == "ruler"
        names.add(facts["configuration"])
    assert names == {*ALL}


def test_the_example_of_variable_tracking_has_new_names_in_each_sample() -> None:
    suite = ruler_suite.suite(mode="ruler", configurations=["vt"], lengths=[8192], samples=3)
    texts = harness.wording(trailing_space=True)
    assert suite.decode is not None
    examples = []
    for sample in Ruler().samples(suite):
        assert isinstance(sample.request, Prompts)
        whole = suite.decode(sample.request.prompts[0].ids.tolist())
        head = texts.vt.split("{context}")[0]
        example = head + whole.split(head)[1]
        assert whole.startswith(head) and whole.count(head) == 2
        assert whole.count(texts.noise, 0, len(example)) % 5 == 0
        value = solver.pattern(texts.vt_value)
        found = re.search(value, example)
        assert found and len(found["name"]) == 3
        examples.append(example)
    assert len(set(examples)) == 3
    shapes = {re.sub(r"\b[A-Z]{3}\b(?<!VAR)|\d{5}", "*", example) for example in examples}
    assert len(shapes) == 1  # only names and value differ
