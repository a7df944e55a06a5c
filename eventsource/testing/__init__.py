"""Test what your program does with a stream, against a real server on loopback."""

from .server import Connection, Request, SSEServer, format_event

__all__ = ["Connection", "Request", "SSEServer", "format_event"]
