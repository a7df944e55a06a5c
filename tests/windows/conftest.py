"""What stands here is started by `test_windows.py`, and may need what is not installed."""

collect_ignore_glob = ["*"]
