"""One server on this machine for all tests of downloads: it answers as the Hugging Face hub does."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(ThreadingHTTPServer):
    """Serves ``files`` (path → bytes), and notes what was asked for.

    Of those in ``cut`` it sends only so many bytes; those in ``held`` it never answers.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.held: set[str] = set()
        self.asked: list[str] = []
        self.done = threading.Event()

    def repository(self, name: str, files: dict[str, bytes], kind: str = "datasets", commit: str = COMMIT) -> str:
        """Serve a repository (of datasets or models) as the Hugging Face hub does; the path of its files.

        Those below ``gated/`` need a licence accepted: they are listed and described, but not given.
        """
        siblings = [{"rfilename": file} for file in files]
        info = {"_id": "0", "id": name, "sha": commit, "siblings": siblings, "tags": [], "private": False}
        for revision in ("main", commit):
            self.files[f"/api/{kind}/{name}/revision/{revision}"] = json.dumps(info).encode()
        self.files[f"/api/{kind}/{name}/auth-check"] = b""
        place = f"/{'datasets/' * (kind == 'datasets')}{name}/resolve/{commit}/"
        self.files |= {place + file: content for file, content in files.items()}
        return place


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(f"{self.command} {path}")
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


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.done.set()
        running.shutdown()


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, which this process takes for the Hugging Face hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return server


def shapes(tmp_path: Path, pictures: Path) -> dict[str, bytes]:
    """The files of a data set repository of the hub."""
    import datasets

    rows = datasets.load_dataset("imagefolder", data_dir=str(pictures), cache_dir=str(tmp_path / "cache"))["train"]
    rows.to_parquet(tmp_path / "rows.parquet")
    return {"README.md": b"# Shapes\n", "data/train-00000-of-00001.parquet": (tmp_path / "rows.parquet").read_bytes()}
