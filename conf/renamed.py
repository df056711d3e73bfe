"""The former names of settings, each answered with the present one."""

_SECTIONS = {
    "train.optimizer": "optimizer=name lr betas eps weight_decay gradient_clipping "
    "decay_embeddings layer_lr_decay lr_groups trainable freeze",
    "train.schedule": "schedule=kind warmup_steps min_lr_ratio decay_steps decay_shape",
    "train.loss": "z_loss",
    "train.checkpoint": "checkpoint_steps=interval_steps keep_checkpoints=keep_last "
    "keep_every=keep_every_steps checkpoint_async=async_write",
    "train.attention": "attention=kernel s2_group",
    "train.memory": "offload_optimizer offload_params offload_path offload_activations "
    "activation_checkpointing tile_mlp=tile_mlp_tokens compile zero_hpz_size",
    "train.stability": "faults.on_nan=on_nan faults.on_spike=on_spike "
    "faults.spike_window=spike_window_steps faults.spike_mads=spike_threshold_mads "
    "faults.max_skips=max_skips",
    "train.metrics": "seeing.group_norms_every=group_norms_every seeing.peak_tflops=peak_tflops "
    "wandb wandb_project tensorboard",
    "train.validation": "validate.every=interval_steps validate.windows=windows "
    "validate.windows_per_document=windows_per_document validate.length=length",
    "train.profiler": "profile.steps=steps profile.ranks=ranks profile.memory=memory",
    "train.launcher": "processes=ranks_per_node hostfile hang_s=hang_timeout_s",
}
"""Settings that moved from `train` to a section: FORMER=PRESENT, or one name for both."""
RENAMED = {
    **{
        f"train.{former}": f"{section}.{present or former}"
        for section, names in _SECTIONS.items()
        for former, _, present in (name.partition("=") for name in names.split())
    },
    "train.requeue": "launch.slurm.requeue",
    "train.launcher.requeue": "launch.slurm.requeue",
    "train.faults": "train.stability",
    "train.seeing": "train.metrics",
    "train.validate": "train.validation",
    "train.profile": "train.profiler",
    "train.balance": "train.balance_attention_work",
    "data.heldout": "data.heldout_share",
    "data.tokens": "data.total_tokens",
    "data.workers": "data.tokenizer_threads",
    "eval.gain_targets": "eval.context_gain_tokens",
    "calibrate.passes": "calibrate.max_forward_passes",
}
"""Former key -> present key."""


def renaming(word: str) -> tuple[str, str] | None:
    """Former and present key of an override `KEY=VALUE` that uses a former name; None for any
    other word."""
    key, _, value = word.lstrip("+").partition("=")
    present = RENAMED.get(key)
    if present is None or (key in _SECTIONS and value.lstrip().startswith("{")):
        return None  # train.optimizer={...} sets the section
    return key, present


def message(former: str, present: str) -> str:
    return f"{former} is now {present}"


def nested(values: object, prefix: str = "") -> list[tuple[str, str]]:
    """The former and present keys in nested settings, such as a recipe's."""
    renamings = []
    for name, value in values.items() if isinstance(values, dict) else ():
        key = f"{prefix}{name}"
        if key in RENAMED and not (key in _SECTIONS and isinstance(value, dict)):
            renamings.append((key, RENAMED[key]))
        else:
            renamings += nested(value, f"{key}.")
    return renamings
