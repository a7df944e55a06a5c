"""Waiting that any thread may end, forks, and the end of the program."""
