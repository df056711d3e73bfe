"""Programs of a rank in test_score.py and test_dealing.py: what several ranks measure together."""

from typing import Any

import numpy as np
import torch
from models import VOCAB, tiny_config

from ropewalk.conf.rope_methods import YarnConfig
from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.measure import forward
from ropewalk.eval.measure.dealing import deal
from ropewalk.eval.requests import Prompt, Prompts, Request, Text
from ropewalk.train.base import Base
from ropewalk.train.model import build
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.zero import inference
from ropewalk.train.zero.engine import cast_weights

LENGTH, BATCH_TOKENS = 40, 90


def requests(windows: int) -> list[Request]:
    """Texts, prompts of other lengths, one of them longer than a batch, and prompts to decode."""
    rng = np.random.default_rng(0)
    texts = [Text(rng.integers(0, VOCAB, LENGTH)) for _ in range(windows)]
    groups = [[9, 20, 31, 100, 12], [40], [41, 42]]
    judged = [Prompts(tuple(_prompt(rng, n) for n in group)) for group in groups]
    decoded = [Prompts((_prompt(rng, n, new=n // 4),)) for n in (12, 30, 21, 50)]
    return [*texts, *judged, *decoded]


def _prompt(rng: np.random.Generator, length: int, new: int = 0) -> Prompt:
    answer = rng.integers(0, VOCAB, 2)
    return Prompt(rng.integers(0, VOCAB, length), answer, max_new_tokens=new)


def measured(folder: str, windows: int, partitioned: bool, dtype: torch.dtype) -> Any:
    """Every result as lists, with the number of passes that this rank did."""
    plan = rope_plan.make(YarnConfig(method="yarn", factor=2.0), tiny_config(), "in the test")
    zero3 = inference.inference_config(dtype) if partitioned else None
    model: Any = build.build(Base(folder), plan, dtype=dtype, deepspeed_config=zero3)
    body = None
    if partitioned:
        assert all(p.numel() == 0 for p in model.parameters())
        body = inference.partitioned_body(model)
        build.prove_in_engine(model, plan, "in its engine")
    else:
        cast_weights(model, dtype)
    passes = []
    model.base_model.register_forward_hook(lambda *_: passes.append(1))
    engine = Engine(model, BATCH_TOKENS, body, chunk_tokens=LENGTH)
    asked = forward.unique(requests(windows))
    by_name: dict[str, Any] = {}
    for part in forward.passes(engine, asked.values(), asked):
        by_name |= part
    results = [by_name[name] for name in asked]
    if body is not None:
        inference.release(body)
        assert not sum(p.ds_tensor.numel() for p in model.parameters())
    losses = np.concatenate([part for part in results if isinstance(part, np.ndarray)])
    replies = [reply for part in results if isinstance(part, tuple) for reply in part]
    nll = np.concatenate([losses, [reply.nll for reply in replies]])
    correct = [reply.correct for reply in replies]
    ids = [reply.ids for reply in replies]
    return {"nll": nll, "correct": correct, "ids": ids, "passes": len(passes)}


def dealt(count: int, in_step: bool, sp_size: int = 1) -> tuple[list[int], list[int]]:
    """The squares of the numbers below `count`, and the numbers that this rank did."""
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return number**2

    parts = deal(range(count), work, in_step=in_step, sp_size=sp_size)
    return [n for part in parts for n in part], done
