"""One server on this machine for all tests of the Hugging Face hub: it answers as that does, downloads and uploads."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(ThreadingHTTPServer):
    """Serves ``files`` (path → bytes), and notes what was asked for.

    Of those in ``cut`` it sends only so many bytes; those in ``held`` it never answers. Who has a token may make
    repositories of models and commit to them, but for what is in ``forbidden``; ``commits`` are their files, by id.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.held: set[str] = set()
        self.asked: list[str] = []
        self.forbidden: set[str] = set()
        self.commits: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.stored: dict[str, bytes] = {}  # large files, by SHA-256
        self.done = threading.Event()

    def repository(self, name: str, files: dict[str, bytes], kind: str = "datasets", commit: str = COMMIT) -> str:
        """Serve a repository (of datasets or models) as the Hugging Face hub does; the path of its files.

        Those below ``gated/`` need a licence accepted: they are listed and described, but not given.
        """
        siblings = [{"rfilename": file} for file in files]
        info = {"_id": "0", "id": name, "sha": commit, "siblings": siblings, "tags": [], "private": False}
        for place in ("", "/revision/main", f"/revision/{commit}"):
            self.files[f"/api/{kind}/{name}{place}"] = json.dumps(info).encode()
        self.files[f"/api/{kind}/{name}/auth-check"] = b""
        place = f"/{'datasets/' * (kind == 'datasets')}{name}/resolve/{commit}/"
        self.files |= {place + file: content for file, content in files.items()}
        return place

    def post(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """What huggingface_hub asks for when it uploads: status and answer."""
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if f"/api/models/{name}/auth-check" in self.files:
                return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
            if asked.get("visibility") == "private":
                self.private.add(name)
            self.repository(name, {}, "models")
            return 200, {"url": f"{self.url}/{name}"}
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for each in objects:
                if each["oid"] not in self.stored:
                    each["actions"] = {"upload": {"href": f"{self.url}/lfs/{each['oid']}"}}
            return 200, {"objects": objects}
        name, _, what = path.removeprefix("/api/models/").partition("/preupload/")
        if what:
            large = {True: "lfs", False: "regular"}
            files = [f["path"] for f in json.loads(body)["files"]]
            modes = [{"path": f, "uploadMode": large[f.endswith(".safetensors")], "shouldIgnore": False} for f in files]
            return 200, {"files": modes}
        name = name.partition("/commit/")[0]
        header, *operations = map(json.loads, body.splitlines())
        now = json.loads(self.files[f"/api/models/{name}/revision/main"])["sha"]
        if header["value"].get("parentCommit", now) != now:
            return 412, {"error": "A commit has happened since."}
        files = dict(self.commits.get(now, {}))
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "deletedFile":
                del files[value["path"]]
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        commit = hashlib.sha1(now.encode() + body).hexdigest()
        self.commits[commit] = files
        self.repository(name, files, "models", commit)
        return 200, {"commitUrl": f"{self.url}/{name}/commit/{commit}", "commitOid": commit}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        path, body = self.path.split("?")[0], self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(f"{self.command} {path}")
        allowed = str(self.headers.get("Authorization")).startswith("Bearer hf_")
        status, answer = self.server.post(path, body) if allowed else (401, {"error": "Invalid username or password."})
        self.end(status, json.dumps(answer).encode())

    def do_PUT(self) -> None:
        """A large file; its address is as good as a token."""
        self.server.asked.append(f"{self.command} {self.path}")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        refused = self.path in self.server.forbidden
        if not refused:
            self.server.stored[hashlib.sha256(content).hexdigest()] = content
        self.end(403 if refused else 200, b"{}")

    def end(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        name, _, file = path.partition("/resolve/main/")
        if file and (info := self.server.files.get(f"/api/{'' if '/datasets/' in name else 'models'}{name}")):
            path = f"{name}/resolve/{json.loads(info)['sha']}/{file}"
        if path in self.server.held:
            self.server.done.wait()
        content, api = self.server.files.get(path), path.startswith("/api/")
        gated = "/gated/" in path and (not api or path.endswith("/auth-check"))
        if content is None or gated:
            self.send_response(403 if gated else 404)
            self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound" if api else "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json" if api else "application/octet-stream")
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", path.partition("/resolve/")[2][:40] or COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content[: self.server.cut.get(path, len(content))])

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.done.set()
        running.shutdown()


def taken_for_the_hub(server: Server, patch: pytest.MonkeyPatch) -> None:
    """This process takes the server for the Hugging Face hub."""
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "ENDPOINT", server.url)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files by HTTP, not by a protocol of their own
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, which this process takes for the Hugging Face hub."""
    taken_for_the_hub(server, monkeypatch)
    return server


def shapes(tmp_path: Path, pictures: Path) -> dict[str, bytes]:
    """The files of a data set repository of the hub."""
    import datasets

    rows = datasets.load_dataset("imagefolder", data_dir=str(pictures), cache_dir=str(tmp_path / "cache"))["train"]
    rows.to_parquet(tmp_path / "rows.parquet")
    return {"README.md": b"# Shapes\n", "data/train-00000-of-00001.parquet": (tmp_path / "rows.parquet").read_bytes()}
