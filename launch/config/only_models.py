"""`ropewalk eval eval.models.NAME.path=...` without a training: only these models are measured."""

from omegaconf import DictConfig, OmegaConf

VERBS = ("eval", "report")
"""Verbs that can do without a training."""
OF_TRAINING = ("train.steps", "train.optimizer.lr")
SEQ_LEN = 2048
"""Of the plan of sequences, which nothing reads."""


def is_meant(composed: DictConfig, verb: str) -> bool:
    """Whether nothing is to be trained: as set, or because what a training must have is unset."""
    named, run_models = composed.eval.get("models"), composed.eval.get("run_models")
    if verb not in VERBS or not named:
        return False
    missing = OmegaConf.missing_keys(composed)
    return run_models is False or (run_models is None and not missing.isdisjoint(OF_TRAINING))


def completed(composed: DictConfig) -> DictConfig:
    """The settings with what the stages before need: the first model gives the data's tokenizer."""
    composed = composed.copy()
    OmegaConf.set_struct(composed, False)
    composed.eval.run_models = False
    composed.rope.factor = composed.rope.target_length = None
    if composed.model.get("path") is None and composed.model.get("scratch") is None:
        first = next(iter(composed.eval.models.values()))
        for key in ("path", "revision", "gguf_file", "trust_remote_code"):
            if (value := first.get(key)) not in (None, "???"):
                composed.model[key] = value
    if OmegaConf.is_missing(composed.data, "seq_len"):
        composed.data.seq_len = SEQ_LEN
    return composed
