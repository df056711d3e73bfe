"""The engine of prompts that are decoded by vLLM."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.conf.eval_vllm import VllmConfig
from ropewalk.eval.engine import calls
from ropewalk.eval.engine.decoding import End
from ropewalk.eval.engine_vllm.process import Vllm
from ropewalk.eval.requests import Prompt, Prompts, Reply, Request, Result

PASSES = 64
"""Batches of `eval.batch_tokens` that vLLM is given at once: it schedules them itself."""


def is_decoded(request: Request) -> bool:
    """Whether all of its replies are decoded: the requests that vLLM answers."""
    return isinstance(request, Prompts) and all(p.max_new_tokens for p in request.prompts)


def job(folder: Path, settings: VllmConfig, end: End, **llm: Any) -> dict[str, Any]:
    """What server.py is told first. `llm`: more arguments of `vllm.LLM`.

    Token ids go in and come out, so vLLM needs no tokenizer.
    """
    return {
        "llm": {
            "model": str(folder),
            "skip_tokenizer_init": True,
            "tensor_parallel_size": settings.tensor_parallel_size,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "seed": 0,
            **llm,
        },
        "sampling": {"temperature": 0.0, "detokenize": False, "stop_token_ids": sorted(end.eos)},
    }


class VllmEngine:
    """Answers prompts that are decoded, greedily. Replies have no loss of the reference answer.

    vLLM's losses of a prompt are not used: they were wrong where its beginning was cached
    (vllm-project/vllm#42245).
    """

    body = None

    def __init__(self, vllm: Vllm, batch_tokens: int, end: End) -> None:
        self.vllm, self.batch_tokens, self.end = vllm, batch_tokens, end

    def batches(self, requests: Sequence[Request]) -> list[Sequence[Request]]:
        """The requests in their order, in parts that `measure` hands to vLLM at once."""
        tokens = [request.tokens for request in requests]
        return [requests[part] for part in calls.batches(tokens, PASSES * self.batch_tokens)]

    def measure(self, requests: Sequence[Request]) -> list[Result]:
        """The replies to each request. Raises: RopewalkError, DataError."""
        groups = [request.prompts for request in requests if isinstance(request, Prompts)]
        prompts = [prompt for group in groups for prompt in group]
        new = self.vllm.generate(
            [prompt.ids.tolist() for prompt in prompts],
            [prompt.max_new_tokens for prompt in prompts],
        )
        replies = iter([self._reply(*pair) for pair in zip(prompts, new, strict=True)])
        return [tuple(next(replies) for _ in group) for group in groups]

    def _reply(self, prompt: Prompt, new: Sequence[int]) -> Reply:
        size = min(len(new), len(prompt.answer))
        correct = int(np.cumprod(np.array(new[:size]) == prompt.answer[:size]).sum())
        return Reply(correct, math.nan, tuple(self._up_to_its_end(prompt, new)))

    def _up_to_its_end(self, prompt: Prompt, new: Sequence[int]) -> Sequence[int]:
        """vLLM stops at one text of several; here decoding is over once all are there."""
        for count in range(1, len(new) + 1):
            if self.end.reached(prompt, new[:count]):
                return new[:count]
        raise DataError(
            f"vLLM decoded {len(new)} tokens of a prompt of {len(prompt.ids)}; it must decode "
            f"{prompt.max_new_tokens}, or up to an end token; set eval.backend=transformers"
        )


def longest(requests: Mapping[str, Request]) -> int:
    """Tokens of the longest prompt with its reply."""
    groups = [r.prompts for r in requests.values() if isinstance(r, Prompts)]
    return max(len(p.ids) + p.max_new_tokens for group in groups for p in group)
