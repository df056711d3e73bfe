"""`ropewalk eval eval.models.NAME.path=...` without a training: only these models are measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

VERBS = ("data", "eval", "report")
"""Verbs that can do without a training."""
OF_TRAINING = ("train.steps", "train.optimizer.lr")
MODELS = "eval.models"
NOTHING_TO_MEASURE = (
    "eval.models is empty; eval measures the models of a run (with its recipe and settings), or "
    "any others; to measure a model as it is, set eval.models.NAME.path"
)
SEQ_LEN = 2048
"""Of the plan of sequences, which nothing reads."""


def is_meant(composed: DictConfig, verb: str, refused: Sequence[str] = ()) -> bool:
    """Whether nothing is to be trained: as set, or because what a training must have is unset.

    `refused`: keys whose value is refused; models may be named there.
    """
    run_models = composed.eval.get("run_models")
    named = composed.eval.get("models") or any(key.startswith(MODELS) for key in refused)
    if verb not in VERBS or not named:
        return False
    lacking = lacks_training(composed)
    if verb == "data":  # it may be that of a training whose steps are not set yet
        has_length = not OmegaConf.is_missing(composed.data, "seq_len")
        lacking &= not (has_length and _has_base(composed) and _grows(composed))
    return run_models is False or (run_models is None and lacking)


def lacks_training(composed: DictConfig) -> bool:
    return not OmegaConf.missing_keys(composed).isdisjoint(OF_TRAINING)


def completed(composed: DictConfig) -> DictConfig:
    """The settings with what the stages before need: the first model gives the data's tokenizer."""
    composed = composed.copy()
    OmegaConf.set_struct(composed, False)
    composed.eval.run_models = False
    for key in ("factor", "target_length", "max_position_embeddings"):
        composed.rope[key] = None
    if not _has_base(composed):
        first: Mapping[str, Any] = next(iter(composed.eval.models.values()), {})
        for key in ("path", "revision", "gguf_file", "trust_remote_code"):
            if (value := first.get(key)) not in (None, "???"):
                composed.model[key] = value
    if OmegaConf.is_missing(composed.data, "seq_len"):
        composed.data.seq_len = SEQ_LEN
    return composed


def _has_base(composed: DictConfig) -> bool:
    return composed.model.get("path") is not None or composed.model.get("scratch") is not None


def _grows(composed: DictConfig) -> bool:
    return any(composed.rope.get(key) is not None for key in ("factor", "target_length"))
