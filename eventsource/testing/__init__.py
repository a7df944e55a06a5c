"""Test what your program does with a stream, against a real server on loopback."""

from .scripted import Connection, Request, ScriptedServer, format_event

__all__ = ["Connection", "Request", "ScriptedServer", "format_event"]
