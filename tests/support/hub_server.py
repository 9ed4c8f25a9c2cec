"""A Hub of our own on the loopback: the requests that are made of the real one, and the ways in which it fails.

    GET  /api/models/{id}/revision/{revision}?blobs=true    files with sizes and hashes
    GET  /api/models/{id}/refs                              branches
    HEAD, GET  /{id}/resolve/{revision}/{file}              small files at once, large ones by redirect to the "CDN"
    GET  /{hash}                                            of the CDN, which has an origin of its own

Written from what huggingface_hub 2.4 asks and reads. Every request is kept in `requests`.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "6cee5e81ee83917806bbde320786a8fb61efebe0"
LARGE = (".safetensors", ".gguf", ".bin", "tokenizer.json")
_PIECE = 1 << 18


@dataclass
class Asked:
    """One request and how it was answered."""

    method: str
    path: str
    range: str | None
    token: str | None
    by_cdn: bool
    status: int = 0
    n_bytes: int = 0


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose path ends with `path`."""

    path: str
    times: int
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    by_cdn: bool = False
    method: str = "GET"


@dataclass
class Repository:
    """The files of a directory as a repository; `token` is what one must send to read it."""

    directory: Path
    commit: str = COMMIT
    branches: tuple[str, ...] = ("main",)
    token: str | None = None
    is_gated: bool = False
    has_blobs: bool = True
    says_hashes: bool = True
    hashes: dict[str, str] = field(default_factory=dict)
    git_hashes: dict[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        return sorted(
            path.relative_to(self.directory).as_posix() for path in self.directory.rglob("*") if path.is_file()
        )

    def sha256(self, name: str) -> str:
        if name in self.hashes:
            return self.hashes[name]
        path = self.directory / name
        return _sha256(path, path.stat().st_mtime_ns)

    def git_sha1(self, name: str) -> str:
        if name in self.git_hashes:
            return self.git_hashes[name]
        content = (self.directory / name).read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def listing(self) -> dict[str, Any]:
        siblings = []
        for name in self.names():
            entry: dict[str, Any] = {"rfilename": name}
            if self.has_blobs:
                n_bytes = (self.directory / name).stat().st_size
                entry |= {"size": n_bytes}
                if self.says_hashes:
                    is_large = name.endswith(LARGE)
                    entry["blobId"] = "0" * 40 if is_large else self.git_sha1(name)
                    if is_large:
                        entry["lfs"] = {"size": n_bytes, "sha256": self.sha256(name), "pointerSize": 135}
            siblings.append(entry)
        return {"id": "x/y", "modelId": "x/y", "sha": self.commit, "private": False, "tags": [], "siblings": siblings}


@cache
def _sha256(path: Path, mtime: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HubServer:
    """The running servers. `url` is the endpoint."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Asked] = []
        self.faults: list[Fault] = []
        self.ignores_range = False
        self._hub = self._serve(is_cdn=False)
        self._cdn = self._serve(is_cdn=True)
        self.url = f"http://127.0.0.1:{self._hub.server_address[1]}"
        self.cdn_url = f"http://localhost:{self._cdn.server_address[1]}"

    def _serve(self, *, is_cdn: bool) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "is_cdn": is_cdn})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def close(self) -> None:
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()

    def fail(self, path: str, *, times: int = 1, **how: Any) -> None:
        """Lets the next `times` requests for `path` fail, as `Fault` says."""
        self.faults.append(Fault(path, times, **how))

    def downloads(self, name: str = "") -> list[Asked]:
        """The requests that were answered with content of files, of the Hub or of the CDN."""
        return [
            asked
            for asked in self.requests
            if asked.method == "GET" and "/resolve/" in asked.path and asked.path.endswith(name)
        ]

    def served(self) -> int:
        """Bytes of files that were sent."""
        return sum(asked.n_bytes for asked in self.requests)

    def large(self, digest: str) -> Path | None:
        """The large file that the CDN has under this hash."""
        for repository in self.repositories.values():
            for name in repository.names():
                if name.endswith(LARGE) and repository.sha256(name) == digest:
                    return repository.directory / name
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    is_cdn: bool
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.asked = Asked(self.command, path, self.headers.get("Range"), token, self.is_cdn)
        self.hub.requests.append(self.asked)
        self.fault = next((fault for fault in self.hub.faults if fault.times and self._is_met_by(fault, path)), None)
        if self.fault:
            self.fault.times -= 1
            if self.fault.status is not None:
                self._send(self.fault.status, b"", self.fault.headers)
                return
        if self.is_cdn:
            found = self.hub.large(path.removeprefix("/"))
            self._refuse(404, "EntryNotFound") if found is None else self._content(found, {})
        else:
            self._route(path, token)

    def _is_met_by(self, fault: Fault, path: str) -> bool:
        return path.endswith(fault.path) and fault.by_cdn == self.is_cdn and fault.method == self.command

    def _route(self, path: str, token: str | None) -> None:
        match = re.fullmatch(
            r"/(api/models/)?([^/]+/[^/]+)/(revision|resolve|refs)(?:/([^/]+|refs/pr/\d+))?(?:/(.+))?", path
        )
        repository = self.hub.repositories.get(match[2]) if match else None
        if match is None or repository is None:
            self._refuse(401 if token is None else 404, "RepoNotFound", "Repository not found")
        elif repository.token not in (None, token) and repository.is_gated and match[3] == "resolve":
            self._refuse(401 if token is None else 403, "GatedRepo", "Access to this model is restricted")
        elif repository.token not in (None, token) and not repository.is_gated:
            self._refuse(401, None, "Invalid credentials in Authorization header") if token else self._refuse(
                401, "RepoNotFound"
            )
        elif match[3] == "refs":
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": repository.commit}
                for name in repository.branches
            ]
            self._json({"branches": branches, "tags": [], "converts": []})
        elif match[4] not in (*repository.branches, repository.commit):
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
        elif match[3] == "revision":
            self._json(repository.listing())
        elif match[5] not in repository.names():
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            self._file(repository, match[5])

    def _file(self, repository: Repository, name: str) -> None:
        path, headers = repository.directory / name, {"X-Repo-Commit": repository.commit}
        if not name.endswith(LARGE):
            self._content(path, {**headers, "ETag": f'"{repository.git_sha1(name)}"'})
            return
        digest = repository.sha256(name)
        headers |= {"X-Linked-Size": str(path.stat().st_size), "X-Linked-Etag": f'"{digest}"'}
        self._send(302, b"", {**headers, "Location": f"{self.hub.cdn_url}/{digest}"})

    def _content(self, path: Path, headers: dict[str, str]) -> None:
        total = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        begin, end = 0, total
        if asked and not self.hub.ignores_range:
            begin, end = int(asked[1]), min(total, int(asked[2]) + 1 if asked[2] else total)
            if begin >= total:
                self._send(416, b"", {"Content-Range": f"bytes */{total}"})
                return
            headers = {**headers, "Content-Range": f"bytes {begin}-{end - 1}/{total}"}
        self._start(206 if begin or end < total else 200, {**headers, "Content-Length": str(end - begin)})
        if self.command == "HEAD":
            return
        left = end - begin if self.fault is None or self.fault.cut_after is None else self.fault.cut_after
        with path.open("rb") as file:
            file.seek(begin)
            try:
                while left > 0 and (piece := file.read(min(left, _PIECE, end - file.tell()))):
                    self.wfile.write(piece)
                    self.asked.n_bytes += len(piece)
                    left -= len(piece)
            except OSError:  # the client had enough
                self.close_connection = True
        if self.fault and self.fault.cut_after is not None:
            self._cut()

    def _cut(self) -> None:
        """Ends the connection before all was sent that was announced."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str | None, message: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        self._send(status, b"", {**headers, **({"X-Error-Message": message} if message else {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._start(status, {**headers, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _start(self, status: int, headers: dict[str, str]) -> None:
        self.asked.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def hub_server(**repositories: Path) -> Iterator[HubServer]:
    """A Hub that has the directories as repositories `org/<name>`."""
    server = HubServer()
    try:
        for name, directory in repositories.items():
            server.repositories[f"org/{name}"] = Repository(directory)
        yield server
    finally:
        server.close()
