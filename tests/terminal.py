"""A program in a real pseudo-terminal: what it looks like, and a picture of that."""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading

import pyte
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.support import LIMIT, wait_until

LAUNCHER = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"
"""Makes the terminal the one that the program belongs to, so that Ctrl-C reaches it."""
SEQUENCE = re.compile(rb"\x1b\[[0-9;?]*[@-~]")
"""A whole escape sequence, of those that are used."""
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Rich has them fetched from elsewhere, which a picture in a page may not do."""
SETTINGS = (
    *("NO_COLOR", "FORCE_COLOR", "COLORTERM", "CLICOLOR", "COLUMNS", "LINES", "PYTHONIOENCODING"),
    *("TTY_COMPATIBLE", "TTY_INTERACTIVE", "LC_ALL", "LC_CTYPE", "PYTHONUNBUFFERED"),
)
"""Of the environment, what has a say in how a terminal is used."""

THEME = TerminalTheme(
    (30, 34, 42),
    (220, 223, 228),
    [
        *((30, 34, 42), (224, 108, 117), (152, 195, 121), (229, 192, 123)),
        *((97, 175, 239), (198, 120, 221), (86, 182, 194), (220, 223, 228)),
    ],
    [
        *((92, 99, 112), (240, 130, 138), (170, 215, 140), (240, 205, 140)),
        *((120, 190, 250), (214, 140, 235), (105, 200, 210), (255, 255, 255)),
    ],
)


def environment(**changes):
    """The environment of a program that is tested, as a plain terminal would have it."""
    settings = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    settings |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", "TZ": "UTC"} | changes
    return {name: value for name, value in settings.items() if value is not None}


class _Screen(pyte.Screen):
    """Remembers what `dim` is, which pyte does not know: it is kept as blinking."""

    def select_graphic_rendition(self, *attrs, **kwargs):
        if not {38, 48} & {*attrs}:  # after these, numbers are parts of colours
            attrs = [5 if attr == 2 else attr for attr in attrs]
        super().select_graphic_rendition(*attrs, **kwargs)


class Terminal:
    """A Python program with a terminal of its own, and what is to be seen on it.

    Args:
        *arguments: of the Python interpreter.
        columns, rows: its size.
        env: changes of the environment; None takes a variable away.
        stdin, stdout, stderr: what is not the terminal, as for `subprocess.Popen`.
    """

    python = (sys.executable,)

    def __init__(
        self, *arguments, columns=80, rows=24, env=None, stdin=None, stdout=None, stderr=None
    ):
        self._master, slave = pty.openpty()
        self.raw = bytearray()
        self._screen = _Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()  # guards the screen
        self._size(columns, rows)
        self._go_on = threading.Event()
        self._go_on.set()
        launcher = LAUNCHER.replace("login_tty(0)", "login_tty(int(sys.argv.pop()))")
        if stdin is None and stdout is None and stderr is None:
            launcher = LAUNCHER
        else:  # login_tty would take all three
            launcher = (
                "import fcntl, os, sys, termios; os.setsid();"
                "fcntl.ioctl(int(sys.argv.pop()), termios.TIOCSCTTY, 0);"
                "os.execv(sys.argv[1], sys.argv[1:])"
            )
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", launcher, sys.executable, *arguments),
                *([] if launcher is LAUNCHER else [str(slave)]),
            ],
            stdin=slave if stdin is None else stdin,
            stdout=slave if stdout is None else stdout,
            stderr=slave if stderr is None else stderr,
            env=environment(**(env or {})),
            pass_fds=[slave],
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, name="sse-terminal", daemon=True)
        self._reader.start()

    def _read(self):
        while self._go_on.wait():
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                return
            if not data:
                return
            with self._lock:
                self.raw += data
                self._stream.feed(data)

    def _size(self, columns, rows):
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def resize(self, columns, rows=24):
        """Make it another size, and tell the program."""
        with self._lock:
            self._screen.resize(rows, columns)
        self._size(columns, rows)

    def type(self, keys):
        """Press keys: `"\\x03"` is Ctrl-C."""
        os.write(self._master, keys.encode())

    def stop_reading(self):
        """From now on, read nothing: the program will be blocked."""
        self._go_on.clear()

    def read_on(self):
        self._go_on.set()

    @property
    def lines(self):
        """What is to be seen, without spaces at the ends."""
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self):
        return "\n".join(self.lines).rstrip("\n")

    @property
    def status(self):
        """The line of status: the last one with something in it, if it is one."""
        last = self.text.rpartition("\n")[2]
        return last if last.startswith("●") else ""

    def wait_for(self, what):
        """Wait until a text is to be seen, or a function of the terminal is true."""
        met = what if callable(what) else lambda terminal: what in terminal.text
        try:
            wait_until(lambda: met(self), repr(what))
        except AssertionError as error:
            raise AssertionError(f"{error}; there was:\n{self.text}") from None

    def finish(self):
        """Wait until the program has ended and all it wrote is here; return its status."""
        status = self.process.wait(LIMIT)
        self._go_on.set()
        self._reader.join(LIMIT)
        return status

    def assert_in_order(self):
        """The program has left the terminal as it found it, but for what it printed."""
        assert b"\x1b" not in SEQUENCE.sub(b"", bytes(self.raw)), bytes(self.raw)
        with self._lock:
            self.assert_plain()
            assert self._screen.cursor.x == 0
        assert not self.status

    def assert_plain(self):
        """The cursor is to be seen, and what is printed next has no attributes."""
        assert not self._screen.cursor.hidden
        assert self._screen.cursor.attrs == self._screen.default_char

    def picture(self, path, title, *, last=None, replacements=()):
        """Draw it as an SVG file, the same for the same contents.

        Args:
            last: how many lines, from the end; None: all that have something in them.
            replacements: pairs of a pattern and a text of the same length, for what
                differs from time to time.
        """
        with self._lock:
            size = self._screen.columns
            cells = [
                [self._screen.buffer[y][x] for x in range(size)] for y in range(self._screen.lines)
            ]
        end = max(y for y, line in enumerate(cells) if any(c.data != " " for c in line)) + 1
        cells = cells[end - (last or end) : end]
        console = Console(
            file=io.StringIO(), record=True, width=size, force_terminal=True, legacy_windows=False
        )
        for line in cells:
            content = "".join(cell.data for cell in line)
            for pattern, text in replacements:
                content = re.sub(pattern, text, content)
            assert len(content) == len(line)
            text = Text(no_wrap=True)
            styles = map(_style, line)
            for style, run in itertools.groupby(zip(content, styles, strict=True), lambda c: c[1]):
                text.append("".join(character for character, _ in run), style)
            text.rstrip()
            console.print(text, soft_wrap=True)
        svg = console.export_svg(title=title, theme=THEME, unique_id=path.stem)
        svg = FONTS.sub("", svg)
        path.write_text(svg, encoding="utf-8")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self._go_on.set()
        self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        with contextlib.suppress(OSError):
            os.close(self._master)

    def send_signal(self, number: signal.Signals):
        self.process.send_signal(number)


def _style(cell):
    names = {"brown": "yellow", "default": "default"}
    colour = names.get(cell.fg, cell.fg)
    colour = colour.replace("bright", "bright_").replace("bright_brown", "bright_yellow")
    if re.fullmatch("[0-9a-f]{6}", colour):
        colour = f"#{colour}"
    words = [colour]
    words += ["bold"] if cell.bold else []
    words += ["italic"] if cell.italics else []
    words += ["dim"] if cell.blink else []
    return " ".join(words)


def command(*arguments, **options):
    """`eventsource` with these arguments in a terminal."""
    return Terminal("-m", "eventsource", *arguments, **options)
