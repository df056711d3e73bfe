"""Web servers: their stamps of a file hold for one URL only."""

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources

pytest.importorskip("aiohttp", reason="the extra http is not installed")
TIME = 1_700_000_000


class Handler(SimpleHTTPRequestHandler):
    tag: str | None = None
    timed = True

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Last-Modified" or self.timed:
            super().send_header(keyword, value)

    def end_headers(self) -> None:
        if self.tag:
            self.send_header("ETag", self.tag)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""


Serve = Callable[..., str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server for a text; returns its URL."""
    running: list[ThreadingHTTPServer] = []

    def started(text: str, **headers: Any) -> str:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        (folder / "data.jsonl").write_text(text)
        os.utime(folder / "data.jsonl", (TIME, TIME))
        handler = type("Saying", (Handler,), headers)
        running.append(
            ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        )
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}/data.jsonl"

    yield started
    for server in running:
        server.shutdown()
        server.server_close()


def cache_key(url: str) -> Any:
    return sources.list_source(SourceConfig(path=url), "mine").identity(Path("unused"))


HEADERS = [{}, {"tag": '"1-1"'}, {"tag": '"v1"'}, {"timed": False}]


@pytest.mark.parametrize("headers", HEADERS, ids=["a time", "its tag", "a tag", "nothing"])
def test_two_servers_with_equal_stamps_are_two_sources(
    serve: Serve, read: Any, headers: dict[str, Any]
) -> None:
    urls = [serve(f'{{"text": "{text}"}}\n', **headers) for text in ("one", "two")]
    assert cache_key(urls[0]) != cache_key(urls[1])
    assert cache_key(urls[0]) == cache_key(urls[0])
    assert [list(read(url)[0].values()) for url in urls] == [["one"], ["two"]]


def test_a_signature_is_in_no_id_and_no_identity(serve: Serve, read: Any) -> None:
    """Signed links end in ?sig=..., with slashes in it; a file's name ends before that."""
    url = serve('{"text": "one"}\n') + "?sig=s3cr/et"
    assert read(url)[0] == {"data.jsonl@0": "one"}
    assert "s3cr" not in str(cache_key(url)) and "data.jsonl" in str(cache_key(url))
