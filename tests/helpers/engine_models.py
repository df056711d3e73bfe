"""Small models whose caches differ (full attention, sliding windows, attention sinks), requests for
them, and what transformers gives for those."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from architectures import small_model

from ropewalk.eval.requests import Prompt, Prompts
from ropewalk.train import attention

WINDOW = 24
SLIDING = {"sliding_window": WINDOW}
ALTERNATING = ["sliding_attention", "full_attention"] * 2
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen3": ("Qwen3", {}),
    "mistral": ("Mistral", SLIDING),
    "gemma3": ("Gemma3Text", SLIDING | {"layer_types": ALTERNATING}),
    "gpt_oss": (
        "GptOss",
        SLIDING | {"layer_types": ALTERNATING, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
}


def reference(name: str, changes: dict[str, Any] | None = None) -> Any:
    """With transformers' own attention, which is eager. `changes`: to the config."""
    architecture, its_own = MODELS[name]
    sizes = {"max_position_embeddings": 512, "tie_word_embeddings": False}
    model = small_model(architecture, {**sizes, **its_own, **(changes or {})})
    model.generation_config.eos_token_id = None  # greedy decoding goes on to its budget
    model.set_attn_implementation("eager")
    return model


def measured(
    name: str, dtype: torch.dtype = torch.float32, changes: dict[str, Any] | None = None
) -> Any:
    """The same weights with our attention kernel."""
    model = reference(name, changes).to(dtype)
    needs = attention.requirements_of(model, dtype)
    model.set_attn_implementation(attention.register("auto", None, needs))
    return model


def break_step(model: Any, number: int, row: int) -> list[int]:
    """From now on the states of a row are NaN in decode step `number`, counted from 1, of a batch
    with `row + 1` rows. Returns the list that the numbers of the steps go into."""
    steps: list[int] = []

    def spoil(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        if kwargs["input_ids"].shape == (row + 1, 1):
            steps.append(len(steps) + 1)
            if steps[-1] == number:
                output.last_hidden_state[row] = torch.nan

    model.base_model.register_forward_hook(spoil, with_kwargs=True)
    return steps


def ids(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 97, length)


def questions(contexts: Sequence[np.ndarray], new: int, answers: Any = None) -> Prompts:
    """Two questions of other lengths after each context."""
    prompts = []
    for number, context in enumerate(contexts):
        for n, length in enumerate((5, 9)):
            text = np.concatenate([context, ids(length, 10 * number + n + 1)])
            answer = ids(4, 1) if answers is None else answers[2 * number + n]
            prompts.append(Prompt(text, answer, context=len(context), max_new_tokens=new))
    return Prompts(tuple(prompts))


def generated(model: Any, prompt: np.ndarray, new: int) -> list[int]:
    """transformers' greedy decoding."""
    tokens = torch.from_numpy(prompt)[None]
    output = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
    )
    return output[0, tokens.shape[1] :].tolist()


def losses(model: Any, text: np.ndarray) -> np.ndarray:
    """transformers' losses of each token but the first, by one full pass."""
    tokens = torch.from_numpy(text)[None]
    with torch.no_grad():
        log_probs = model(tokens).logits[0, :-1].float().log_softmax(-1)
    return -log_probs.gather(1, tokens[0, 1:, None])[:, 0].numpy()
