"""A free table from a file: research, and the result of `calibrate`."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods.base import RopeConfig, Rotary, Table, as_longrope


def is_number(value: object, minimum: float = sys.float_info.min) -> bool:
    """Whether a value of a file is a finite number of at least `minimum`; a bool is not."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and minimum <= value <= sys.float_info.max
    )


def _is_count(value: object) -> bool:
    return is_number(value, 1) and isinstance(value, int)


FILE_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "inv_freq": (lambda x: bool(x) and all(map(is_number, x)), "above 0 and finite"),
    "attention_factor": (is_number, "a finite number above 0"),
    "factor": (lambda x: is_number(x, 1), "a finite number of at least 1"),
    "rope_parameters": (lambda x: isinstance(x, dict), "a table of settings"),
    "rope_theta": (is_number, "a finite number above 0"),
    "original_max_position_embeddings": (_is_count, "a number of tokens"),
    "max_position_embeddings": (_is_count, "a number of tokens"),
    "calibrated_on": (lambda x: isinstance(x, list), "a list of documents"),
}
"""The keys of a table's file that are read, each with the check of its value and the rule."""


@dataclass(kw_only=True)
class TableConfig(RopeConfig):
    """A table from a file (no paper): `inv_freq`, and `attention_factor` where it is not 1.

    `ropewalk calibrate` and `ropewalk rope` write such files.
    """

    method: str = "table"
    path: str | None = None
    """JSON with `inv_freq` (d/2 numbers) and, optionally, `attention_factor`, `factor`,
    `rope_parameters`."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from super().problems(prefix)
        if self.path is None:
            yield (
                f"{prefix}path is not set; rope=table reads its frequencies from a file; give e.g. "
                "rope.path=runs/demo/calibration/rope.json"
            )

    def _unscaled_problems(self, prefix: str) -> Iterator[str]:
        """No line: the factor may come from the file."""
        yield from ()

    def read_file(self) -> dict[str, Any]:
        """The file's content without its nulls.

        Raises: ConfigError when the file is missing, has no table, or has a wrong value.
        """
        try:
            content = json.loads(Path(str(self.path)).expanduser().read_text())
            if not isinstance(content["inv_freq"], list):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ConfigError(
                f"rope.path is {self.path}; it must be JSON with a list `inv_freq` "
                f"({type(error).__name__}); give such a file"
            ) from None
        content = {key: value for key, value in content.items() if value is not None}
        for key, (is_valid, rule) in FILE_RULES.items():
            if key in content and not is_valid(content[key]):
                problem = f"its {key} must be {rule}, not {str(content[key])[:40]}"
                if key == "inv_freq":
                    problem = f"every inv_freq must be {rule}"
                raise ConfigError(f"rope.path is {self.path}; {problem}; correct the file")
        return {**content, "inv_freq": [float(x) for x in content["inv_freq"]]}

    @cached_property
    def content(self) -> dict[str, Any]:
        """`read_file`, once for this object and its copies. Raises: ConfigError."""
        return self.read_file()

    def window(self, original: int) -> int:
        """That of the setting, else of the file, where it has a factor beside it."""
        if self.max_position_embeddings is None and self.content.get("factor") is not None:
            return int(self.content.get("max_position_embeddings", super().window(original)))
        return super().window(original)

    def table(self, rotary: Rotary) -> Table:
        content = self.content
        if len(content["inv_freq"]) != rotary.dim // 2:
            raise ConfigError(
                f"rope.path is {self.path}; it has {len(content['inv_freq'])} frequencies, the "
                f"model {rotary.dim // 2}; it must be a table for this model; give another file"
            )
        if content.get("factor") not in (None, self.scale):
            raise ConfigError(
                f"rope.factor is {self.scale:g}; the table of rope.path was made for "
                f"{content['factor']:g}; they must agree; unset rope.factor"
            )
        if content.get("resting_inv_freq"):
            raise ConfigError(
                f"rope.path is {self.path}; its table switches by length, a free table does not; "
                "use its method"
            )
        return Table(np.array(content["inv_freq"]), float(content.get("attention_factor", 1.0)))

    def hf_parameters(self, rotary: Rotary) -> dict[str, Any]:
        """The file's own `rope_parameters`, else LongRoPE's with one list of divisors."""
        parameters: dict[str, Any] | None = self.content.get("rope_parameters")
        return parameters or as_longrope(self.table(rotary), self.scale, rotary)
