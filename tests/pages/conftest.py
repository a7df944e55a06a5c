"""`on_path/` is for the programs of the pages, and does something when it is imported."""

collect_ignore = ["on_path"]
