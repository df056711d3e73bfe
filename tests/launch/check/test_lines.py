"""Lines of the self-test: as text, as JSON for programs, and as a page."""

import re

from ropewalk.launch.check.line import Line, as_json, failed, summary
from ropewalk.launch.check.page import page
from ropewalk.launch.config.compose import compose

GOOD = Line.judged("disk", True, "9 GiB free", "at least 3 GiB", "make room")
BAD = Line.judged("/dev/shm", False, "16 <MiB> free", "at least 32 MiB", "raise --shm-size")
LEFT_OUT = Line.skipped("GPU", "no CUDA device")
LINES = [GOOD, BAD, LEFT_OUT]


def test_the_text_of_each_verdict() -> None:
    assert GOOD.text() == "PASS  disk: 9 GiB free (must be at least 3 GiB)"
    first, way_out = BAD.text().splitlines()
    assert first.startswith("FAIL  /dev/shm: 16") and way_out.strip() == "raise --shm-size"
    assert LEFT_OUT.text() == "SKIP  GPU: no CUDA device"
    assert summary(LINES, 12.4) == "check: 1 pass, 1 fail, 1 skip; 12 s"
    assert failed(LINES) == ["/dev/shm"]


def test_programs_read_the_agreed_keys() -> None:
    """DESIGN: {schema, checks: [{name, status: pass|fail|skip, value, bar, way_out}]}."""
    content = as_json(LINES, {"ranks": 2})
    assert content["schema"] == 1
    assert [set(entry) for entry in content["checks"]] == [
        {"name", "status", "value", "bar", "way_out"}
    ] * 3
    assert [entry["status"] for entry in content["checks"]] == ["pass", "fail", "skip"]
    assert content["checks"][0]["way_out"] == ""


def test_the_page_shows_what_failed_first_and_escapes_it() -> None:
    html = page(compose(["recipe=demo"]), 4, LINES)
    names = re.findall(r'<th scope="row">([^<]*)</th>', html)
    assert names == ["/dev/shm", "disk", "GPU"]
    assert "1 failed: /dev/shm" in html and "16 &lt;MiB&gt; free" in html
    assert "<script" not in html and "http-equiv" in html
    assert "Nothing failed" in page(compose(["recipe=demo"]), 4, [GOOD, LEFT_OUT])
