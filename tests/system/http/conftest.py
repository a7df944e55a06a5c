"""As for the tests of exchanges on the loopback."""

from tests.loopback.http.conftest import authority_file  # noqa: F401 - a fixture
