"""Codings whose library is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Else an example of many bytes that fails would fail with this.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


WITHOUT_LIBRARIES = """
import sys
for name in ("brotli", "brotlicffi", "backports.zstd", "compression.zstd"):
    sys.modules[name] = None
import requests
from eventsource.http.decoding import decoder_for
for coding in ("br", "zstd"):
    try:
        decoder_for(coding).decode(b"x", 1)
    except requests.exceptions.ContentDecodingError as error:
        print(error)
"""


def test_a_coding_whose_library_is_not_installed_is_refused():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARIES], capture_output=True, check=True, text=True
    )
    assert done.stdout.splitlines() == [
        "the body cannot be decompressed: br is not installed",
        "the body cannot be decompressed: zstd is not installed",
    ]
