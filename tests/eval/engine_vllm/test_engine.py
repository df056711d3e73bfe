"""Replies by vLLM's process, for which a stand-in with the names of vLLM's source decodes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import vllm_definitions
from transformers import AutoConfig

from ropewalk.conf.errors import ConfigError, DataError, RopewalkError
from ropewalk.conf.eval_vllm import VllmConfig
from ropewalk.conf.rope_methods import YarnConfig
from ropewalk.eval.engine.decoding import End
from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.engine_vllm.engine import VllmEngine, job, longest
from ropewalk.eval.engine_vllm.folder import end_tokens, model_folder
from ropewalk.eval.engine_vllm.process import started, visible
from ropewalk.eval.measure import engines
from ropewalk.eval.requests import Prompt, Prompts, Reply, Text
from ropewalk.launch.config.compose import compose
from ropewalk.train.base import Base
from ropewalk.train.rope import plan as plans

STAND_IN = Path(vllm_definitions.__file__).with_name("vllm_stand_in")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
    monkeypatch.setenv("VLLM_DEFINITIONS", str(vllm_definitions.RECORD))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    model = models.tiny_model(max_position_embeddings=256)
    model.generation_config.eos_token_id = [5, 9]
    model.save_pretrained(path)
    return path


def text_of(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids)) + " "


def prompts(seed: int = 0) -> list[Prompts]:
    rng = np.random.default_rng(seed)
    sizes = [[(40, 8), (55, 12)], [(7, 3)], [(90, 20), (91, 1), (30, 16)]]
    return [
        Prompts(
            tuple(
                Prompt(rng.integers(10, 97, size), rng.integers(10, 97, 4), max_new_tokens=new)
                for size, new in group
            )
        )
        for group in sizes
    ]


def test_replies_are_those_of_transformers_up_to_their_ends(folder: Path, stand_in: None) -> None:
    """Some end at an end token, some at a text, some at their budget; some drafts are right."""
    model = models.tiny_model(max_position_embeddings=256)
    own = End(frozenset([5, 9]), text_of)
    first = Engine(model, 400)
    first.end = own
    asked = prompts()
    drafts = [[reply.ids for reply in group] for group in first.measure(asked)]  # type: ignore[union-attr]
    groups = []
    for group, ids in zip(asked, drafts, strict=True):
        parts = []
        for prompt, new in zip(group.prompts, ids, strict=True):
            middle = new[len(new) // 2]
            until = (f"{middle} ", f"{new[0]} ") if len(new) > 6 else ()
            answer = np.array(new[: min(3, prompt.max_new_tokens)])
            answer[-1] += len(new) % 2
            parts.append(Prompt(prompt.ids, answer, 0, prompt.max_new_tokens, until))
        groups.append(Prompts(tuple(parts)))
    expected: list[Any] = first.measure(groups)
    end = End(end_tokens(folder), text_of)
    tokens = longest({str(n): group for n, group in enumerate(groups)})
    about = job(folder, VllmConfig(), end, dtype="float32", max_model_len=tokens)
    with started(None, about, None) as vllm:
        engine = VllmEngine(vllm, 2, end)
        parts = engine.batches(groups)
        assert len(parts) > 1
        replies: list[Any] = [result for part in parts for result in engine.measure(part)]
    assert [[(r.correct, r.ids) for r in group] for group in replies] == [
        [(r.correct, r.ids) for r in group] for group in expected
    ]
    every = [reply for group in replies for reply in group]
    assert all(math.isnan(reply.nll) for reply in every)
    assert len({reply.correct for reply in every}) > 1


def test_only_prompts_that_are_decoded_go_to_vllm() -> None:
    decoded, text = prompts()[0], Text(np.arange(5))
    judged = Prompts((Prompt(np.arange(5), np.arange(2)), *decoded.prompts))
    pending = {"a": text, "b": decoded, "c": judged}
    names = [
        [*part] for part in engines.parts(compose(["recipe=demo", "eval.backend=vllm"]), pending)
    ]
    assert names == [["b"], ["a", "c"]]
    assert [[*part] for part in engines.parts(compose(["recipe=demo"]), pending)] == [[*"abc"]]


def test_a_base_under_a_plan_is_a_folder_with_the_plans_config(folder: Path) -> None:
    base = Base(str(folder))
    plan = plans.make(YarnConfig(method="yarn", factor=4.0), AutoConfig.from_pretrained(folder), "")
    with model_folder(base, plan, None, "rescaled", 1024) as made:
        config = AutoConfig.from_pretrained(made)
        assert config.rope_parameters["rope_type"] == "yarn"
        assert config.rope_parameters["factor"] == 4.0
        assert config.max_position_embeddings == 1024
        assert (made / "model.safetensors").samefile(folder / "model.safetensors")
        assert end_tokens(made) == {5, 9}
    message = "vllm; it computes rescaled up to its window of 1024 tokens, and .* has 1025"
    with (
        pytest.raises(ConfigError, match=message),
        model_folder(base, plan, None, "rescaled", 1025),
    ):
        pass


def test_without_scaling_a_model_is_asked_beyond_its_window(folder: Path) -> None:
    base = Base(str(folder))
    own = plans.make(YarnConfig(method="yarn", factor=4.0), AutoConfig.from_pretrained(folder), "")
    with model_folder(base, own.unscaled, None, "base", 700) as made:
        assert AutoConfig.from_pretrained(made).max_position_embeddings == 700
    with model_folder(base, own, folder, "extended", 256) as made:
        assert made == folder


def test_a_process_that_fails_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = End(frozenset(), None)
    about = job(folder, VllmConfig(), end, dtype="float32", max_model_len=9)
    monkeypatch.setenv("PYTHONPATH", str(folder))  # no vLLM there
    message = "eval.backend is vllm; its process ended with exit code 1"
    with (
        pytest.raises(RopewalkError, match=message),
        started(None, about, None) as vllm,
    ):
        VllmEngine(vllm, 100, end).measure(prompts())
    with (
        pytest.raises(ConfigError, match="eval.vllm.python is /none; it must be the interpreter"),
        started("/none", about, None),
    ):
        pass


class Short:
    """vLLM that ends too early."""

    def generate(self, asked: Sequence[Any], max_tokens: Sequence[int]) -> list[list[int]]:
        return [[11] for _ in asked]


def test_a_reply_that_is_too_short_is_refused() -> None:
    engine = VllmEngine(Short(), 100, End(frozenset(), None))  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match="vLLM decoded 1 tokens of a prompt of 40; it must decode 8"
    ):
        engine.measure(prompts())
    (replies,) = engine.measure([Prompts((Prompt(np.arange(4), np.array([11, 3]), 0, 1),))])
    (reply,) = replies
    assert isinstance(reply, Reply) and reply.correct == 1


def test_a_rank_sees_its_own_device() -> None:
    assert visible(2, None) == "2" and visible(1, "4,6") == "6"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["eval.sp_size=2"], "eval.backend is vllm; it holds a model whole, .* eval.sp_size is 2"),
        (["eval.zero_stage=3"], "eval.backend is vllm; it holds a model whole, .*zero_stage is 3"),
        (["eval.vllm.python=/none"], "eval.vllm.python is /none; it must be the interpreter"),
        (["eval.sp_size=2", "eval.ranks_per_node=3"], "sp_size is 2; it must divide .*_node 3"),
        (
            ["eval.vllm.tensor_parallel_size=2"],
            "tensor_parallel_size is 2; one rank must have all GPUs; set eval.ranks_per_node=1",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(["recipe=demo", "eval.backend=vllm", *overrides])
