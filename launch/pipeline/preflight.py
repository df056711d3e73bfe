"""Refuses a stage before it starts when settings and file headers show that it must fail."""

from ropewalk.conf.artifacts.manifest import Manifest
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.launch.pipeline.run import Run, data_inputs
from ropewalk.train.base import base_config
from ropewalk.train.preflight import refuse_unfit_ranks, refuse_unmatched_names

MAX_LISTED = 20


def refuse_untrainable(run: Run) -> None:
    """Check model, adapter targets and ranks before a token is written. Raises: ConfigError."""
    from ropewalk.train import attention

    base = run.base
    config = base_config(base)
    attention.refuse_unsupported(config, base.name, run.config.train.attention.s2_group)
    # Remote code may not be in the registry of models: the ranks check its own modules instead.
    if not base.trust_remote_code:
        refuse_unmatched_names(config, run.config.train)
    if warning := refuse_unfit_ranks(run.config, config):
        print(f"warning: {warning}")


def refuse_smaller_window(run: Run, rope: Manifest) -> None:
    """Raises: ConfigError when a phase has a smaller window than the phase before it."""
    if run.previous_phase is None:
        return
    previous = run.previous_phase.manifests["rope"]
    window, minimum = (m.facts["max_position_embeddings"] for m in (rope, previous))
    if window < minimum:
        raise ConfigError(
            f"phases[{run.config.phase - 1}].rope.factor is {run.config.rope.factor}; its window "
            f"of {window} tokens must be at least that of the phase before, {minimum}, because it "
            "starts from that model; the factor counts from the original window: raise it"
        )


def refuse_unfit_shards(config: Config) -> None:
    """Check the shards for `ropewalk data --merge`.

    Raises: ConfigError when shards are missing; DataError when one is damaged.
    """
    from ropewalk.data import stage

    inputs = data_inputs(Run(config))
    if missing := stage.missing_shards(config, inputs):
        listed = ", ".join(missing[:MAX_LISTED])
        if len(missing) > MAX_LISTED:
            listed += f" and {len(missing) - MAX_LISTED} more"
        raise ConfigError(
            f"--merge lacks shards {listed}; all must be there; make them with "
            "ropewalk data --shard I/N, or all missing ones with ropewalk data"
        )
    stage.verify_shards(config, inputs)
