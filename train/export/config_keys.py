"""config.json in two key styles: `rope_parameters`, and the legacy `rope_theta` and `rope_scaling`
that many programs still read."""

from typing import Any

from ropewalk.train.rope.model_config import ONLY_LONGROPE

OTHER_OLD_NAMES = ("gpt_neox", "gpt_neox_japanese")  # their theta was rotary_emb_base
TOP_LEVEL = ("rope_theta", "partial_rotary_factor")  # stood beside rope_scaling, not inside


def legacy_keys(config: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The legacy keys that mean the same as `config["rope_parameters"]`; or {} and the reason.

    transformers 5 prefers `rope_scaling` when a config has both, so the two must agree.
    """
    parameters, kind = config["rope_parameters"], config["model_type"]
    if "rope_theta" not in parameters:
        return (
            {},
            f"its {' and '.join(parameters)} layers have tables of their own; "
            "the older keys hold one",
        )
    if kind in ONLY_LONGROPE:
        return {}, f"the older config class of {kind} takes no key for the attention factor"
    if kind in OTHER_OLD_NAMES:
        return {}, f"older versions of {kind} have other names for them"
    top_level = {key: parameters[key] for key in TOP_LEVEL if key in parameters}
    scaling = {key: value for key, value in parameters.items() if key not in TOP_LEVEL}
    if parameters["rope_type"] == "default":
        return {**top_level, "rope_scaling": None}, None
    return {**top_level, "rope_scaling": {**scaling, "type": scaling["rope_type"]}}, None


def with_legacy_keys(config: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """config.json in both styles; or unchanged and the reason, without exact legacy keys."""
    keys, reason = legacy_keys(config)
    return {**config, **keys}, reason
