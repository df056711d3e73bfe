"""config.json in both key styles: `rope_parameters`, and the older `rope_theta` and `rope_scaling` that many programs still read."""

from typing import Any

from ropewalk.train.rope.model_config import ONLY_LONGROPE

OTHER_OLD_NAMES = ("gpt_neox", "gpt_neox_japanese")  # they called theta rotary_emb_base
MOVED = ("rope_theta", "partial_rotary_factor")  # stood beside rope_scaling, not in it


def older(config: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The older keys that mean the same as `config["rope_parameters"]`, or none and the reason.

    transformers 5 gives `rope_scaling` precedence where both are there, so the two must agree.
    """
    parameters, kind = config["rope_parameters"], config["model_type"]
    if "rope_theta" not in parameters:
        return (
            {},
            f"its {' and '.join(parameters)} layers have tables of their own; the older keys hold one",
        )
    if kind in ONLY_LONGROPE:
        return {}, f"the older config class of {kind} takes no key for the attention factor"
    if kind in OTHER_OLD_NAMES:
        return {}, f"older versions of {kind} have other names for them"
    found = {key: parameters[key] for key in MOVED if key in parameters}
    scaling = {key: value for key, value in parameters.items() if key not in MOVED}
    if parameters["rope_type"] == "default":
        return {**found, "rope_scaling": None}, None
    return {**found, "rope_scaling": {**scaling, "type": scaling["rope_type"]}}, None


def both(config: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The whole config.json in both styles; unchanged, with the reason, where the older form would say something else."""
    found, reason = older(config)
    return {**config, **found}, reason
