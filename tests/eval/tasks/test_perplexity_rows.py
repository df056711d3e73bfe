"""Perplexity of a window's first tokens with bits per byte, and what is said without documents."""

import math
from types import SimpleNamespace
from typing import Any

import language_suites
import numpy as np
import pytest
import torch
from language_suites import DEMO, token_losses
from transformers import AutoModelForCausalLM

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.eval_language import PiCompatConfig
from ropewalk.conf.rules import problems
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import BoundaryTokens, Window
from ropewalk.eval import preflight
from ropewalk.eval.tasks.perplexity_by_length import PerplexityByLength
from ropewalk.eval.tasks.pi_compat import PiCompat
from ropewalk.eval.tasks.sliding import SlidingPerplexity
from ropewalk.eval.tasks.task import EvalSuite, Task
from ropewalk.eval.tasks.texts import bits_per_byte, target_bytes
from ropewalk.eval.tasks.yarn_compat import YarnCompat


@pytest.fixture(scope="module")
def demo() -> Any:
    return AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32).eval()


def in_bytes(suite: EvalSuite) -> EvalSuite:
    object.__setattr__(suite, "count_bytes", tokenizers.byte_counter(tokenizers.load(str(DEMO))))
    return suite


def test_bits_per_byte_are_the_losses_over_the_texts_bytes(demo: Any) -> None:
    """The oracle counts the bytes of the text that the package tokenizers decodes."""
    texts = language_suites.documents(DEMO, [128, 128])
    suite = in_bytes(language_suites.suite(texts, 128, 64))
    rows = language_suites.rows(PerplexityByLength(), suite, {"base": demo})["base"]
    decode = tokenizers.load(str(DEMO)).backend.decode
    for row, length in zip(rows, (64, 128), strict=True):
        losses = [token_losses(demo, text.ids[:length]) for text in texts]
        sizes = [len(decode(text.ids[1:length].tolist()).encode()) for text in texts]
        bits = sum(map(sum, losses)) / math.log(2) / sum(sizes)
        assert row["bits_per_byte"] == pytest.approx(bits, rel=1e-4)
        assert row["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
        assert (row["length"], row["n"], row["unit"]) == (length, 2, "document")


def test_the_new_tokens_of_a_documents_windows_are_its_text(demo: Any) -> None:
    (text,) = language_suites.documents(DEMO, [300])
    suite = in_bytes(language_suites.suite([text], 128, 64))
    suite.config.sliding.max_tokens = 256
    (row, _) = language_suites.rows(SlidingPerplexity(), suite, {"base": demo})["base"]
    size = len(tokenizers.load(str(DEMO)).backend.decode(text.ids[1:256].tolist()).encode())
    bits = row["nll"] * row["tokens"] / math.log(2) / size
    assert row["bits_per_byte"] == pytest.approx(bits, rel=1e-9) and row["tokens"] == 255


def test_an_end_token_has_no_bytes_and_an_unknown_text_gives_no_bits() -> None:
    suite = language_suites.suite([], 8, 8, marks=BoundaryTokens(None, 9))
    object.__setattr__(suite, "count_bytes", lambda ids: np.full(len(ids), 2))
    ends = target_bytes(suite, np.array([1, 2, 9]))
    assert ends is not None and ends.tolist() == [2, 2, 0]
    assert bits_per_byte([np.array([math.log(2)] * 3)], [ends]) == pytest.approx(3 / 4)
    assert bits_per_byte([np.ones(2), np.ones(2)], [ends, None]) is None


@pytest.mark.parametrize("task", [SlidingPerplexity(), YarnCompat(), PiCompat()])
def test_without_a_long_document_the_rows_say_why(task: Task) -> None:
    suite = language_suites.suite([Window("a", np.arange(20))], 128, 64)
    assert not task.samples(suite)
    rows = language_suites.rows(task, suite, {"base": None, "extended": None})["base"]
    for row in rows:
        assert row["perplexity"] is None and row["n"] == 0 and row["protocol"]
        assert "tokens (the longest has 20); add longer documents" in row["reason"]
    assert len(rows) == (4 if task.name == "yarn_compat" else 2)


def test_windows_beyond_the_longest_context_are_told_before_the_training() -> None:
    config = EvalConfig(tasks=["sliding", "yarn_compat", "longppl"])
    config.sliding.windows = config.pi_compat.windows = config.yarn_compat.lengths = [64, 256]
    config.longppl.evaluator = "base"
    plan: Any = SimpleNamespace(base_window=64)
    lines = preflight.task_problems(config, plan, 128)
    assert [line.split(" ")[0] for line in lines] == [
        "eval.sliding.windows",
        "eval.yarn_compat.lengths",
        "eval.longppl.evaluator",
    ]
    assert lines[0] == (
        "eval.sliding.windows has 256; it must be at most the longest context that eval measures, "
        "128; lower it, or raise eval.length"
    )
    assert not preflight.task_problems(config, plan, 64)[2:]


@pytest.mark.parametrize(
    ("length", "run_models", "refused"),
    [(128, True, False), (129, True, True), (129, None, True), (129, False, False)],
)
def test_a_run_is_not_measured_beyond_its_plan(
    length: int, run_models: bool | None, refused: bool
) -> None:
    config: Any = SimpleNamespace(
        eval=EvalConfig(tasks=["perplexity"], length=length, run_models=run_models)
    )
    plan: Any = SimpleNamespace(base_window=64, max_position_embeddings=128)
    lines = preflight.length_problems(config, plan)
    rule = f"eval.length is {length}; it must be at most what the rope plan is made for, 128; "
    assert [line.startswith(rule) for line in lines] == [True] * refused


@pytest.mark.parametrize("bos", [None, 1])
def test_a_stride_that_skips_tokens_is_refused(bos: int | None) -> None:
    texts = [Window("a", np.arange(200))]
    suite = language_suites.suite(texts, 128, 64, bos=bos)
    suite.config.pi_compat.stride = 63
    assert PiCompat().samples(suite)
    suite.config.pi_compat.stride = 64 if bos is not None else 65
    with pytest.raises(ConfigError, match=r"eval\.pi_compat\.stride is 6.; it must be below"):
        PiCompat().samples(suite)
    set_both = PiCompatConfig(windows=[64, 128], stride=64)
    (line,) = problems(set_both, "eval.pi_compat.")
    assert line.startswith("eval.pi_compat.stride is 64; it must be below the shortest of")
