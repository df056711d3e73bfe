"""A stand-in of the hub's API, as far as huggingface_hub's own client calls it for a push.

The client is the real one: a wrong path, method or body here fails in it. The server keeps what it
was sent; `refusing` makes it answer one path with a status, as a closed hub would.
"""

import asyncio
import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from aiohttp import web

TOKEN = "hf_" + "x" * 34


class Hub:
    """Repositories by name: their privacy and their files."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.url = ""
        self.refusing: dict[str, tuple[int, str]] = {}
        """Part of a path -> status and the hub's own error code."""

    async def whoami(self, request: web.Request) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": "Invalid user token."}, status=401)
        return web.json_response({"type": "user", "name": "me", "orgs": []})

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = f"{body.get('organization') or 'me'}/{body['name']}"
        if name in self.repositories:
            return web.json_response({"error": "exists", "url": f"{self.url}/{name}"}, status=409)
        private = body.get("private", body.get("visibility") == "private")
        self.repositories[name] = {"private": bool(private), "files": {}}
        return web.json_response({"url": f"{self.url}/{name}", "name": name})

    async def info(self, request: web.Request) -> web.Response:
        name = self._name(request)
        if name not in self.repositories:
            headers = {"X-Error-Code": "RepoNotFound"}
            return web.json_response({"error": "no repo"}, status=404, headers=headers)
        repository = self.repositories[name]
        siblings = [{"rfilename": file} for file in repository["files"]]
        return web.json_response(
            {"id": name, "private": repository["private"], "sha": "a" * 40, "siblings": siblings}
        )

    async def validate(self, request: web.Request) -> web.Response:
        """The hub checks a card's metadata before it takes it; here that it is YAML with a dash."""
        content = (await request.json())["content"]
        values = yaml.safe_load(content.split("---")[1])
        errors = [] if isinstance(values, dict) else [{"message": "no metadata"}]
        return web.json_response({"errors": errors, "warnings": []}, status=400 if errors else 200)

    async def preupload(self, request: web.Request) -> web.Response:
        body = await request.json()
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs"
                if file["path"].endswith((".safetensors", ".bin"))
                else "regular",
                "shouldIgnore": False,
            }
            for file in body["files"]
        ]
        return web.json_response({"files": files})

    async def batch(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        objects = []
        for item in body["objects"]:
            known = item["oid"] in self.blobs
            action = {"upload": {"href": f"{self.url}/blob/{item['oid']}"}}
            objects.append({**item, **({} if known else {"actions": action})})
        return web.json_response({"transfer": "basic", "objects": objects})

    async def blob(self, request: web.Request) -> web.Response:
        content = await request.read()
        assert hashlib.sha256(content).hexdigest() == request.match_info["oid"]
        self.blobs[request.match_info["oid"]] = content
        return web.Response()

    async def commit(self, request: web.Request) -> web.Response:
        files = self.repositories[self._name(request)]["files"]
        for line in (await request.read()).splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                value = entry["value"]
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                value = entry["value"]
                files[value["path"]] = self.blobs[value["oid"]]
        url = f"{self.url}/{self._name(request)}/commit/{'b' * 40}"
        answer = {"success": True, "commitOid": "b" * 40, "commitUrl": url}
        return web.json_response(answer)

    @staticmethod
    def _name(request: web.Request) -> str:
        return f"{request.match_info['user']}/{request.match_info['name']}"

    @web.middleware
    async def note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.calls.append(f"{request.method} {request.path}")
        for part, (status, code) in self.refusing.items():
            if part in request.path:
                headers = {"X-Error-Code": code, "X-Error-Message": "refused here"}
                return web.json_response({"error": "refused"}, status=status, headers=headers)
        return await handler(request)  # type: ignore[no-any-return]

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self.note], client_max_size=1 << 30)
        model = "/api/models/{user}/{name}"
        app.add_routes(
            [
                web.get("/api/whoami-v2", self.whoami),
                web.post("/api/repos/create", self.create),
                web.post("/api/validate-yaml", self.validate),
                web.get(model, self.info),
                web.get(model + "/revision/{revision}", self.info),
                web.post(model + "/preupload/{revision}", self.preupload),
                web.post(model + "/commit/{revision}", self.commit),
                web.post("/{user}/{name}.git/info/lfs/objects/batch", self.batch),
                web.put("/blob/{oid}", self.blob),
            ]
        )
        return app


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub on a port of this machine, in a thread."""
    server, loop, ready = Hub(), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        runner = web.AppRunner(server.application())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        server.url = f"http://127.0.0.1:{port}"
        ready.set()

    def work() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
