"""Stands in for vLLM in its process: names as in its source, tokens as transformers decodes them.

A name that vLLM's record (tests/eval/engine_vllm/definitions.json) lacks is a TypeError here too.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

RECORD = json.loads(Path(os.environ["VLLM_DEFINITIONS"]).read_text())


def _refuse_unknown(what: str, given: dict[str, Any], known: list[str]) -> None:
    if unknown := sorted({*given} - {*known}):
        raise TypeError(f"{what} has no {', '.join(unknown)}")


class SamplingParams:
    def __init__(self, **given: Any) -> None:
        _refuse_unknown("SamplingParams", given, RECORD["SamplingParams"])
        assert given["temperature"] == 0.0
        self.max_tokens, self.stop = given["max_tokens"], given["stop_token_ids"]


@dataclass
class CompletionOutput:
    token_ids: tuple[int, ...]


@dataclass
class RequestOutput:
    outputs: list[CompletionOutput]


class LLM:
    def __init__(self, model: str, **given: Any) -> None:
        _refuse_unknown("LLM", given, [*RECORD["LLM"]["by_name"], *RECORD["EngineArgs"]])
        self.window = given["max_model_len"]
        dtype = getattr(torch, given["dtype"])
        self.model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
        if self.window > self.model.config.max_position_embeddings:
            raise ValueError("max_model_len is greater than the derived max_model_len")
        print("vLLM prints on its standard output")

    def generate(
        self, prompts: list[Any], sampling_params: list[SamplingParams], **given: Any
    ) -> list[RequestOutput]:
        _refuse_unknown("generate", given, RECORD["LLM.generate"]["by_name"])
        return [self._one(*pair) for pair in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt: dict[str, Any], params: SamplingParams) -> RequestOutput:
        _refuse_unknown("TokensPrompt", prompt, RECORD["TokensPrompt"])
        ids = torch.tensor([prompt["prompt_token_ids"]])
        assert ids.shape[1] + params.max_tokens <= self.window
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=params.max_tokens,
            do_sample=False,
            eos_token_id=params.stop or None,
            pad_token_id=0,
        )
        new = output[0, ids.shape[1] :].tolist()
        assert {*CompletionOutput.__annotations__} <= {*RECORD["CompletionOutput"]}
        assert "outputs" in RECORD["RequestOutput"]["positional"]
        return RequestOutput([CompletionOutput(tuple(new))])
