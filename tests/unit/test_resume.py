"""`ResumeFile`: whatever happens, the file has the last event ID of before or that of after."""

from __future__ import annotations

import os
import socket

import pytest

from eventsource import ResumeFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "place"


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def test_what_is_saved_is_loaded_by_another(path):
    file = ResumeFile(path)
    for last_event_id, content in (("7", b"7\n"), ("größer 8", "größer 8\n".encode()), ("", b"\n")):
        file.save(last_event_id)
        assert path.read_bytes() == content
        assert ResumeFile(str(path)).load() == last_event_id
        assert names(path.parent) == ["place"]


def test_without_a_file_there_is_no_id_and_to_load_makes_none(path):
    assert ResumeFile(path).load() == ""
    assert names(path.parent) == []


@pytest.mark.parametrize(
    ("content", "last_event_id"),
    [(b"", ""), (b"\n", ""), (b"7", "7"), (b"7\n", "7"), (b" 7 \n", " 7 "), (b"\xe2\x82\xac", "€")],
)
def test_the_id_is_the_line_as_it_is(path, content, last_event_id):
    path.write_bytes(content)
    assert ResumeFile(path).load() == last_event_id


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"7\n8\n", r"the last event ID must not contain '\n' (index 1): '7\n8'"),
        (b"7\r\n", r"the last event ID must not contain '\r' (index 1): '7\r'"),
        (b"a\0b\n", r"the last event ID must not contain '\x00' (index 1): 'a\x00b'"),
        (b"ab\xff\n", "byte 2 is not UTF-8, so this is not a last event ID"),
        (b"\xe2\x82", "byte 0 is not UTF-8, so this is not a last event ID"),
    ],
)
def test_a_file_with_something_else_is_refused_and_left_alone(path, content, reason):
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        ResumeFile(path).load()
    assert type(caught.value) is ValueError
    assert str(caught.value) == reason
    assert path.read_bytes() == content


# --- When it is written ---


def test_an_id_that_has_been_saved_is_not_written_again(path):
    file = ResumeFile(path)
    file.save("7")
    written = path.stat()
    file.save("7")
    assert path.stat() == written
    file.save("8")
    assert path.stat().st_ino != written.st_ino  # another file has taken its place
    file.save("7")
    assert path.read_bytes() == b"7\n"


def test_the_first_id_is_written_though_the_file_has_it(path):
    """So that a program knows from the beginning that it can be written."""
    path.write_bytes(b"7\n")
    file = ResumeFile(path)
    file.save(file.load())
    path.with_name("place.new").mkdir()
    other = ResumeFile(path)
    with pytest.raises(IsADirectoryError):
        other.save(other.load())


def test_a_symbolic_link_remains_one(tmp_path, path):
    (tmp_path / "elsewhere").mkdir()
    path.symlink_to(tmp_path / "elsewhere" / "target")
    ResumeFile(path).save("7")
    assert path.is_symlink()
    assert names(tmp_path / "elsewhere") == ["target"]
    assert names(tmp_path) == ["elsewhere", "place"]
    assert ResumeFile(path).load() == "7"


def test_a_program_that_changes_its_directory_keeps_the_file(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    file = ResumeFile("place")
    file.save("7")
    monkeypatch.chdir("other")
    file.save("8")
    assert (file.load(), (tmp_path / "place").read_bytes()) == ("8", b"8\n")
    assert names(tmp_path / "other") == []


# --- What goes wrong ---


@pytest.mark.parametrize(
    ("last_event_id", "kind", "reason"),
    [
        (None, TypeError, "last_event_id must be a str, not None"),
        (7, TypeError, "last_event_id must be a str, not 7"),
        (b"7", TypeError, "last_event_id must be a str, not b'7'"),
        ("a\nb", ValueError, r"last_event_id must not contain '\n' (index 1): 'a\nb'"),
        ("a\r", ValueError, r"last_event_id must not contain '\r' (index 1): 'a\r'"),
        ("\0", ValueError, r"last_event_id must not contain '\x00' (index 0): '\x00'"),
        ("\ud800", ValueError, r"last_event_id must not contain '\ud800' (index 0): '\ud800'"),
    ],
)
def test_what_is_no_last_event_id_is_not_saved(path, last_event_id, kind, reason):
    file = ResumeFile(path)
    file.save("7")
    with pytest.raises(kind) as caught:
        file.save(last_event_id)
    assert str(caught.value) == reason
    assert file.load() == "7"
    assert names(path.parent) == ["place"]


def test_a_file_that_cannot_be_read_or_written_is_an_os_error(tmp_path):
    nowhere = ResumeFile(tmp_path / "missing" / "place")
    assert nowhere.load() == ""
    with pytest.raises(FileNotFoundError):
        nowhere.save("7")
    folder = ResumeFile(tmp_path)
    with pytest.raises(IsADirectoryError):
        folder.load()
    with pytest.raises(OSError, match=r"directory|exists|busy"):
        folder.save("7")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
@pytest.mark.parametrize("which", ["fifo", "socket", "link", os.devnull])
def test_what_is_no_regular_file_is_refused_and_left_alone(tmp_path, monkeypatch, which):
    """A FIFO would be waited for, and renaming would replace it, or the device."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    os.mkfifo("fifo")
    (tmp_path / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("socket")
    path = tmp_path / which
    before = path.lstat()
    file = ResumeFile(path)
    with pytest.raises(OSError, match="not a regular file") as caught:
        file.load()
    assert caught.value.filename == os.path.realpath(path)
    with pytest.raises(OSError, match="not a regular file"):
        file.save("7")
    after = path.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert names(tmp_path) == ["fifo", "link", "socket"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
@pytest.mark.parametrize("which", ["fifo", "link"])
def test_a_new_file_is_not_written_through_what_stands_there(path, which):
    """To a FIFO, which would be waited for; nor through a link to another file."""
    file = ResumeFile(path)
    file.save("7")
    new = path.with_name("place.new")
    other = path.with_name("other")
    other.write_bytes(b"theirs")
    if which == "fifo":
        os.mkfifo(new)
    else:
        new.symlink_to(other)
    with pytest.raises(OSError, match="not a regular file") as caught:
        file.save("8")
    assert caught.value.filename == os.path.realpath(path) + ".new"
    assert (file.load(), other.read_bytes()) == ("7", b"theirs")
    new.unlink()
    file.save("8")
    assert file.load() == "8"


def test_an_id_that_could_not_be_saved_is_saved_by_the_next_call(path):
    file = ResumeFile(path)
    file.save("7")
    new = path.with_name("place.new")
    new.mkdir()
    with pytest.raises(IsADirectoryError):
        file.save("8")
    assert file.load() == "7"
    new.rmdir()
    file.save("8")
    assert file.load() == "8"


@pytest.mark.parametrize("error", [OSError("on purpose"), KeyboardInterrupt()])
def test_what_interrupts_the_renaming_leaves_the_old_id(path, monkeypatch, error):
    def fail(*_):
        raise error

    file = ResumeFile(path)
    file.save("7")
    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(os, "replace", fail)
        file.save("8")
    assert file.load() == "7"
    file.save("8")
    assert file.load() == "8"
