"""The version of the package, at the bottom: requests tell it to servers."""

__version__ = "0.1.0"
