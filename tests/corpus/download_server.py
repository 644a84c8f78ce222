"""A local HTTP server that serves files from memory, and misbehaves as told."""

import hashlib
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from megatron_biollm.corpus.download.client import Client, Politeness

HASTY = Politeness(
    connections=2, requests_per_second=1000, attempts=3, timeout_s=5, backoff_s=0.01, max_wait_s=2
)


class Server:
    """`files` are served at their paths. `faults` of a path are played once each, in order.

    A fault is a function of the handler and the body that answers in the server's place.
    `requests` holds (path with query, headers) of everything asked for.
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.faults = defaultdict(list)
        self.requests = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.http = _Http(("127.0.0.1", 0), type("H", (_Handler,), {"server_": self}))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def paths(self):
        return [path for path, _ in self.requests]

    def ranges(self, path):
        return [headers.get("Range") for p, headers in self.requests if p == path]

    def folder(self, path):
        """An Apache listing of what lies below a path."""
        rows = [
            f'<a href="{name}">{name}</a>    2026-01-15 14:05  {len(body)}\n'
            for name, body in self.inside(path).items()
        ]
        head = '<a href="?C=N;O=D">Name</a>\n<a href="/up/">Parent Directory</a>\n'
        self.files[path] = f"<html><pre>{head}{''.join(rows)}</pre></html>".encode()

    def inside(self, path):
        below = {p.removeprefix(path): b for p, b in self.files.items() if p.startswith(path)}
        return {name: body for name, body in below.items() if name and "/" not in name}

    def add_with_md5(self, path, body):
        name = path.rpartition("/")[2]
        self.files[path] = body
        self.files[path + ".md5"] = f"MD5({name})= {md5(body)}\n".encode()


class _Http(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        server = self.server_
        with server.lock:
            server.requests.append((self.path, dict(self.headers)))
            faults = server.faults[self.path]
            fault = faults.pop(0) if faults else plainly
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            body = server.files.get(self.path) or server.files.get(
                unquote(urlsplit(self.path).path)
            )
            answer(self, 404, b"gone") if body is None else fault(self, body)
        finally:
            with server.lock:
                server.at_once -= 1

    def log_message(self, *_):
        pass


def answer(handler, status, body, **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def plainly(handler, body):
    """As a good server does: ETag, ranges, If-Range."""
    tag, start = etag(body), handler.headers.get("Range")
    if not start or handler.headers.get("If-Range") != tag:
        return answer(handler, 200, body, ETag=tag)
    first = int(start.removeprefix("bytes=").rstrip("-"))
    if first >= len(body):
        return answer(handler, 416, b"", Content_Range=f"bytes */{len(body)}")
    span = f"bytes {first}-{len(body) - 1}/{len(body)}"
    return answer(handler, 206, body[first:], ETag=tag, Content_Range=span)


def cut(after):
    """Promises the whole file and breaks the connection after so many bytes."""

    def fault(handler, body):
        handler.send_response(200)
        handler.send_header("ETag", etag(body))
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:after])
        handler.wfile.flush()
        handler.close_connection = True

    return fault


def busy(status=503, **headers):
    return lambda handler, body: answer(handler, status, b"later", **headers)


def ignoring_ranges(handler, body):
    answer(handler, 200, body, ETag=etag(body))


def slowly(seconds):
    def fault(handler, body):
        time.sleep(seconds)
        plainly(handler, body)

    return fault


def etag(body):
    return f'"{md5(body)}"'


def md5(body):
    return hashlib.md5(body).hexdigest()


def hasty_client(**changed):
    return Client(Politeness(**{**vars(HASTY), **changed}))
