"""The bytes that a training writes at least: checkpoints and the model."""

from ropewalk.conf.train import TrainConfig

MASTER_BYTES = 4  # fp32 weights in the checkpoint, at every precision
MOMENT_BYTES = {"adamw": 8, "adamw_8bit": 2}
"""Both moments of a parameter."""
MODEL_BYTES = {"bf16": 2, "fp32": 4}


def checkpoint_bytes(train: TrainConfig, parameters: int) -> int:
    """Least bytes of one checkpoint: fp32 weights and the moments of what is trained.

    Adapters and partly trained models count as nothing, because their size is not known here.
    """
    if train.lora.rank or train.optimizer.patterns():
        return 0
    return parameters * (MASTER_BYTES + MOMENT_BYTES[train.optimizer.name])


def checkpoints_at_once(train: TrainConfig) -> int:
    """The most that are on disk together: an old one is removed when the new one is complete."""
    settings, last = train.checkpoint, train.steps
    written = {last}
    if settings.interval_steps:
        written.update(range(settings.interval_steps, last + 1, settings.interval_steps))
    kept = set(sorted(written)[-settings.keep_last :])
    if settings.keep_every_steps:
        kept |= {step for step in written if step % settings.keep_every_steps == 0}
    return len(kept) + (len(written) > len(kept))


def model_bytes(train: TrainConfig, parameters: int) -> int:
    """Bytes of the model in Hugging Face form."""
    return parameters * MODEL_BYTES[train.precision]
