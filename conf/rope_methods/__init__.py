"""One class for each RoPE method: its settings, rules, table and Hugging Face form. Pure numpy.

base.py           RopeConfig, the base class and rope=none; Rotary, Table and shared formulas
interpolation.py  PI, NTK-aware, dynamic NTK, ABF
by_parts.py       NTK-by-parts, YaRN, Llama 3
longrope.py       LongRoPE
table.py          a table from a file

To add a method, write one subclass of `RopeConfig` that sets `method`, declares its settings with
`setting(...)` and defines `table` and `hf_parameters` (and `problems`, for conditions over several
settings), list it in `ROPE_METHODS`, and add one YAML in conf/rope/. Where transformers has no type
for the table, `hf_parameters` writes it as LongRoPE: `as_longrope` for one table,
`longrope_parameters` for a short and a long one. A table that changes with every length cannot be
expressed: `Table` holds two at most.
"""

from ropewalk.conf.rope_methods.base import RopeConfig, Rotary, Table
from ropewalk.conf.rope_methods.by_parts import Llama3Config, NTKByPartsConfig, YarnConfig
from ropewalk.conf.rope_methods.interpolation import ABFConfig, DynamicConfig, NTKConfig, PIConfig
from ropewalk.conf.rope_methods.longrope import LongRopeConfig
from ropewalk.conf.rope_methods.table import TableConfig

__all__ = [
    "ROPE_METHODS",
    "ABFConfig",
    "DynamicConfig",
    "Llama3Config",
    "LongRopeConfig",
    "NTKByPartsConfig",
    "NTKConfig",
    "PIConfig",
    "RopeConfig",
    "Rotary",
    "Table",
    "TableConfig",
    "YarnConfig",
]

ROPE_METHODS: dict[str, type[RopeConfig]] = {
    config.method: config
    for config in (
        RopeConfig,
        PIConfig,
        NTKConfig,
        DynamicConfig,
        NTKByPartsConfig,
        YarnConfig,
        Llama3Config,
        LongRopeConfig,
        ABFConfig,
        TableConfig,
    )
}
