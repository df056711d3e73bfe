"""Which columns a run has, how they are computed and by which engine; windows of named models."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.eval.measure import columns, engines, named
from ropewalk.eval.requests import Prompt, Prompts, Request, Text


def config(**eval_settings: Any) -> Any:
    train = SimpleNamespace(precision="bf16", attention=SimpleNamespace(kernel="auto"))
    return SimpleNamespace(train=train, eval=SimpleNamespace(**eval_settings))


@pytest.mark.parametrize(
    ("cuda", "setting", "expected"),
    [
        (False, None, "fp32"),
        (True, None, "bf16"),
        (False, "bf16", "bf16"),
        (True, "fp32", "fp32"),
    ],
)
def test_models_are_measured_in_the_trainings_precision_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, setting: str | None, expected: str
) -> None:
    monkeypatch.setattr(columns.torch.cuda, "is_available", lambda: cuda)
    one = config(precision=setting)
    assert columns.precision(one) == expected
    assert columns.dtype(one) == (torch.bfloat16 if expected == "bf16" else torch.float32)


@pytest.mark.parametrize(
    ("scratch", "method", "labels"),
    [
        (True, "yarn", ["extended"]),
        (True, "none", ["extended"]),
        (False, "none", ["base", "extended"]),
        (False, "yarn", ["base", "rescaled", "extended"]),
    ],
)
def test_a_run_has_the_columns_that_differ(scratch: bool, method: str, labels: list[str]) -> None:
    plan: Any = SimpleNamespace(method=method)
    assert columns.run_labels(scratch, plan) == labels


def asked(new: int) -> Request:
    return Prompts((Prompt(np.arange(4), np.arange(2), max_new_tokens=new),))


def test_only_what_is_decoded_goes_to_vllm_and_first() -> None:
    pending = {"text": Text(np.arange(4)), "decoded": asked(5), "judged": asked(0)}
    both = [*engines.parts(config(backend="vllm"), pending)]
    assert [[*part] for part in both] == [["decoded"], ["text", "judged"]]
    (alone,) = engines.parts(config(backend="transformers"), pending)
    assert [*alone] == [*pending]
    (alone,) = engines.parts(config(backend="vllm"), {"decoded": asked(5)})
    assert [*alone] == ["decoded"]
    assert [*engines.parts(config(backend="vllm"), {})] == []


@pytest.mark.parametrize(("sp_size", "ranks", "good"), [(1, 1, 1), (2, 4, 1), (2, 3, 0), (4, 2, 0)])
def test_ranks_that_share_a_sequence_divide_the_ranks(
    monkeypatch: pytest.MonkeyPatch, sp_size: int, ranks: int, good: bool
) -> None:
    monkeypatch.setattr(engines, "rank_and_size", lambda: (0, ranks))
    if good:
        engines.refuse_unfit_ranks(sp_size)
        return
    message = f"eval.sp_size is {sp_size}; .*, {ranks}; set eval.ranks_per_node={sp_size}"
    with pytest.raises(ConfigError, match=message):
        engines.refuse_unfit_ranks(sp_size)


@pytest.mark.parametrize(
    ("length", "rope", "beyond", "word"),
    [
        (64, None, False, None),
        (65, None, False, "by its config; eval measures up to 65"),
        (65, "x.json", False, "by its plan; eval measures up to 65"),
        (65, None, True, None),
    ],
)
def test_a_model_is_measured_beyond_its_window_only_on_purpose(
    length: int, rope: str | None, beyond: bool, word: str | None
) -> None:
    settings = SimpleNamespace(rope=rope, beyond_window=beyond)
    plan = SimpleNamespace(max_position_embeddings=64)
    model: Any = SimpleNamespace(name="a", settings=settings, plan=plan)
    lines = list(named._window_problems(model, length))
    assert len(lines) == (word is not None)
    assert word is None or (word in lines[0] and lines[0].startswith("eval.models.a has a window"))


@pytest.mark.parametrize(
    ("run_models", "path", "revision", "name"),
    [
        (False, "x", None, "one"),
        (False, "y", "r", "two"),
        (False, "y", None, None),
        (None, "x", None, None),
        (True, "x", None, None),
    ],
)
def test_the_named_model_whose_data_a_run_has(
    run_models: bool | None, path: str, revision: str | None, name: str | None
) -> None:
    def model(path: str, revision: str | None) -> Any:
        return SimpleNamespace(path=path, revision=revision, gguf_file=None)

    models = {"one": model("x", None), "two": model("y", "r")}
    one: Any = config(run_models=run_models, models=models)
    one.model = model(path, revision)
    assert named.of_data(one) == name


def test_frequencies_agree_to_a_millionth() -> None:
    assert named._equal([1.0, 0.5], [1.0 + 9e-7, 0.5])
    assert not named._equal([1.0, 0.5], [1.0 + 2e-6, 0.5])
    assert not named._equal([1e-9], [2e-9]) and not named._equal([1.0], [1.0, 1.0])
