"""Observes what `docs/comparison.md` says about this package and its peers.

`clients.py` uses each client as its own documentation says, `probes.py` tests all of them in
the same way over a socket on loopback, and `page.py` reads and writes the page.
`python -m tests.peers` observes everything again; `tests/system/test_peers.py` compares.
"""
