"""Runs programs of the pages, each in a process of its own: `python nursery.py`.

It has imported what nearly all of them import, and forks for each: so a program begins in a
hundredth of a second. A task is a line of JSON on standard input; the answer is a line with the
process ID. When the program has ended, its exit status is in the file `ended`. With `python nursery.py
TASK` it runs the one program in this very process, with a reader who closes its window when that
shows the text `seen`: so such a program ends only when it has told its user.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def run(task: dict[str, Any]) -> None:
    """Be the program."""
    os.chdir(task["folder"])
    sys.argv = [task["file"], *task["arguments"]]
    sys.path[0] = task["folder"]
    if task["toolkit"]:
        sys.path.insert(0, str(Path(__file__).parent))
        import session

        del sys.path[0]
        session.SEEN = task["seen"]
        session.on_shown = lambda: print(task["seen"], flush=True)
        session.CLOSE[task["toolkit"]](lambda: False)
    names = {"__name__": "__main__", "__file__": task["file"]}
    for code, line in task["blocks"]:
        text = "\n" * line + code
        exec(compile(text, task["file"], "exec", dont_inherit=True), names)  # noqa: S102


def main() -> None:
    """Fork for each task, one after another."""
    import eventsource  # noqa: F401 - for the programs

    while line := os.read(0, 1 << 20):  # they are asked for one at a time
        task = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for number, name in enumerate((os.devnull, task["out"], task["err"])):
                descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
                os.dup2(descriptor, number)
                os.close(descriptor)
            run(task)
            return
        os.write(1, f"{pid}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        note = Path(f"{task['ended']}.new")
        note.write_text(str(status), "utf-8")
        note.rename(task["ended"])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(json.loads(sys.argv[1]))
    else:
        main()
