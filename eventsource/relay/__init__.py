"""One stream into a log that many can read."""
