"""The version of the package, in the lowest layer because requests send it to servers."""

__version__ = "0.2.0"
