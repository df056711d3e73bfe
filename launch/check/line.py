"""A line of the self-test: what was measured, its bar, and what to do where it fails."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = 1
PASS, FAIL, SKIP = "pass", "fail", "skip"


@dataclass(frozen=True)
class Line:
    """One verdict. Texts are for people; `status` is `pass`, `fail` or `skip`."""

    name: str
    status: str
    value: str
    """What was measured, with its unit; of a skipped line the reason."""
    bar: str = ""
    """What the value must be."""
    way_out: str = ""
    """What to do; of a failed line."""

    @classmethod
    def judged(cls, name: str, holds: bool, value: str, bar: str, way_out: str) -> "Line":
        """A line that passes if `holds`, and else has the way out."""
        return cls(name, PASS if holds else FAIL, value, bar, "" if holds else way_out)

    @classmethod
    def skipped(cls, name: str, reason: str) -> "Line":
        return cls(name, SKIP, reason)

    def text(self) -> str:
        """As the terminal shows it."""
        bar = f" (must be {self.bar})" if self.bar else ""
        way_out = f"\n      {self.way_out}" if self.way_out else ""
        return f"{self.status.upper():<4}  {self.name}: {self.value}{bar}{way_out}"


def as_json(lines: Sequence[Line], conditions: dict[str, Any]) -> dict[str, Any]:
    """The content of check.json and of `--json`. `conditions`: the machines and the mesh."""
    return {"schema": SCHEMA, "conditions": conditions, "checks": [asdict(line) for line in lines]}


def failed(lines: Sequence[Line]) -> list[str]:
    """The names of the lines that failed."""
    return [line.name for line in lines if line.status == FAIL]


def summary(lines: Sequence[Line], seconds: float) -> str:
    """The last line: how many of each verdict, in which time."""
    counts = {status: sum(x.status == status for x in lines) for status in (PASS, FAIL, SKIP)}
    listed = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return f"check: {listed}; {seconds:.0f} s"
