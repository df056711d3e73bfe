"""Settings of the models that eval measures beside those of the run."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

OF_RUN = ("base", "rescaled", "extended")
"""The columns of a run that trains."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,39}", re.ASCII)


@dataclass(kw_only=True)
class EvalModelConfig:
    """A model that is measured as it is."""

    path: str
    """Folder, hub name, or `builtin:demo`."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    gguf_file: str | None = None
    """A GGUF file inside `path`; it is dequantised once and kept in the cache."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off: such a model is refused."""
    rope: str | None = None
    """A rope.json that `ropewalk rope` wrote for this model: it is measured under that plan;
    unset: under the rope of its own config."""
    beyond_window: bool = False
    """Measure it also at more tokens than its config or plan has; the results say so. Off: such a
    model is refused."""


def problems(models: Mapping[str, EvalModelConfig], of_run: bool, prefix: str) -> Iterator[str]:
    """`of_run`: the run's own columns stand beside these."""
    for name in models:
        if not _NAME.fullmatch(name):
            yield (
                f"{prefix}models.{name} names a column; a name has letters, digits, dots, dashes "
                "and underscores, 40 at most; e.g. llama-3.1"
            )
        elif of_run and name in OF_RUN:
            yield (
                f"{prefix}models.{name} has the name of a column of the run; names must differ; "
                f"rename it, or set {prefix}run_models=false"
            )
