"""Fuzzing: `python -m fuzz --all`; see README.md."""
