"""A Qt window with a live view of a stream: its latest events, and its ready state.

    python -m pip install PySide6-Essentials
    python examples/qt_window.py http://127.0.0.1:8000/prices

`dispatch.qt(window)` has the handlers run in the window's thread, where they may use
widgets. So there are no threads to think of, and no signals to declare.
"""

from __future__ import annotations

import sys

from PySide6.QtGui import QCloseEvent
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from eventsource import ErrorEvent, EventSource, MessageEvent, OpenEvent, dispatch

KEEP = 500
"""Events that the list holds at the most."""


class Window(QWidget):
    """Shows the events of one stream, for as long as it is open."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.setWindowTitle(f"Events of {url}")
        self.resize(560, 360)

        self.events = QTreeWidget()
        self.events.setHeaderLabels(["id", "type", "data"])
        self.events.setRootIsDecorated(False)
        self.events.setColumnWidth(0, 60)
        self.events.setColumnWidth(1, 90)
        self.status = QLabel("CONNECTING", wordWrap=True)
        self.close_button = QPushButton("Close")
        self.close_button.clicked.connect(self.close)

        layout = QVBoxLayout(self)
        layout.addWidget(self.events)
        bottom = QHBoxLayout()
        bottom.addWidget(self.status, stretch=1)
        bottom.addWidget(self.close_button)
        layout.addLayout(bottom)

        self.source = EventSource(
            url,
            on_open=self.show_open,
            on_message=self.show_event,
            on_error=self.show_error,
            dispatch=dispatch.qt(self),
        )
        self.source.on("price", self.show_event)

    def show_event(self, event: MessageEvent) -> None:
        """Add an event to the list."""
        item = QTreeWidgetItem([event.last_event_id, event.type, event.data])
        self.events.addTopLevelItem(item)
        self.events.scrollToItem(item)
        while self.events.topLevelItemCount() > KEEP:
            self.events.takeTopLevelItem(0)

    def show_open(self, _: OpenEvent) -> None:
        """Say that the connection is open."""
        self.status.setText("OPEN")

    def show_error(self, event: ErrorEvent) -> None:
        """Say what happened, and what follows."""
        then = "" if event.retry_in is None else f"; again in {event.retry_in:.1f} s"
        self.status.setText(f"{event.ready_state.name}: {event.error}{then}")

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802 - Qt's name
        """Close the source with the window, whoever closes that."""
        self.source.close()  # never waits
        super().closeEvent(event)


def main(url: str) -> None:
    """Show the window until it is closed."""
    app = QApplication.instance() or QApplication([])
    window = Window(url)
    with window.source:  # its thread ends before we do, whatever ends the event loop
        window.show()
        app.exec()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/qt_window.py URL")
    main(sys.argv[1])
