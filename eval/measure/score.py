"""The engine and its passes under the names that eval/engine/ has taken over."""

from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.engine.passes import (
    head,
    hidden_states,
    losses_and_hits,
    window_nll,
)
from ropewalk.train.loss import token_nll
from ropewalk.train.model.build import evaluating

__all__ = [
    "Engine",
    "evaluating",
    "head",
    "hidden_states",
    "losses_and_hits",
    "token_nll",
    "window_nll",
]
