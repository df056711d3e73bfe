"""How the engine computes requests: what is packed, where decoding ends, what is refused."""

from typing import Any

import engine_models
import models
import numpy as np
import pytest
import torch
from engine_models import generated, ids, losses, questions

from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.engine.finite import NotFinite
from ropewalk.eval.requests import Prompt, Prompts, Text, digest

LOG = "computes long texts and prompts whole, no cache"


class Passes:
    """The tokens of each forward pass of an engine."""

    def __init__(self, engine: Engine) -> None:
        self.tokens: list[tuple[int, ...]] = []
        engine.model.base_model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: Any, args: Any, kwargs: Any) -> None:
        self.tokens.append(tuple(kwargs["input_ids"].shape))


def engine(name: str = "llama", **options: Any) -> Engine:
    return Engine(engine_models.measured(name), 512, **{"chunk_tokens": 32, **options})


def test_a_context_is_computed_once_and_its_questions_are_decoded_together() -> None:
    ready = engine()
    ready.measure([Text(ids(40, 1))])  # the proof of the cache
    passes = Passes(ready)
    ready.measure([questions([ids(70, 50)], new=6)])
    assert passes.tokens[:5] == [(1, 32), (1, 32), (1, 6), (1, 9), (1, 13)]
    assert set(passes.tokens[5:]) == {(2, 1)} and len(passes.tokens) <= 5 + 5


def test_an_unshared_run_makes_the_same_calls_for_each_question() -> None:
    ready = engine(share=False)
    ready.measure([Text(ids(40, 1))])
    passes = Passes(ready)
    ready.measure([questions([ids(70, 50)], new=0)])
    assert passes.tokens == [(1, 32), (1, 32), (1, 6), (1, 9), (1, 32), (1, 32), (1, 6), (1, 13)]


def test_short_texts_and_prompts_are_packed_and_long_ones_are_not() -> None:
    ready = engine()
    prompts = Prompts((Prompt(ids(10, 2), ids(3, 3)), Prompt(ids(8, 4), ids(3, 5))))
    passes = Passes(ready)
    ready.measure([Text(ids(20, 1)), prompts, Text(ids(32, 6))])
    assert passes.tokens == [(1, 20 + 13 + 11 + 32)]


def test_prompts_of_several_groups_are_decoded_in_one_batch() -> None:
    oracle = engine_models.reference("llama")
    prompts = [Prompt(ids(n, n), ids(2, 1), max_new_tokens=7) for n in (20, 45, 33)]
    ready = engine()
    passes = Passes(ready)
    results = ready.measure([Prompts((prompt,)) for prompt in prompts])
    assert (3, 1) in passes.tokens
    for prompt, (reply,) in zip(prompts, results, strict=True):
        assert list(reply.ids) == generated(oracle, prompt.ids, 7)


def test_decoding_ends_at_the_end_of_sequence_and_at_the_wanted_texts() -> None:
    oracle = engine_models.reference("qwen3")
    prompt = ids(45, 7)
    tokens = generated(oracle, prompt, 12)
    fresh = next(n for n in range(2, 12) if tokens[n] not in tokens[:n])
    for draft in (tokens[:6], [96, 96]):
        request = Prompts((Prompt(prompt, np.array(draft), max_new_tokens=12),))
        ready = engine("qwen3")
        ready.model.generation_config.eos_token_id = [tokens[fresh], 2]
        ready = Engine(ready.model, 512, chunk_tokens=32)
        ((reply,),) = ready.measure([request])
        assert list(reply.ids) == tokens[: fresh + 1]
        wanted = (f"<{tokens[fresh]}>", f"<{tokens[0]}>")
        until = Prompts((Prompt(prompt, np.array(draft), 0, 12, wanted),))
        ready = engine("qwen3", text_of=lambda new: "".join(f"<{n}>" for n in new))
        ((reply,),) = ready.measure([until])
        assert list(reply.ids) == tokens[: fresh + 1]


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_a_table_that_depends_on_the_call_is_computed_whole_and_alone(
    rope_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    """transformers' full pass is the oracle, at lengths on both sides of the original window."""
    rope: dict[str, Any] = {"rope_type": rope_type, "rope_theta": 10000.0, "factor": 4.0}
    if rope_type == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 4.0]}
        rope["original_max_position_embeddings"] = 32
    model = models.tiny_model(attn_implementation="eager", rope_parameters=rope)
    ready = Engine(model, 512, chunk_tokens=16)
    texts = [ids(n, n) for n in (20, 31, 90)]
    group = Prompts(tuple(Prompt(t, ids(2, 1), context=16, max_new_tokens=4) for t in texts))
    with caplog.at_level("INFO"):
        *results, replies = ready.measure([*map(Text, texts), group])
    for text, result, reply in zip(texts, results, replies, strict=True):
        np.testing.assert_allclose(result, losses(model, text), atol=1e-5)
        assert list(reply.ids) == by_full_passes(model, text, 4)
    assert caplog.text.count(LOG) == 1 and rope_type in caplog.text


