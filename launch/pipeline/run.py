"""One run while it goes."""

from dataclasses import dataclass
from pathlib import Path

from ropewalk.conf.artifacts.manifest import Manifest
from ropewalk.conf.schema import Config


@dataclass
class Run:
    """One run while it goes: its folder, and what the finished stages said."""

    config: Config
    done: dict[str, Manifest]
    command: str = ""
    before: "Run | None" = None
    """The phase whose model this one starts from."""

    @property
    def folder(self) -> Path:
        return Path(self.config.runs_dir).expanduser() / self.config.name

    @property
    def cache(self) -> Path:
        return Path(self.config.cache_dir).expanduser()

    def marks(self, *stages: str) -> dict[str, str]:
        """Fingerprints of finished stages: what a later stage's fingerprint is made of."""
        return {stage: self.done[stage].fingerprint for stage in stages}
