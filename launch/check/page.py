"""The lines of a self-test as a page of its own, in the style of the report."""

from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment

from ropewalk.conf.schema import Config
from ropewalk.launch.check.line import FAIL, Line, failed

PAGE = "index.html"


def page(config: Config, world_size: int, lines: Sequence[Line]) -> str:
    """Self-contained HTML; failed lines come first, the others in their order."""
    names, train = failed(lines), config.train
    template = (resources.files(__package__) / "check.html.j2").read_text(encoding="utf-8")
    ordered = sorted(lines, key=lambda line: line.status != FAIL)
    verdict = f"{len(names)} failed: {', '.join(names)}" if names else "Nothing failed"
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        name=config.name,
        ranks=f"{world_size} ranks, train.sp_size {train.sp_size}, ZeRO {train.zero_stage}, "
        f"{train.precision}, length {config.data.seq_len:,}",
        failed=bool(names),
        verdict=verdict,
        lines=ordered,
    )
