"""What a program without logging shows."""

from __future__ import annotations

import subprocess
import sys

from tests.support import (
    LIMIT,
)


def test_without_logging_set_up_warnings_appear_on_stderr():
    program = (
        "from eventsource import EventSource\n"
        "source = EventSource('ftp://u:secret@host/', on_message=print)\n"
        "source.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT, check=True
    )
    assert done.stdout == ""
    assert "closed for good" in done.stderr
    assert "secret" not in done.stderr
