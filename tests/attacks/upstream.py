"""A registry of the test's own: it serves what it was given, and remembers every request line that reached it."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final


@dataclass
class Upstream:
    """The registry, at `url`. `files` and `redirects` are by path; `seen` are request lines as they came."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def publish(self, project: str, filename: str, content: bytes) -> None:
        """Puts a distribution into the index of a project."""
        digest = hashlib.sha256(content).hexdigest()
        path = f"/packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{filename}"
        # The registry's own form: two bytes, two bytes, sixty digits.
        assert len(digest[4:]) == len("0" * 60)
        self.files[path] = content
        page = {
            "meta": {"api-version": "1.1"},
            "name": project,
            "versions": ["1.0"],
            "files": [
                {"filename": filename, "url": f"{self.url}{path}", "hashes": {"sha256": digest}, "size": len(content)}
            ],
        }
        self.files[f"/simple/{project}/"] = json.dumps(page).encode()


@contextmanager
def serve() -> Iterator[Upstream]:
    """A registry on a port of loopback."""
    upstream = Upstream()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def parse_request(self) -> bool:
            line: bytes = vars(self)["raw_requestline"]
            upstream.seen.append(line.decode("latin-1").rstrip("\r\n"))
            return super().parse_request()

        def do_GET(self) -> None:
            content = upstream.files.get(self.path)
            elsewhere = upstream.redirects.get(self.path)
            self.send_response(302 if elsewhere else 404 if content is None else 200)
            if elsewhere:
                self.send_header("Location", elsewhere)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        do_HEAD = do_GET  # noqa: N815 - the library's way to name a handler

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    upstream.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()


METADATA: Final = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


def wheel(name: str, modules: Mapping[str, str]) -> bytes:
    """A wheel with these modules, by path."""
    information = f"{name}-1.0.dist-info"
    files = {
        **modules,
        f"{information}/METADATA": METADATA.format(name=name),
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in files.items())
    files[f"{information}/RECORD"] = f"{record}{information}/RECORD,,\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return packed.getvalue()


def sdist(name: str, backend: str) -> bytes:
    """A source distribution whose build backend is its own: code that an install runs."""
    project = f'[project]\nname = "{name}"\nversion = "1.0"\n'
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {"PKG-INFO": METADATA.format(name=name), "pyproject.toml": project + build, "backend.py": backend}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-1.0/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
