"""Waiting that anybody may end, forks, and the end of the program."""
