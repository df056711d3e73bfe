"""Programs of a rank in test_score.py and test_dealing.py: what several ranks measure together."""

from typing import Any

import numpy as np
import torch
from models import VOCAB, tiny_config

from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.rope_methods import YarnConfig
from ropewalk.data.dataset import Window
from ropewalk.data.retrieval import Passkey
from ropewalk.eval.measure.dealing import deal
from ropewalk.eval.measure.score import ModelScorer
from ropewalk.eval.tasks.task import EvalSuite
from ropewalk.train.base import Base
from ropewalk.train.model import build
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.zero import inference
from ropewalk.train.zero.engine import cast_weights

LENGTH, BATCH_TOKENS = 40, 90


def suite(windows: int) -> EvalSuite:
    rng = np.random.default_rng(0)
    texts = [Window(str(n), rng.integers(0, VOCAB, LENGTH)) for n in range(windows)]
    config = EvalConfig(batch_tokens=BATCH_TOKENS)
    return EvalSuite(config, 16, LENGTH, texts, [], lambda text: np.empty(0, np.int64), seed=0)


def groups() -> list[list[Passkey]]:
    """Of other lengths, one of them longer than a batch, one empty."""
    rng = np.random.default_rng(1)
    lengths = [[9, 20, 31, 100, 12], [], [40, 41, 42]]
    return [[Passkey(rng.integers(0, VOCAB, n), 1) for n in group] for group in lengths]


def measured(folder: str, windows: int, partitioned: bool, dtype: torch.dtype) -> Any:
    """Losses (N, S-1) and correct answers, with the number of passes that this rank did."""
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
    scorer = ModelScorer(model, suite(windows), "tiny", body)
    nll, correct = scorer.full_nll, scorer.greedy_correct(groups(), "passkey")
    if body is not None:
        inference.release(body)
        assert not sum(p.ds_tensor.numel() for p in model.parameters())
    return {"nll": nll, "correct": correct, "passes": len(passes)}


def dealt(count: int, in_step: bool) -> tuple[list[int], list[int]]:
    """The squares of the numbers below `count`, and the numbers that this rank did."""
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return number**2

    return deal(range(count), work, lambda share: share, in_step=in_step), done
