"""A Tk window with a live view of a stream: its latest events, and its ready state.

    python examples/tk_window.py http://127.0.0.1:8000/prices

`dispatch.tk(window)` has the handlers run in Tk's main loop, where they may use widgets.
So there are no threads to think of, and no queue.
"""

from __future__ import annotations

import sys
import tkinter
from tkinter import ttk

from eventsource import ErrorEvent, EventSource, MessageEvent, OpenEvent, dispatch

KEEP = 500
"""Events that the list holds at the most."""


class Window(tkinter.Tk):
    """Shows the events of one stream, for as long as it is open."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.title(f"Events of {url}")
        self.geometry("560x360")
        ttk.Style(self).theme_use("clam")

        self.events = ttk.Treeview(self, columns=("id", "type", "data"), show="headings")
        for column, width in ("id", 60), ("type", 90), ("data", 370):
            self.events.heading(column, text=column, anchor="w")
            self.events.column(column, width=width, stretch=column == "data")
        scrollbar = ttk.Scrollbar(self, command=self.events.yview)
        self.events.configure(yscrollcommand=scrollbar.set)
        self.status = ttk.Label(self, text="CONNECTING")
        self.close_button = ttk.Button(self, text="Close", command=self.destroy)

        self.columnconfigure(0, weight=1)
        self.rowconfigure(0, weight=1)
        self.events.grid(row=0, column=0, columnspan=2, sticky="nsew")
        scrollbar.grid(row=0, column=2, sticky="ns")
        self.status.grid(row=1, column=0, sticky="w", padx=8)
        self.close_button.grid(row=1, column=1, columnspan=2, padx=8, pady=8)

        self.source = EventSource(
            url,
            on_open=self.show_open,
            on_message=self.show,
            on_error=self.show_error,
            dispatch=dispatch.tk(self),
        )
        self.source.on("price", self.show)

    def show(self, event: MessageEvent) -> None:
        """Add an event to the list."""
        row = self.events.insert("", "end", values=(event.last_event_id, event.type, event.data))
        self.events.see(row)
        for oldest in self.events.get_children()[:-KEEP]:
            self.events.delete(oldest)

    def show_open(self, _: OpenEvent) -> None:
        """Say that the connection is open."""
        self.status["text"] = "OPEN"

    def show_error(self, event: ErrorEvent) -> None:
        """Say what happened, and what follows."""
        then = "" if event.retry_in is None else f"; again in {event.retry_in:.1f} s"
        self.status["text"] = f"{event.ready_state.name}: {event.error}{then}"

    def destroy(self) -> None:
        """Close the window and its source. Called by the button and by the window manager."""
        self.source.close()  # never waits
        super().destroy()


def main(url: str) -> None:
    """Show the window until it is closed."""
    window = Window(url)
    with window.source:  # its thread ends before we do, whatever ends the main loop
        window.mainloop()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/tk_window.py URL")
    main(sys.argv[1])
