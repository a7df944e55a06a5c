"""`SSEServer`: a server on loopback that a test controls while clients are connected."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path
from typing import Self

from .answers import make_answer
from .blocks import check_text
from .certificate import make_certificate
from .connection import Connection
from .request import MalformedRequest, Request
from .scripted import ScriptedServer
from .site import Site
from .stream import Stream

_BAD_REQUEST = make_answer(400)
_NOT_FOUND = make_answer(404)


class SSEServer(Stream):
    r"""An HTTP server on 127.0.0.1 with event streams, for tests.

    The server is itself the stream at `/`: see `Stream` for its methods. `stream(path)` makes
    other streams. A path without a stream is answered with 404, a malformed request with 400.
    The server runs until `close()`, which `with` calls.

    Args:
        tls: True: serve TLS with a certificate made for this server (needs the extra
            `testing`); clients trust it with `verify=server.ca_file`. A context: serve TLS
            with it. False: plain HTTP.
        port: the port to listen on; 0: any free port.

    Raises:
        TypeError: `tls` is something else.
        ModuleNotFoundError: `tls=True` and trustme is not installed.
        OSError: the port cannot be used.

    Threads: every method may be called from any.

    Examples:
        >>> from eventsource import EventSource
        >>> from eventsource.testing import Recorder, SSEServer
        >>> with SSEServer() as server, EventSource(server.url, start=False) as source:
        ...     recorder = Recorder(source, "greet")
        ...     source.start()
        ...     server.send("hello", event="greet", id="7")
        ...     print(recorder.wait_for("greet").data)
        hello
    """

    def __init__(self, *, tls: bool | ssl.SSLContext = False, port: int = 0) -> None:
        if not isinstance(tls, bool | ssl.SSLContext):
            raise TypeError(f"tls must be a bool or an ssl.SSLContext, not {tls!r}")
        context: ssl.SSLContext | None = None
        authority = b""
        if isinstance(tls, ssl.SSLContext):
            context = tls
        elif tls:
            context, authority = make_certificate()
        super().__init__(Site(), "/")
        self._streams: dict[str, Stream] = {self.path: self}  # guarded by the site's lock
        self._server = ScriptedServer(self._serve, ssl_context=context, port=port)
        self._site.origin = self._server.url.removesuffix("/")
        self.port: int = self._server.port
        self.ca_file: str | None = None
        """With `tls=True`, a file with the CA certificate, for `verify`; `close()` removes
        it."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if authority:
            self._folder = tempfile.TemporaryDirectory(prefix="eventsource-")
            path = Path(self._folder.name) / "ca.pem"
            path.write_bytes(authority)
            self.ca_file = str(path)

    def stream(self, path: str) -> Stream:
        """Return the stream at a path; make it if it does not exist.

        Args:
            path: begins with `/`; without percent-encoding. A client's query is not part
                of it: `/prices` also serves `/prices?of=tea`.

        Raises:
            TypeError: the path is not a str.
            ValueError: it does not begin with `/`.
            RuntimeError: the server is closed.
        """
        check_text("path", path)
        if not path.startswith("/"):
            raise ValueError(f"path must begin with '/': {path!r}")
        with self._site.change():
            return self._streams.setdefault(path, Stream(self._site, path))

    @property
    def requests(self) -> list[Request]:
        """All requests so far, for all paths, in the order in which they came."""
        return self._site.requests()

    def _scope(self) -> str:
        return "any path"

    def close(self) -> None:
        """Close all connections, and wait until all threads have ended.

        Later calls do nothing.

        Raises:
            Exception: the first failure in the server's own threads, if there was one.
        """
        try:
            self._server.close()
        finally:
            self._site.close()
            if self._folder is not None:
                self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, connection: Connection) -> None:
        """The script of each connection."""
        try:
            request = connection.read_request()
        except MalformedRequest:
            connection.send(_BAD_REQUEST.response)
            return
        with self._site.changed:
            stream = self._streams.get(request.path)
        if stream is not None:
            stream._answer(connection, request)  # noqa: SLF001 - a base class
        else:
            self._site.note(request, _NOT_FOUND.name)
            connection.send(_NOT_FOUND.response)
