"""Programs of a rank in tests/eval/engine_sp: requests answered by several ranks together."""

from collections.abc import Sequence
from typing import Any

import engine_models
import numpy as np
import torch
import torch.distributed as dist
from models import tiny_config

from ropewalk.conf.rope_methods import YarnConfig
from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.engine.finite import NotFinite
from ropewalk.eval.engine_sp.engine import SequenceParallelEngine
from ropewalk.eval.measure import forward
from ropewalk.eval.requests import Prompt, Prompts, Request, Text, digest
from ropewalk.train.base import Base
from ropewalk.train.model import build
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.zero import inference
from ropewalk.train.zero.mesh import Mesh

BATCH_TOKENS = 400


def ids(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 97, length)


def requests(drafts: Sequence[np.ndarray] | None = None) -> list[Request]:
    """Texts, two questions after each of two contexts, and a prompt alone, of odd lengths."""
    prompts = []
    for number, length in enumerate((70, 45)):
        context = ids(length, 50 + number)
        for n, size in enumerate((5, 9)):
            text = np.concatenate([context, ids(size, 10 * number + n + 1)])
            prompts.append((text, length))
    prompts.append((ids(31, 99), 0))
    drafts = drafts or [ids(4, n) for n in range(len(prompts))]
    asked = [
        Prompt(text, draft, context=context, max_new_tokens=10)
        for (text, context), draft in zip(prompts, drafts, strict=True)
    ]
    groups = [Prompts(tuple(asked[:4])), Prompts(tuple(asked[4:]))]
    return [Text(ids(61, 3)), groups[0], Text(ids(83, 4), first=40), groups[1]]


def answered(name: str, sp_size: int, asked: list[Request], changes: dict[str, Any]) -> Any:
    """The results of every batch, on this rank, with the tokens of its passes."""
    model = engine_models.measured(name, changes=changes)
    tokens: list[int] = []
    model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    mesh = Mesh(dist.get_rank(), dist.get_world_size(), sp_size)
    engine = SequenceParallelEngine(model, mesh, BATCH_TOKENS, kernel="sdpa")
    results = [result for part in engine.batches(asked) for result in engine.measure(part)]
    return results, max(tokens)


def broken_step(step: int) -> tuple[str, int]:
    """The error of an engine whose logits are NaN in a decode step, and the steps it made."""
    model = engine_models.measured("llama")
    steps = engine_models.break_step(model, step, row=0)
    asked = Prompts((Prompt(ids(31, 99), ids(2, 1), max_new_tokens=10),))
    mesh, names = Mesh(dist.get_rank(), 2, 2), {digest(asked): "needle/0"}
    engine = SequenceParallelEngine(
        model, mesh, BATCH_TOKENS, kernel="sdpa", label="base", names=names
    )
    try:
        engine.measure([asked])
    except NotFinite as error:
        return str(error), len(steps)
    return "no error", len(steps)


def dealt(name: str, asked: list[Request]) -> list[Any]:
    """The same, of two groups of two ranks that the batches are dealt over."""
    mesh = Mesh(dist.get_rank(), dist.get_world_size(), 2)
    engine = SequenceParallelEngine(engine_models.measured(name), mesh, 100, kernel="sdpa")
    return measured(engine, asked, 2)


def partitioned(folder: str, sp_size: int, asked: list[Request]) -> list[Any]:
    """The same, of a model whose weights lie in parts on all ranks."""
    plan = rope_plan.make(YarnConfig(method="yarn", factor=2.0), tiny_config(), "in the test")
    model = build.build(
        Base(folder),
        plan,
        dtype=torch.float32,
        deepspeed_config=inference.inference_config(torch.float32),
    )
    body = inference.partitioned_body(model)
    build.prove_in_engine(model, plan, "in its engine")
    mesh = Mesh(dist.get_rank(), dist.get_world_size(), sp_size)
    engine = SequenceParallelEngine(model, mesh, 100, body, kernel="sdpa")
    results = measured(engine, asked, sp_size)
    inference.release(body)
    return results


def whole(folder: str, asked: list[Request]) -> list[Any]:
    """One process and one pass each: what `eval/engine` gives."""
    plan = rope_plan.make(YarnConfig(method="yarn", factor=2.0), tiny_config(), "in the test")
    engine = Engine(build.build(Base(folder), plan, dtype=torch.float32), 100)
    return measured(engine, asked, 1)


def measured(engine: Any, asked: list[Request], sp_size: int) -> list[Any]:
    """Results in the order of the requests."""
    by_name: dict[str, Any] = {}
    requests = forward.unique(asked)
    for part in forward.passes(engine, requests.values(), requests, sp_size):
        by_name |= part
    return [by_name[name] for name in requests]
