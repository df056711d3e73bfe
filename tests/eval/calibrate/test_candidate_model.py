"""The losses of the search are those of plain transformers with the candidate's settings."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import feeds
import models
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from ropewalk.conf.errors import ConfigError
from ropewalk.eval.calibrate import candidate_model
from ropewalk.eval.calibrate.candidate_model import CandidateModel
from ropewalk.eval.calibrate.trial import paper
from ropewalk.train.base import base_config, locate
from ropewalk.train.rope import plan as rope_plan

FACTOR, WINDOW = 4.0, 64
THETA = {"rope_theta": 10000.0}


def transformers_losses(folder: Path, windows: np.ndarray, rope: dict[str, object]) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    model.config.rope_parameters = rope
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    ids = torch.from_numpy(windows)
    with torch.no_grad():
        logits = model.eval()(ids).logits[:, :-1]
    return F.cross_entropy(logits.mT, ids[:, 1:], reduction="none").numpy()


@pytest.mark.parametrize("batch_tokens", [100, 600])
def test_losses_of_a_candidate_are_those_of_transformers(tmp_path: Path, batch_tokens: int) -> None:
    models.tiny_model(max_position_embeddings=WINDOW).save_pretrained(tmp_path)
    config = feeds.config()
    config.model.path, config.eval.batch_tokens = str(tmp_path), batch_tokens
    base = locate(config.model, tmp_path)
    plan = rope_plan.make(paper("yarn", FACTOR).rope, base_config(base), base.name)
    live = CandidateModel(config, base, plan)
    windows = np.random.default_rng(0).integers(0, models.VOCAB, (5, 200))
    yarn = {"rope_type": "yarn", "factor": FACTOR, "original_max_position_embeddings": WINDOW}
    measured = live.measure(paper("yarn", FACTOR), windows)
    assert measured.shape == (5, 199) and measured.dtype == np.float64
    for losses, rope in (
        (measured, {**THETA, **yarn}),
        (live.measure(paper("pi", FACTOR), windows), {**THETA, "rope_type": "linear", "factor": 4}),
        (live.nll(plan.unscaled, windows), {**THETA, "rope_type": "default"}),
    ):
        expected = transformers_losses(tmp_path, windows, rope)
        np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "qk_head_dim", "length", "message"),
    [
        ("none", 0, None, "rope is none; calibrate searches a scaling"),
        ("yarn", 8, None, r"decoupled rotary dimensions \(8 a head\)"),
        ("yarn", 0, 64, "calibrate.length is 64; it must be above the base's window 64"),
        ("yarn", 0, 257, "calibrate.length is 257; .* at most the new one 256"),
        ("yarn", 0, 65, None),
        ("yarn", 0, 256, None),
        ("yarn", 0, None, None),
    ],
)
def test_plans_that_cannot_be_searched_are_refused(
    method: str, qk_head_dim: int, length: int | None, message: str | None
) -> None:
    """And a length below the new one is warned of."""
    config, plan = feeds.config(), _plan(method, qk_head_dim)
    config.calibrate.length = length
    if message is not None:
        with pytest.raises(ConfigError, match=message):
            candidate_model.refuse(config, plan)
        return
    candidate_model.refuse(config, plan)
    assert len(candidate_model.findings(config, plan)) == (length == 65)


def _plan(method: str, qk_head_dim: int) -> Any:
    return SimpleNamespace(
        method=method, qk_head_dim=qk_head_dim, base_window=64, max_position_embeddings=256
    )
