"""The token store of a text source: shards made by any process, at any time, in any order.

A shard is a finished stage in `FOLDER.tmp`, under its own lock next to it; each process makes the
shards that are neither finished nor locked. Merging the shards finishes the store.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout
from tqdm import tqdm

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.disk import explain_full_disk
from ropewalk.conf.artifacts.locks import lock_of, wait_for_lock
from ropewalk.conf.artifacts.manifest import run_shared, run_stage, temporary_folder, workspace
from ropewalk.conf.artifacts.records import remove
from ropewalk.conf.artifacts.verify import find_damage
from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources import GroupedListing, SourceListing
from ropewalk.data.tokens import shards, store
from ropewalk.data.tokens.merge import merge
from ropewalk.data.tokens.write import TokenizeOptions, write_shard


@dataclass(frozen=True)
class TextStore:
    folder: Path
    cache_key: dict[str, Any]
    source: SourceConfig
    listing: SourceListing | GroupedListing
    options: TokenizeOptions
    shards: list[range]  # the units of each shard

    @classmethod
    def from_listing(
        cls,
        cache: Path,
        cache_key: dict[str, Any],
        source: SourceConfig,
        listing: SourceListing | GroupedListing,
        options: TokenizeOptions,
    ) -> "TextStore":
        """`cache_key` holds what a document's tokens depend on; source and shard size are added."""
        source_identity = listing.identity(cache)
        full_key = {**cache_key, "shard_bytes": shards.SHARD_BYTES, "source": source_identity}
        folder = cache / "tokens" / manifest.fingerprint(full_key)[:16]
        borders = shards.borders([unit.size for unit in listing.units])
        return cls(folder, full_key, source, listing, options, borders)

    @property
    def name(self) -> str:
        return f"tokens of {self.options.source}"

    def missing(self) -> list[int]:
        """The shards that are not made yet."""
        # in this order: another process may publish the store between the two reads
        numbers = [n for n in range(len(self.shards)) if manifest.read(self._shard(n)) is None]
        return numbers if numbers and manifest.finished(self.folder) is None else []

    def make(self, numbers: list[int]) -> None:
        """Make shards, first those that no other process is making, and wait for the others.

        Of a damaged store its undamaged shards are kept. Raises: DataError, ConfigError.
        """
        with explain_full_disk(self.folder):
            with lock_of(self.folder):
                store_manifest, damaged = manifest.undamaged(self.name, self.folder)
                if store_manifest is not None:
                    return
                workspace(self.folder, self.cache_key, True, self._reuse, damaged)
            for number in [n for n in numbers if not self._make_if_unlocked(n)]:
                with wait_for_lock(self._lock(number), self._label(number)):
                    self._make(number)

    def verify(self) -> None:
        """Compare the bytes of shards, which other machines may have made, with their manifests.

        Does nothing for a finished store. Raises: DataError.
        """
        if manifest.read(self.folder) is not None:
            return
        count = len(self.shards)
        with ThreadPoolExecutor(self.options.workers) as pool:
            verified = pool.map(self._verify, range(count))
            label = f"verify {self.name}"
            list(tqdm(verified, total=count, unit="shard", desc=label, disable=None))

    def publish(self) -> str:
        """Merge the shards, all of which exist, into the finished store. Returns a log line."""
        line = run_shared(
            self.name, self.cache_key, self.folder, self._merge, resumable=True, reuse=self._reuse
        )[1]
        for number in range(len(self.shards)):
            Path(lock_of(self._lock(number)).lock_file).unlink(missing_ok=True)
        return line

    def _make_if_unlocked(self, number: int) -> bool:
        try:
            with lock_of(self._lock(number)).acquire(timeout=0):
                self._make(number)
        except Timeout:
            return False
        return True

    def _make(self, number: int) -> None:
        shard = self._shard(number)
        # in this order: another process may publish the store between the two reads
        if manifest.finished(shard) is not None or manifest.read(self.folder) is not None:
            return
        if os.path.lexists(shard):
            print(f"{self._label(number)}: {shard} is damaged; made again", flush=True)
            remove(shard)
        content = {"store": manifest.fingerprint(self.cache_key), "shard": number}

        def work(temporary: Path) -> dict[str, Any]:
            return self._write(temporary, number)

        print(run_stage(self._label(number), content, shard, work)[1])

    def _reuse(self, damaged: Path, temporary: Path) -> None:
        """Move the undamaged shards of a store into its workspace."""
        for name in map(shards.folder_name, range(len(self.shards))):
            if manifest.finished(damaged / name) and not os.path.lexists(temporary / name):
                os.replace(damaged / name, temporary / name)

    def _write(self, temporary: Path, number: int) -> dict[str, Any]:
        units = [self.listing.units[n] for n in self.shards[number]]
        items = (item for unit in units for item in self.listing.documents(unit))
        size, label = sum(unit.size for unit in units), self._label(number)
        with tqdm(total=size, unit="B", unit_scale=True, desc=label, disable=None) as bar:
            return write_shard(temporary, items, self.options, bar.update)

    def _verify(self, number: int) -> None:
        shard = self._shard(number)
        finished = manifest.read(shard)
        assert finished is not None, "a shard is missing"
        dtype = store.dtype_for(self.options.vocab_size)
        store.verify_size(shard, finished.facts, dtype, store.delete_and_rerun(shard))
        store.verify_sha256(shard, finished.facts)
        others = {name: digest for name, digest in finished.files.items() if name != store.TOKENS}
        if damage := find_damage(shard, others):
            raise DataError(f"{shard}/{damage}; {store.delete_and_rerun(shard)}")

    def _merge(self, temporary: Path) -> dict[str, Any]:
        shard_metadata = []
        for number in range(len(self.shards)):
            finished = manifest.read(temporary / shards.folder_name(number))
            assert finished is not None, "a shard is missing"
            shard_metadata.append(finished.facts)
        merged = merge(temporary, shard_metadata, self.options.vocab_size)
        return {"kind": self.listing.kind, **merged}

    def _shard(self, number: int) -> Path:
        return temporary_folder(self.folder) / shards.folder_name(number)

    def _lock(self, number: int) -> Path:
        return self.folder.with_name(f"{self.folder.name}.{shards.folder_name(number)}")

    def _label(self, number: int) -> str:
        return f"{self.name}, shard {shards.folder_name(number)} of {len(self.shards)}"
