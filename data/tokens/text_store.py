"""The token store of a text source: shards that are made by anybody, at any time, in any order, then published as one.

A shard is a finished stage in `FOLDER.tmp`, under a lock of its own beside it. The store is finished when its shards are merged.
Any number of processes may be at work in it: each makes what is neither there nor being made.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout
from tqdm import tqdm

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.disk import explain_full_disk
from ropewalk.conf.artifacts.locks import lock_of, wait_for_lock
from ropewalk.conf.artifacts.manifest import run_shared, run_stage, temporary_of, workspace
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources import SourceListing
from ropewalk.data.tokens import merge, shards, store, write
from ropewalk.data.tokens.write import TokenizeOptions


@dataclass(frozen=True)
class TextStore:
    folder: Path
    decides: dict[str, Any]
    source: SourceConfig
    listed: SourceListing
    how: TokenizeOptions
    shards: list[range]  # units of each

    @classmethod
    def of(
        cls,
        cache: Path,
        decides: dict[str, Any],
        source: SourceConfig,
        listed: SourceListing,
        how: TokenizeOptions,
    ) -> "TextStore":
        """`decides` is what the tokens of a document depend on; the rest of the fingerprint is added."""
        whole = {**decides, "shard_bytes": shards.SHARD_BYTES, "source": listed.cache_key}
        folder = cache / "tokens" / manifest.fingerprint(whole)[:16]
        return cls(
            folder, whole, source, listed, how, shards.borders([unit.size for unit in listed.units])
        )

    @property
    def name(self) -> str:
        return f"tokens of {self.how.source}"

    def missing(self) -> list[int]:
        """Shards that are not made yet."""
        return [number for number in range(len(self.shards)) if not self.has(number)]

    def has(self, number: int) -> bool:
        """Asked in this order, for a store may be published between the two."""
        return manifest.read(self._at(number)) is not None or manifest.read(self.folder) is not None

    def make(self, numbers: list[int]) -> None:
        """Make these shards, first those that no other process is making, then wait for the rest. Raises: DataError, ConfigError."""
        with explain_full_disk(self.folder):
            with lock_of(self.folder):
                if manifest.read(self.folder) is not None:
                    return
                workspace(self.folder, self.decides, resumable=True)
            for number in [n for n in numbers if not self._make_if_free(n)]:
                with wait_for_lock(self._lock(number), self._said(number)):
                    self._make(number)

    def prove(self) -> None:
        """Before a merge: hold the bytes of shards, which may come from other machines, against their manifests. A finished store
        is left alone. Raises: DataError."""
        if manifest.read(self.folder) is not None:
            return
        with ThreadPoolExecutor(self.how.workers) as pool:
            proved = pool.map(self._prove, range(len(self.shards)))
            list(
                tqdm(
                    proved,
                    total=len(self.shards),
                    unit="shard",
                    desc=f"prove {self.name}",
                    disable=None,
                )
            )

    def publish(self) -> str:
        """Merge the shards, which are all there, and finish the store. Returns the line that says so."""
        said = run_shared(self.name, self.decides, self.folder, self._merge, resumable=True)[1]
        for number in range(len(self.shards)):
            Path(lock_of(self._lock(number)).lock_file).unlink(missing_ok=True)
        return said

    def _make_if_free(self, number: int) -> bool:
        try:
            with lock_of(self._lock(number)).acquire(timeout=0):
                self._make(number)
        except Timeout:
            return False
        return True

    def _make(self, number: int) -> None:
        if self.has(number):
            return
        content = {"store": manifest.fingerprint(self.decides), "shard": number}
        print(
            run_stage(
                self._said(number), content, self._at(number), lambda t: self._write(t, number)
            )[1]
        )

    def _write(self, temporary: Path, number: int) -> dict[str, Any]:
        mine = [self.listed.units[n] for n in self.shards[number]]
        items = (item for unit in mine for item in self.listed.documents(unit))
        with tqdm(
            total=sum(u.size for u in mine),
            unit="B",
            unit_scale=True,
            desc=self._said(number),
            disable=None,
        ) as bar:
            return write.shard(temporary, items, self.how, bar.update)

    def _prove(self, number: int) -> None:
        found = manifest.read(self._at(number))
        assert found is not None, "a shard is missing"
        store.refuse_other_size(
            self._at(number),
            found.facts,
            store.dtype_for(self.how.vocab_size),
            store.delete_it(self._at(number)),
        )
        store.refuse_other_bytes(self._at(number), found.facts)

    def _merge(self, temporary: Path) -> dict[str, Any]:
        made = [
            manifest.read(temporary / shards.name(number)) for number in range(len(self.shards))
        ]
        facts = [one.facts for one in made if one is not None]
        assert len(facts) == len(made), "a shard is missing"
        return {"kind": self.listed.kind, **merge.merge(temporary, facts, self.how.vocab_size)}

    def _at(self, number: int) -> Path:
        return temporary_of(self.folder) / shards.name(number)

    def _lock(self, number: int) -> Path:
        return self.folder.with_name(f"{self.folder.name}.{shards.name(number)}")

    def _said(self, number: int) -> str:
        return f"{self.name}, shard {shards.name(number)} of {len(self.shards)}"
