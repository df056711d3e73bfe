"""A table from a file, held against the base that it is read for."""

from typing import Any

import numpy as np

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import RopeConfig, Rotary, Table, TableConfig
from ropewalk.conf.rope_methods.table import is_number
from ropewalk.train.rope.parameters import table_from_parameters


def factor_of(rope: RopeConfig, original: int, window: int) -> float:
    """The factor of a table's file; `window`: of the base, where the file has none.

    Raises: ConfigError when the file's window is shorter, and when the method has no file.
    """
    if not isinstance(rope, TableConfig):
        raise ConfigError(
            f"rope.factor is not set; rope={rope.method} needs a factor or a target_length; e.g. "
            "rope.factor=8"
        )
    file_window = rope.content.get("max_position_embeddings", window)
    factor: float = rope.content.get("factor") or file_window / original
    if factor < 1:
        raise ConfigError(
            f"rope.path is {rope.path}; its max_position_embeddings {file_window} must be at least "
            f"the original window {original}; give a table for this model"
        )
    return factor


def refuse_other_base(rope: TableConfig, rotary: Rotary) -> None:
    """Raises: ConfigError when the file names another theta or original window."""
    window_key = "original_max_position_embeddings"
    for key, value, setting in (
        ("rope_theta", rotary.theta, ""),
        (window_key, rotary.original, f", or set rope.{window_key}"),
    ):
        if rope.content.get(key, value) != value:
            raise ConfigError(
                f"rope.path is {rope.path}; it was made for {key} {rope.content[key]}, the model "
                f"has {value:g}; they must be the same; give a table for this model{setting}"
            )


def refuse_other_parameters(rope: TableConfig, table: Table, rotary: Rotary) -> None:
    """Refuse a file whose `rope_parameters`, which engines read, describe another table.

    Raises: ConfigError when they differ from the file's `inv_freq` and `attention_factor`.
    """
    parameters = rope.content.get("rope_parameters")
    if not parameters:
        return
    described = _described_table(rope, parameters, rotary)
    same = (
        described.short_inv_freq is None
        and np.allclose(described.inv_freq, table.inv_freq, rtol=1e-6, atol=0)
        and np.isclose(described.attention_factor, table.attention_factor, rtol=1e-6, atol=0)
    )
    if not same:
        raise ConfigError(
            f"rope.path is {rope.path}; its rope_parameters ({parameters['rope_type']}) mean "
            "another table than its inv_freq and attention_factor; they must mean the same; "
            "remove rope_parameters from an edited file"
        )


def _described_table(rope: TableConfig, parameters: dict[str, Any], rotary: Rotary) -> Table:
    """The table that a file's `rope_parameters` describe.

    Raises: ConfigError when they cannot be read.
    """
    window, theta = rope.window(rotary.original), parameters.get("rope_theta")
    try:
        if theta is None or not is_number(theta, 1 + 1e-9):
            raise KeyError("rope_theta")
        # transformers takes the new window where no original one is given
        rotary = Rotary(rotary.dim, float(theta), window)
        with np.errstate(all="ignore"):
            return table_from_parameters(parameters, rotary, window)
    except (KeyError, TypeError, ValueError, ArithmeticError, ConfigError) as error:
        raise ConfigError(
            f"rope.path is {rope.path}; its rope_parameters must be a form that Ropewalk reads "
            f"({type(error).__name__}: {error}); correct them, or remove them from the file"
        ) from None
