"""Models of one configuration under several seeds: which they are, and their spread."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.conf.artifacts.records import fingerprint
from ropewalk.eval.measure import student
from ropewalk.eval.measure.statistics import Estimate
from ropewalk.launch.compare import facts, pairs
from ropewalk.launch.compare.measures import Measure, Values
from ropewalk.launch.compare.reading import Model


@dataclass(frozen=True)
class Group:
    """One configuration."""

    name: str
    label: str
    """For a figure: the name without what all names begin with."""
    models: Sequence[Model]

    @property
    def by_seed(self) -> dict[int, Model]:
        """The first model of each seed."""
        return {model.seed: model for model in reversed(self.models)}


def groups_of(models: Sequence[Model]) -> list[Group]:
    """In the order of their first models; a model without a training is a group of its own."""
    members: dict[str, list[Model]] = {}
    for model in models:
        members.setdefault(_configuration(model), []).append(model)
    names = [_common_name([model.name for model in part]) for part in members.values()]
    names = [
        name if names.count(name) == 1 else part[0].name
        for name, part in zip(names, members.values(), strict=True)
    ]
    return [
        Group(name, label, part)
        for name, label, part in zip(names, _labels(names), members.values(), strict=True)
    ]


def _configuration(model: Model) -> str:
    """What two runs must share to differ in nothing but their seed."""
    if not model.is_trained:
        return f"model {model.name}"
    made = facts.settings_of(model)
    kept = {key: made[key] for key in made if facts.matter(key) and key != "seed"}
    base, rope = model.reference.facts.get("identity"), model.facts.get("rope_hash")
    return fingerprint([kept, base, rope])


def _common_name(names: Sequence[str]) -> str:
    """`demo-pi` of `demo-pi-seed=0` and `demo-pi-seed=1`."""
    if len(names) == 1:
        return names[0]
    return re.sub(r"[-_.,]*(seed)?[-_.=]*\d*$", "", os.path.commonprefix(list(names))) or names[0]


def _labels(names: Sequence[str]) -> list[str]:
    """The names without the words that all of them begin with."""
    words = re.match(r".*[-_.:]", os.path.commonprefix(list(names)))
    labels = [name[words.end() :] for name in names] if words else list(names)
    return labels if len(names) > 1 and all(labels) else list(names)


def partner(model: Model, groups: Sequence[Group], baseline: Model) -> Model:
    """Of another configuration than the baseline's: the run of the baseline's configuration with
    the model's seed, where there is one; else the baseline."""
    group = next(group for group in groups if baseline in group.models)
    return baseline if model in group.models else group.by_seed.get(model.seed, baseline)


@dataclass(frozen=True)
class Spread:
    """One measure of a configuration beside the baseline's, over the seeds that both have."""

    measure: Measure
    group: str
    baseline: str
    by_seed: Mapping[int, float]
    """The difference of each seed."""
    over_documents: Estimate | None
    """Of these seeds: pairs of all seeds, a document resampled as one; None where some are
    unpaired."""
    over_seeds: Estimate
    """Of other seeds, by Student's t: it is wide, because seeds are few."""


def spreads(
    groups: Sequence[Group], baseline: Model, values: Mapping[Measure, Mapping[str, Values]]
) -> list[Spread]:
    """Of every measure and every configuration with two seeds or more that the baseline's has."""
    reference = next(group for group in groups if baseline in group.models)
    return [
        spread
        for measure, by_model in values.items()
        for group in groups
        if group is not reference
        and (spread := _spread(measure, group, reference, by_model)) is not None
    ]


def _spread(
    measure: Measure, group: Group, reference: Group, values: Mapping[str, Values]
) -> Spread | None:
    own, theirs = group.by_seed, reference.by_seed
    sides = {
        seed: (values[own[seed].name], values[theirs[seed].name])
        for seed in sorted(own.keys() & theirs.keys())
        if own[seed].name in values and theirs[seed].name in values
    }
    if len(sides) < 2 or len({part.protocol for side in sides.values() for part in side}) > 1:
        return None
    is_share = measure.unit == "share"
    by_seed = {
        seed: pairs.difference(*side, seed, is_share).estimate.value for seed, side in sides.items()
    }
    pooled = pairs.pooled([*sides.values()], min(sides))
    return Spread(
        measure, group.name, reference.name, by_seed, pooled, _student([*by_seed.values()])
    )


def _student(values: Sequence[float]) -> Estimate:
    n, mean = len(values), float(np.mean(values))
    half = student.half_width(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)
