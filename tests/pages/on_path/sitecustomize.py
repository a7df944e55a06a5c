"""The network of the pages: Python imports this first in each process that a page starts.

`example.com` and its relatives are servers of the test on loopback; any other name is not found.
A server of the reader's own is given a free port for the one that the page says, which somebody
else may be using, and is found there. `PAGES_NETWORK` is a folder with a file for each
such port: its name is the port as shown, its content the real one.
"""

import os
import socket
from pathlib import Path

_PORTS = Path(os.environ["PAGES_NETWORK"])
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "", None)
_EXAMPLES = ("example.com", "example.org", "example.net")
_getaddrinfo = socket.getaddrinfo
_bind = socket.socket.bind


def _real(port):
    file = _PORTS / str(port)
    return int(file.read_text()) if file.exists() else port


def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002 - its name
    """Find the servers of the test under the names that pages use."""
    name = host.decode() if isinstance(host, bytes) else host
    if name not in _LOOPBACK and not name.lower().endswith(_EXAMPLES):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    if not flags & socket.AI_PASSIVE:
        port = _real(port)
    return _getaddrinfo("127.0.0.1", port, family, type, proto, flags)


def bind(self, address):
    """Take any port, and note for which one it stands."""
    if not isinstance(address, tuple) or not address[1]:
        _bind(self, address)
        return
    host, port, *rest = address
    _bind(self, (host, 0, *rest))
    note = _PORTS / f"{port}.new"
    note.write_text(str(self.getsockname()[1]))
    note.rename(_PORTS / str(port))


socket.getaddrinfo = getaddrinfo
socket.socket.bind = bind