def by_full_passes(model: Any, prompt: np.ndarray, new: int) -> list[int]:
    tokens = torch.from_numpy(prompt)[None]
    for _ in range(new):
        with torch.no_grad():
            likeliest = model(tokens, use_cache=False).logits[:, -1:].argmax(-1)
        tokens = torch.cat([tokens, likeliest], 1)
    return tokens[0, len(prompt) :].tolist()


def test_longrope_with_one_list_of_divisors_is_shared() -> None:
    divisors = [1.0, 2.0, 4.0, 4.0]
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "long_factor": divisors}
    rope |= {"short_factor": divisors, "original_max_position_embeddings": 32}
    model = models.tiny_model(attn_implementation="eager", rope_parameters=rope)
    ready = Engine(model, 512, chunk_tokens=16)
    passes = Passes(ready)
    text = ids(40, 1)
    (result,) = ready.measure([Text(text)])
    assert (1, 16) in passes.tokens
    np.testing.assert_allclose(result, losses(model, text), atol=1e-5)


def test_a_model_whose_cache_is_not_as_expected_is_computed_whole(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that forgets what was before a call, as one that ignores the cache would."""
    model = engine_models.measured("llama")
    original = type(model.base_model).forward

    def forgetful(self: Any, *args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        kwargs.pop("key_borders", None)
        if past_key_values is not None:
            past_key_values.rollback = lambda length: None
            for layer in past_key_values.layers:
                layer.length = 0
        return original(self, *args, past_key_values=past_key_values, **kwargs)

    monkeypatch.setattr(type(model.base_model), "forward", forgetful)
    text = ids(70, 1)
    with caplog.at_level("INFO"):
        (result,) = Engine(model, 512, chunk_tokens=32).measure([Text(text)])
    assert "calls with a cache do not give what one pass gives" in caplog.text
    monkeypatch.undo()
    oracle = engine_models.reference("llama")
    np.testing.assert_allclose(result, losses(oracle, text), atol=1e-5)


@pytest.mark.parametrize("length", [20, 70], ids=["packed", "in calls"])
@pytest.mark.parametrize("new", [0, 4])
def test_logits_that_are_not_finite_are_an_error_of_their_sample(length: int, new: int) -> None:
    model = engine_models.measured("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[5, 0] = torch.nan
    fine, broken = ids(length, 1) % 90 + 7, np.append(ids(length, 2), [5, 8])
    requests = [Prompts((Prompt(t, ids(2, 3) % 90 + 7, 0, new),)) for t in (fine, broken)]
    names = {digest(requests[1]): "passkey/20/0.5/003"}
    ready = Engine(model, 512, chunk_tokens=32, label="base", names=names)
    with pytest.raises(NotFinite, match=r"logits of base are NaN .* in passkey/20/0.5/003; "):
        ready.measure(requests)


@pytest.mark.parametrize("step", [1, 4])
def test_a_decode_step_that_is_not_finite_is_an_error_of_its_sample(step: int) -> None:
    """All passes before are finite, and so is the other sample's row of the same step."""
    model = engine_models.measured("llama")
    steps = engine_models.break_step(model, step, row=1)
    requests = [Prompts((Prompt(ids(n, n), ids(2, 1), max_new_tokens=7),)) for n in (20, 45)]
    names = {digest(request): f"needle/{n}" for n, request in enumerate(requests)}
    ready = Engine(model, 512, chunk_tokens=32, label="base", names=names)
    with pytest.raises(NotFinite, match=r"logits of base are NaN or infinite in needle/1; "):
        ready.measure(requests)
    assert len(steps) == step
