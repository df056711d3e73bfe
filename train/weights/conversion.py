"""Which tensors of the files make a parameter, by transformers' own names and conversions.

transformers renames tensors while it loads them, and makes one parameter of several: the experts of
a mixture are stacked.
"""

import re
from collections.abc import Collection, Iterable

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    apply_converters,
    rename_source_key,
    revert_weight_conversion,
)

NO_CONVERSION = ""
Shapes = dict[str, tuple[int, ...]]


class Conversion:
    """The conversions of one architecture. Source: transformers.core_model_loading."""

    def __init__(self, model: PreTrainedModel) -> None:
        """`model`: on the meta device, before anything is loaded into it."""
        self.model = model
        self.parameters: dict[str, torch.Tensor] = model.state_dict()
        """Parameters and stored buffers by name, without values."""
        rules = get_model_conversion_mapping(model)
        self._renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]

    def target(self, name: str) -> tuple[str, str]:
        """Name in the model of a tensor in the files, and the pattern of its conversion."""
        renamed, pattern = self._rename(name, self._renamings, self._converters)
        if renamed not in self.parameters and name in self.parameters:
            renamed, pattern = self._rename(name, [], [])
        return renamed, pattern or NO_CONVERSION

    def _rename(
        self, name: str, renamings: list[WeightRenaming], converters: list[WeightConverter]
    ) -> tuple[str, str | None]:
        prefix = self.model.base_model_prefix
        return rename_source_key(name, renamings, converters, prefix, self.parameters)

    def sources(self, names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
        """Parameter -> pattern of the conversion -> tensors of the files. Others are left out."""
        sources: dict[str, dict[str, list[str]]] = {}
        for name in names:
            target, pattern = self.target(name)
            if target in self.parameters:
                sources.setdefault(target, {}).setdefault(pattern, []).append(name)
        return sources

    def stored(self, names: Collection[str]) -> Shapes:
        """The tensors that transformers writes for the whole model: in its own form, or in that
        which was read, whichever has more of `names`.
        """
        as_read = self.model._weight_conversions
        forms = []
        for conversions in (None, as_read):
            self.model._weight_conversions = conversions  # type: ignore[assignment]
            state = revert_weight_conversion(self.model, dict(self.parameters))
            forms.append({name: tuple(tensor.shape) for name, tensor in state.items()})
        return max(forms, key=lambda form: len(form.keys() & {*names}))


def stored_together(model: PreTrainedModel, names: Iterable[str]) -> dict[str, str]:
    """Parameter -> a name for what one conversion makes of it, and of others, when it is saved.

    Parameters that no conversion reads are left out. Source: `revert_weight_conversion` of
    transformers.core_model_loading, which reads all parameters of a model at once.
    """
    rules = getattr(model, "_weight_conversions", None)
    if rules is None:
        rules = get_model_conversion_mapping(model, add_legacy=False)
    converters = [
        reverse
        for rule in rules[::-1]
        if isinstance(reverse := rule.reverse_transform(), WeightConverter)
    ]
    pairs = ((name, *apply_converters(name, converters)) for name in names)
    return {name: target for name, target, pattern in pairs if pattern is not None}


def filled_twice(sources: dict[str, list[str]]) -> list[str]:
    """The tensors of one parameter, if they are more than it takes: a later one would be lost."""
    names = [name for of_pattern in sources.values() for name in of_pattern]
    single = any(len(n) > 1 and "*" not in pattern for pattern, n in sources.items())
    both = NO_CONVERSION in sources and len(sources) > 1
    return names if single or both else []


def is_numbered_in_full(names: list[str]) -> bool:
    """Whether names that differ in one number count it from 0 on, as the experts of a layer do."""
    numbers = [tuple(map(int, re.findall(r"\d+", name))) for name in names]
    columns = [sorted(set(column)) for column in zip(*numbers, strict=False)]
    counted = [column for column in columns if len(column) > 1]
    return not counted or counted == [list(range(len(names)))]
