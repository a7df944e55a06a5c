"""What `docs/comparison.md` says of this package and its peers, observed.

`clients.py` uses each client as its own documentation has it, `probes.py` asks all of them
the same questions over a socket on loopback, `page.py` knows the page, and
`python -m tests.peers` asks everything anew. `tests/system/test_peers.py` compares.
"""
