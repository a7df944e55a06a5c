"""The event stream format once more: slow, and plain enough to be believed.

The HTML standard, 9.2.5 and 9.2.6, word by word: the whole stream is decoded first,
then walked one character at a time. The property tests hold `eventsource.parser`
against this, so it shares neither code nor method with it.
"""

from __future__ import annotations

Event = tuple[str, str, str]  # type, data, last event ID
CommentLine = tuple[str]  # its text


def reference(
    data: bytes, last_event_id: str = ""
) -> tuple[list[Event], str, float | None, list[Event | CommentLine]]:
    """Interpret a whole stream, which ends where `data` ends.

    Returns:
        The events; the last event ID; the reconnection time in seconds, None if it
        was not set; and the events with the comments among them. Of what follows the
        last blank line only comments and reconnection times count.
    """
    source = _Source(last_event_id)
    characters = data.decode("utf-8", "replace")
    position = 0
    if position < len(characters) and characters[position] == "\N{ZERO WIDTH NO-BREAK SPACE}":
        position += 1
    line = ""
    while position < len(characters):
        character = characters[position]
        position += 1
        if character == "\r":
            if position < len(characters) and characters[position] == "\n":
                position += 1
            source.process_line(line)
            line = ""
        elif character == "\n":
            source.process_line(line)
            line = ""
        else:
            line += character
    events = [item for item in source.items if len(item) == 3]
    return events, source.last_event_id_string, source.reconnection_time, source.items


class _Source:
    def __init__(self, last_event_id: str) -> None:
        self.data_buffer = ""
        self.event_type_buffer = ""
        self.last_event_id_buffer = last_event_id
        self.last_event_id_string = last_event_id
        self.reconnection_time: float | None = None
        self.items: list[Event | CommentLine] = []

    def process_line(self, line: str) -> None:
        # "If the line is empty (a blank line): Dispatch the event, as defined below."
        if line == "":
            self.dispatch()
            return
        # "Collect the characters on the line before the first U+003A COLON character,
        # and let field be that string. Collect the characters on the line after the
        # first colon, and let value be that string."  Without a colon: "using the whole
        # line as the field name, and the empty string as the field value."
        field = ""
        value = ""
        colon_seen = False
        for character in line:
            if colon_seen:
                value += character
            elif character == ":":
                colon_seen = True
            else:
                field += character
        # "If value starts with a U+0020 SPACE character, remove it from value."
        if value != "" and value[0] == " ":
            value = value[1:]
        # "If the line starts with a U+003A COLON character: Ignore the line."
        if line[0] == ":":
            self.items.append((value,))
        else:
            self.process_field(field, value)

    def process_field(self, field: str, value: str) -> None:
        if field == "event":
            # "Set the event type buffer to the field value."
            self.event_type_buffer = value
        elif field == "data":
            # "Append the field value to the data buffer, then append a single U+000A
            # LINE FEED (LF) character to the data buffer."
            self.data_buffer += value
            self.data_buffer += "\n"
        elif field == "id":
            # "If the field value does not contain U+0000 NULL, then set the last event
            # ID buffer to the field value. Otherwise, ignore the field."
            for character in value:
                if character == "\0":
                    return
            self.last_event_id_buffer = value
        elif field == "retry":
            # "If the field value consists of only ASCII digits, then interpret the field
            # value as an integer in base ten, and set the event stream's reconnection
            # time to that integer. Otherwise, ignore the field."
            if value == "":
                return
            milliseconds = 0
            for character in value:
                if not "0" <= character <= "9":
                    return
                milliseconds = 10 * milliseconds + (ord(character) - ord("0"))
            self.reconnection_time = milliseconds / 1000
        # "Otherwise: The field is ignored."

    def dispatch(self) -> None:
        # "Set the last event ID string of the event source to the value of the last event
        # ID buffer. The buffer does not get reset."
        self.last_event_id_string = self.last_event_id_buffer
        # "If the data buffer is an empty string, set the data buffer and the event type
        # buffer to the empty string and return."
        if self.data_buffer == "":
            self.event_type_buffer = ""
            return
        # "If the data buffer's last character is a U+000A LINE FEED (LF) character, then
        # remove the last character from the data buffer."
        data = self.data_buffer
        if data[-1] == "\n":
            data = data[:-1]
        # The event's type is "message", unless "the event type buffer has a value other
        # than the empty string".
        event_type = "message"
        if self.event_type_buffer != "":
            event_type = self.event_type_buffer
        self.items.append((event_type, data, self.last_event_id_string))
        # "Set the data buffer and the event type buffer to the empty string."
        self.data_buffer = ""
        self.event_type_buffer = ""
