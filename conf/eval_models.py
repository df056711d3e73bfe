"""Settings of the models that eval measures, and the columns that are compared."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

OF_RUN = ("base", "rescaled", "extended")
"""The columns of a run that trains."""
_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,39}", re.ASCII)


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
                f"{prefix}models.{name} names a column; a name has letters, digits, dashes and "
                "underscores, 40 at most; e.g. llama-3_1"
            )
        elif of_run and name in OF_RUN:
            yield (
                f"{prefix}models.{name} has the name of a column of the run; names must differ; "
                f"rename it, or set {prefix}run_models=false"
            )


def reference_column(asked: str | None, columns: Sequence[str]) -> str:
    """The column that the others are compared with. `asked`: `eval.reference`."""
    return asked or ("base" if "base" in columns else columns[0])


def judged_column(asked: str | None, columns: Sequence[str], reference: str) -> str | None:
    """The column that gates and answers are about; None where there is only the reference.

    `asked`: `eval.judged`, where it is among `columns`.
    """
    others = [name for name in columns if name != reference]
    for name in (asked, "extended"):
        if name in others:
            return name
    return others[-1] if others else None


def column_problems(
    asked: Mapping[str, str | None], columns: Sequence[str], prefix: str
) -> Iterator[str]:
    """Of the settings that name a column: each must be there, and the judged one must not be the
    reference. `asked`: by setting."""
    for key, name in asked.items():
        if name is not None and name not in columns:
            yield (
                f"{prefix}{key} is {name}; it must be a column that is measured; one of "
                f"{', '.join(columns)}"
            )
    reference = reference_column(asked["reference"], columns)
    if asked["judged"] is not None and asked["judged"] == reference:
        yield (
            f"{prefix}judged is {reference}; it must be another column than the one that it is "
            f"compared with; set another, or {prefix}reference"
        )
