"""The server: threads on one address, loopback unless told otherwise."""

import contextlib
import ipaddress
import os
import secrets
import signal
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from megatron_biollm.config import UserError
from megatron_biollm.feedback.database import open_database
from megatron_biollm.feedback.web.app import LOOPBACK_HOSTS, create_app
from megatron_biollm.log import get_logger


class _Handler(WSGIRequestHandler):
    """Logs what failed, and never what was asked for by whom."""

    # Seconds of silence after which a browser that sends nothing more is given up.
    timeout = 30

    def log(self, type: str, message: str, *args: object) -> None:
        if type == "error":
            get_logger(__name__).warning(message, *args)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def version_string(self) -> str:
        return "feedback"


def read_secret(database: str | Path) -> bytes:
    """The key that signs sessions, beside the database and readable by its owner alone.

    Raises:
        UserError: others may read the file, so that they could pose as any annotator.
    """
    path = Path(f"{database}.secret")
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
    if path.stat().st_mode & 0o077:
        raise UserError(
            f"{path} can be read by others, who could pose as any annotator; remove it (everybody "
            "has to log in again) and start anew"
        )
    secret = path.read_bytes()
    if len(secret) < 32:
        raise UserError(f"{path} is cut short; remove it (everybody has to log in again)")
    return secret


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_feedback_server(
    database: str | Path,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    names: Sequence[str] = (),
    certificate: Optional[tuple[str, str]] = None,
    secure_cookies: bool = False,
) -> BaseWSGIServer:
    """A server that is bound and not yet serving.

    Args:
        host: address to bind; anything but loopback is warned of.
        port: 0 takes a free one, which is then the server's `port`.
        names: further names under which browsers may ask for it.
        certificate: files of a TLS certificate and its key, for HTTPS.
        secure_cookies: also without `certificate`, behind a proxy that speaks HTTPS.

    Raises:
        UserError: the port is taken, or the address is not of this machine.
    """
    secure = secure_cookies or certificate is not None
    if not is_loopback(host):
        _warn(host, secure, [*_names(host), *names])
    for file in certificate or ():
        if not Path(file).is_file():
            raise UserError(f"{file} does not exist; give the PEM files of certificate and key")
    app = create_app(
        database,
        secret=read_secret(database),
        secure_cookies=secure,
        hosts=[*_names(host), *names],
    )
    with _listener(host, port) as listener:
        # The server holds a duplicate of it.
        server = make_server(
            host, port, app, threaded=True, request_handler=_Handler, ssl_context=certificate,
            fd=listener.fileno(),
        )  # fmt: skip
        server.port = listener.getsockname()[1]
    # What has begun is finished before the server closes.
    server.daemon_threads = False
    return server


def _names(host: str) -> list[str]:
    """What may stand in the address bar of a browser that asks for `host`."""
    if host in ("0.0.0.0", "::"):
        # Not its full name, for which a resolver would be asked.
        return [*LOOPBACK_HOSTS, socket.gethostname()]
    return [*LOOPBACK_HOSTS, f"[{host}]" if ":" in host else host]


def _listener(host: str, port: int) -> socket.socket:
    """Bound here, since werkzeug would end the process where the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port or --host"
        ) from error


def _warn(host: str, secure: bool, names: Sequence[str]) -> None:
    logger = get_logger(__name__)
    logger.warning("%s is reachable from other machines, not from this one alone", host)
    if not secure:
        logger.warning(
            "passwords and texts cross the network unencrypted: give --tls-cert and --tls-key, or "
            "put a proxy with HTTPS before it and give --secure-cookies"
        )
    logger.info("it answers to %s in the address bar; --name adds another", ", ".join(names))


def serve(server: BaseWSGIServer, scheme: str = "http") -> None:
    """Serves until SIGINT or SIGTERM; requests that have begun are finished."""
    host = f"[{server.host}]" if ":" in server.host else server.host

    def stop(*_: object) -> None:
        # shutdown() waits for the loop, which runs in this thread.
        threading.Thread(target=server.shutdown).start()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # Held open, so that the write-ahead log is not wound up after every single request.
        with contextlib.closing(open_database(server.app.config["DATABASE"])):
            get_logger(__name__).info("open %s://%s:%d in a browser", scheme, host, server.port)
            server.serve_forever()
    finally:
        server.server_close()
        for number, handler in previous.items():
            signal.signal(number, handler)
