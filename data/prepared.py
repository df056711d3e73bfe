"""The result of the data stage before it has a place in a run's folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.manifest import Manifest, run_stage
from ropewalk.conf.artifacts.records import UNREADABLE, read_json, write_json
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.tokenizer import RunTokenizer


@dataclass(frozen=True)
class PreparedData:
    """Stores and plan in the cache, not yet named in a run's folder."""

    artifacts: dict[str, Any]
    """The names of stores and plan, and how they are read: the content of the stage."""
    tokenizer: RunTokenizer
    ledger: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        return Manifest.for_content("data", self.artifacts).fingerprint

    def write(self, output: Path, renew: bool = True) -> tuple[Manifest, str]:
        """Write the run's folder: tokenizer, ledger, and the names of stores and plan.

        Cleaning settings may change the ledger and not the training text, so the ledger of a
        finished folder is written again, unless not to `renew`. Returns the manifest and one line.
        """

        def work(temporary: Path) -> dict[str, Any]:
            tokenizers.save(self.tokenizer, temporary / "tokenizer")
            write_json(temporary / "where.json", self.artifacts)
            write_json(temporary / "ledger.json", self.ledger)
            plan = self.ledger["plan"]
            return {"sequences": plan["sequences"], "tokens": plan["tokens"]}

        names = ("tokenizer", "where.json")
        result = run_stage("data", self.artifacts, output, work, names=names)
        if renew and not self.has_ledger(output):
            path = output / "ledger.json"
            print(f"data: {path} is not this command's ledger; written again", flush=True)
            write_json(path, self.ledger)
        return result

    def has_ledger(self, output: Path) -> bool:
        """Whether the folder has this very ledger; a damaged file is none."""
        try:
            return bool(read_json(output / "ledger.json") == self.ledger)
        except UNREADABLE:
            return False
