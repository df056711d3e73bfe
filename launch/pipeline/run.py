"""`Run`: one run in progress, one for each phase, and the tokenizer for its data stage."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.conf.artifacts.manifest import Manifest
from ropewalk.conf.schema import Config
from ropewalk.launch.config.phases import phase_configs
from ropewalk.launch.reproduce import settings
from ropewalk.train.base import Base, base_config, locate
from ropewalk.train.rope import plan as plans
from ropewalk.train.rope.plan import RopePlan

if TYPE_CHECKING:
    from ropewalk.data.sources import SourceListing
    from ropewalk.data.stage import Inputs
    from ropewalk.data.tokenizer import RunTokenizer


@dataclass
class Run:
    """One run in progress: its settings, and the manifests of the stages that are done."""

    config: Config
    manifests: dict[str, Manifest] = field(default_factory=dict)
    command: str = ""
    previous_phase: "Run | None" = None
    """The phase whose model this one starts from."""
    listings: dict[str, "SourceListing"] = field(default_factory=dict)
    """The text sources as the preflight listed them, by name."""

    protected: bool = False
    """Whether the record in `folder` belongs to a training that stands (standing.py)."""
    shows_training: bool = False
    """Whether the command has a train stage."""
    adds_stages: bool = True
    """Whether the command may add to the record of a training that stands; a look may not."""
    aside: Path | None = None
    """The folder of this command's plan and data where they are not those of that training."""
    writers: dict[str, Callable[[Path], tuple[Manifest, str]]] = field(default_factory=dict)
    """By stage, rope and data: writes what this command made into a run's folder."""
    made: set[str] = field(default_factory=set)
    """The stages whose work this command did; the others were finished before."""
    composed: Config | None = None
    """The settings that the command was given, of all phases; None: `config`."""

    @property
    def is_followed(self) -> bool:
        """Whether another phase starts from this one's model; the last is measured."""
        return 0 < self.config.phase < len(self.config.phases)

    @property
    def folder(self) -> Path:
        return Path(self.config.runs_dir).expanduser() / self.config.name

    @property
    def output(self) -> Path:
        """Where this command writes and reads."""
        return self.aside or self.folder

    @property
    def cache(self) -> Path:
        return Path(self.config.cache_dir).expanduser()

    @cached_property
    def base(self) -> Base:
        """The base that `model` names, located once for all phases. Raises: ConfigError."""
        if self.previous_phase is not None:
            return self.previous_phase.base
        return locate(self.config.model, self.cache)

    @property
    def in_place(self) -> bool:
        """Whether this command works beside a training that stands, on its own plan and data."""
        return self.protected and self.aside is None

    @property
    def frozen(self) -> Config:
        """The settings for config.yaml: a hub model at the commit that this command resolved."""
        return self._at_commit(self.config)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings of the command as plain values; each stage's record has them."""
        return settings.values(self.given)

    @property
    def given(self) -> Config:
        """As `frozen`, the settings of the whole command: no phase is applied."""
        return self._at_commit(self.composed or self.config)

    def _at_commit(self, config: Config) -> Config:
        if self.base.path is None or self.base.revision is None:
            return config
        return replace(config, model=replace(config.model, revision=self.base.revision))

    @cached_property
    def rope_plan(self) -> RopePlan:
        """The plan that the settings make for the base. Raises: ConfigError."""
        base, window = self.base, self.config.model.sliding_window
        return plans.make(self.config.rope, base_config(base), base.name, window)

    @cached_property
    def tokenizer(self) -> "RunTokenizer | None":
        """The tokenizer that comes with the base; None for one that is trained on the sources.

        Raises: ConfigError.
        """
        if self.previous_phase is not None:
            return self.previous_phase.tokenizer
        from ropewalk.data import tokenizer as tokenizers

        base = self.base
        if base.path is None:
            return None
        return tokenizers.load(base.path, base.revision, base.trust_remote_code)

    def fingerprints(self, *stages: str) -> dict[str, str]:
        """Fingerprints of finished stages, for the fingerprint of a later stage."""
        return {stage: self.manifests[stage].fingerprint for stage in stages}


def runs_of(config: Config, command: str = "") -> list[Run]:
    """One run for each phase, each with the run before it."""
    runs: list[Run] = []
    for phase_config in phase_configs(config):
        previous = runs[-1] if runs else None
        run = Run(phase_config, command=command, previous_phase=previous, composed=config)
        runs.append(run)
    return runs


def data_inputs(run: Run) -> "Inputs":
    """The tokenizer for the data stage. Raises: ConfigError.

    A tokenizer trained on the sources is trained in the first phase and used in all: another one
    would give the same model other token ids.
    """
    from ropewalk.data.stage import Inputs

    base = run.base
    if base.path is None and run.previous_phase is not None:
        tokenizer = str(run.previous_phase.output / "data" / "tokenizer")
        return Inputs(tokenizer, listings=run.listings)
    return Inputs(base.path, base.revision, base.trust_remote_code, run.listings, run.tokenizer)
