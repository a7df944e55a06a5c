"""A relay in a process of its own, which may be killed: `python -m tests.relay.program ...`.

Its log lines go to standard error.
"""

from __future__ import annotations

import argparse
import logging
import signal

from eventsource import relay as package
from eventsource.relay import Relay

COMPARISONS = {
    "fence": "if state[1] ~= ARGV[1] then return 'owner' end",
    "place": "if (state[2] or '') ~= ARGV[2] or count ~= ARGV[3] then return 'place' end",
}


def leave_out(*names):
    """Have the script not compare that: for the controls, which must fail."""
    from eventsource.relay import redis as module

    for name in names:
        assert COMPARISONS[name] in module._APPEND
        module._APPEND = module._APPEND.replace(COMPARISONS[name], "")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("log")
    parser.add_argument("name")
    parser.add_argument("--lease", type=float, default=0.3)
    parser.add_argument("--without", action="append", default=[])
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    leave_out(*arguments.without)
    kind = package.JetStream if arguments.log.startswith("nats") else package.RedisStream
    sink = kind(arguments.log, arguments.name, timeout=5.0)
    relay = Relay(arguments.url, sink, lease=arguments.lease)
    signal.signal(signal.SIGTERM, lambda *_: relay.close())
    relay.run()


if __name__ == "__main__":
    main()
