"""How the model is called to be scored; ranks that share the passes give the scores of one."""

from typing import Any

import models
import numpy as np
import pytest
import ranks
import scoring_ranks
import torch

from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.requests import Prompt, Prompts, Text


def test_the_model_keeps_no_keys_and_values_of_a_text_that_is_only_scored() -> None:
    model, calls = models.tiny_model(attn_implementation="sdpa"), list[dict[str, Any]]()
    model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True
    )
    Engine(model, 64).measure([Text(np.array([7, 8, 9])), Text(np.array([1, 2]))])
    (call,) = calls
    assert call["use_cache"] is False
    assert call["input_ids"].tolist() == [[7, 8, 9, 1, 2]]
    assert call["position_ids"].tolist() == [[0, 1, 2, 0, 1]]


def test_answers_are_judged_at_their_place() -> None:
    """The oracle decodes greedily by transformers."""
    model = models.tiny_model(attn_implementation="sdpa").eval()
    generator = torch.Generator().manual_seed(0)
    prompts, expected = [], []
    for length in (9, 14, 11, 20):
        ids = torch.randint(0, models.VOCAB, (1, length), generator=generator)
        answer = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False
        )[0, length:].numpy()
        right = length != 14
        answer[-1] = (answer[-1] + (not right)) % models.VOCAB
        prompts.append(Prompt(ids[0].numpy(), answer))
        expected.append(3 if right else 2)
    (replies,) = Engine(model, 64).measure([Prompts(tuple(prompts))])
    assert [reply.correct for reply in replies] == expected


def test_losses_of_a_text_are_those_of_transformers_from_its_first_token_on() -> None:
    model = models.tiny_model(attn_implementation="sdpa").eval()
    texts = [np.random.default_rng(n).integers(0, models.VOCAB, 12 + n) for n in range(3)]
    results = Engine(model, 64).measure([Text(ids, first) for first, ids in enumerate(texts, 1)])
    for first, (ids, losses) in enumerate(zip(texts, results, strict=True), 1):
        tokens = torch.from_numpy(ids)[None]
        with torch.no_grad():
            log_probs = model(tokens).logits[0, :-1].log_softmax(-1)
        expected = -log_probs.gather(1, tokens[0, 1:, None])[:, 0]
        np.testing.assert_allclose(losses, expected[first - 1 :].numpy(), atol=1e-5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    models.tiny_model().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("partitioned", [False, True])
def test_ranks_that_share_the_passes_give_the_scores_of_one_process(
    base: str, partitioned: bool
) -> None:
    """Texts and prompts in numbers that the ranks do not divide; whole weights, and ZeRO 3, where a
    rank that is finished makes the passes of the others' decoding steps with them."""
    settings = (base, 7, partitioned, torch.float32)
    alone = scoring_ranks.measured(base, 7, False, torch.float32)
    results = ranks.run(3, scoring_ranks.measured, *settings)
    for result in results:
        np.testing.assert_allclose(result["nll"], alone["nll"], rtol=1e-6, atol=1e-6)
        assert result["correct"] == alone["correct"] and result["ids"] == alone["ids"]
    passes = [result["passes"] for result in results]
    assert (len(set(passes)) == 1) == partitioned  # weights are gathered by all at once
    assert max(passes) < 0.8 * alone["passes"]


def test_partitioned_weights_are_scored_in_bf16(base: str) -> None:
    alone = scoring_ranks.measured(base, 3, False, torch.bfloat16)
    (result, _) = ranks.run(2, scoring_ranks.measured, base, 3, True, torch.bfloat16)
    np.testing.assert_array_equal(result["nll"], alone["nll"])
