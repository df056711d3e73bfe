"""Sliding windows of a base against the window that it is extended to.

A window at least as wide as the new one hides nothing. A narrower one in every layer hides what is
extended: it is refused, or widened or lifted on request (`model.sliding_window`). Layers that
alternate with full attention are part of an architecture's design and stay.
"""

from typing import Any

from transformers import PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.model import OFF
from ropewalk.train.model.geometry import sliding_layers, sliding_windows

FULL, SLIDING = "full_attention", "sliding_attention"


def changed_keys(config: PreTrainedConfig, setting: int | str | None, name: str) -> dict[str, Any]:
    """The keys of a config that `model.sliding_window` changes; none where it is unset.

    Raises: ConfigError when the base called `name` has no such window, or alternates it with full
    attention.
    """
    if setting is None:
        return {}
    windows = sliding_windows(config)
    problem = _why_not_changed(config, setting, windows)
    if problem:
        raise ConfigError(f"model.sliding_window is {setting}; {name} {problem}; unset it")
    if setting != OFF:
        return {"sliding_window": setting}
    keys: dict[str, Any] = {"sliding_window": None}
    if hasattr(config, "use_sliding_window"):
        keys["use_sliding_window"] = False
    if getattr(config, "layer_types", None):
        keys["layer_types"] = [FULL] * len(windows)
    return keys


def _why_not_changed(
    config: PreTrainedConfig, setting: int | str, windows: list[int | None]
) -> str:
    """Empty if it can be changed."""
    own = max((window for window in windows if window), default=None)
    if own is None:
        return "has no sliding window"
    if None in windows and not hasattr(config, "use_sliding_window"):
        return "alternates its windows with full attention, which is part of its design"
    if SLIDING in config.rope_parameters:  # type: ignore[attr-defined]
        return "has a rotary table of its own in its sliding-window layers"
    if isinstance(setting, int) and setting < own:
        return f"has a window of {own} tokens, and the setting is for a wider one"
    return ""


def refuse_hiding(
    config: PreTrainedConfig, changes: dict[str, Any], window: int, model: str
) -> None:
    """`changes`: those of `changed_keys`. `window`: tokens that the plan reaches.

    Raises: ConfigError when every layer has a sliding window that is narrower.
    """
    if changes.get("sliding_window", window) is None:
        return
    windows = [changes.get("sliding_window", own) for own in sliding_windows(config) if own]
    if len(windows) < len(sliding_layers(config)) or max(windows) >= window:
        return
    raise ConfigError(
        f"{model} has sliding-window attention of {max(windows)} tokens in every layer, which "
        f"hides what the plan of {window} tokens extends; set model.sliding_window=off to train "
        f"and export it with full attention, or model.sliding_window={window}"
    )


def narrow_layers(config: PreTrainedConfig, changes: dict[str, Any], window: int) -> bool:
    """Whether a layer sees less than `window` tokens, the keys of `changes` put in."""
    if "sliding_window" in changes:
        return (changes["sliding_window"] or window) < window
    return any(own and own < window for own in sliding_windows(config))
