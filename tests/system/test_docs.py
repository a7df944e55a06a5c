"""What the README and the documentation say, done as they say it (`pages/__init__.py`)."""

from __future__ import annotations

import ast
import functools
import html
import json
import re
import runpy
import shlex
import shutil
import ssl
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from eventsource.testing import ScriptedServer
from tests import pages
from tests.pages import Reader, Wrong
from tests.support import HEAD, LIMIT, imported

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES_OF_THE_SITE = sorted(DOCS.rglob("*.md"))
PAGES = [page for page in (README, *PAGES_OF_THE_SITE) if any(pages.read(page))]

RUN_BY_THE_GATE = [
    [block for block in pages.read(README) if block.language == "sh"][int(number) - 1]
    for number in sorted(
        {*re.findall(r"readme_command (\d+)\)", (ROOT / ".ci/run").read_text("utf-8"))}
    )
]
"""Word for word, and elsewhere it would not be the same."""

pytestmark = pytest.mark.timeout(5 * LIMIT)


# --- example.com ---


def usual(connection, request):
    """Two events, and nothing more to those who have had them: so that programs end."""
    place = request.header("Last-Event-ID") or ""
    if place == "44":
        connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        return
    connection.send(HEAD + b"retry: 20\n\n")
    if place != "43":
        connection.send(b"id: 43\ndata: hello\n\n")
    connection.send(b'event: price\nid: 44\ndata: {"symbol": "ACME", "price": 101.5}\n\n')


def quiet(connection, request):
    """Stay open after an event, as most streams do."""
    connection.send(HEAD + b"id: 1\ndata: hello\n\n")
    connection.hold()


NUMBERS = ["one", "two", "three", "four", "five"]


def send_numbers(connection, place):
    """Three at first, the rest to those who have had them."""
    connection.send(HEAD + b"retry: 20\n\n")
    for number in range(place + 1, 6 if place else 4):
        connection.send_event(NUMBERS[number - 1], id=str(number))


def log(connection, request):
    send_numbers(connection, int(request.header("Last-Event-ID") or 0))
    connection.hold()


def log_in_two_parts(connection, request):
    """The same, but that the first connection ends."""
    place = int(request.header("Last-Event-ID") or 0)
    send_numbers(connection, place)
    if place:
        connection.hold()


def orders(connection, request):
    """The same for programs that end by themselves: the first who ask for more are sent away."""
    place = request.header("Last-Event-ID") or "0"
    asked = [earlier.last_event_id for earlier in connection.server.requests]
    if place == "5" or (place == "3" and asked.count("3") % 2):
        connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    else:
        send_numbers(connection, int(place))


WORDS = ["A", " stream", " does", " not", " end."]


def answer_in_tokens(connection, request):
    connection.send(HEAD)
    for word in WORDS:
        connection.send_event(json.dumps({"token": word}))
    connection.send_event("[DONE]")
    connection.hold()


def answer_in_choices(connection, request):
    assert request.header("Authorization") == "Bearer key"
    connection.send(HEAD)
    connection.send_event('{"choices": [{"delta": {"role": "assistant"}}]}')
    for word in WORDS:
        connection.send_event(json.dumps({"choices": [{"delta": {"content": word}}]}))
    connection.send_event('{"choices": [{"delta": {}, "finish_reason": "stop"}]}')
    connection.send_event('{"choices": [], "usage": {"total_tokens": 12}}')
    connection.send_event("[DONE]")
    connection.hold()


def answer_in_blocks(connection, request):
    assert request.header("X-Api-Key") == "key"
    connection.send(HEAD)
    for kind, rest in (
        ("message_start", {"message": {"role": "assistant"}}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        ("ping", {}),
        *(("content_block_delta", {"delta": {"type": "text_delta", "text": w}}) for w in WORDS),
        ("content_block_stop", {"index": 0}),
        ("message_stop", {}),
    ):
        connection.send_event(json.dumps({"type": kind, **rest}), event=kind)
    connection.hold()


def answer_in_deltas(connection, request):
    connection.send(HEAD)
    for kind, rest in (
        ("response.created", {"response": {"status": "in_progress"}}),
        *(("response.output_text.delta", {"delta": word}) for word in WORDS),
        ("response.output_text.done", {"text": "".join(WORDS)}),
        ("response.completed", {"response": {"status": "completed"}}),
    ):
        connection.send_event(json.dumps({"type": kind, **rest}), event=kind)
    connection.hold()


def respond(connection, status, *fields, body=b""):
    head = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""]
    connection.send("\r\n".join(head).encode() + body)


def refuse(connection, request):
    body = b'{"error": {"type": "authentication_error", "message": "Invalid key."}}'
    respond(connection, "401 Unauthorized", "Content-Type: application/json", body=body)


def be_busy(connection, request):
    """The first time."""
    if [earlier.path for earlier in connection.server.requests].count(request.path) == 1:
        respond(connection, "429 Too Many Requests", "Retry-After: 1")
    else:
        answer_in_tokens(connection, request)


def talk_for_long(connection, request):
    connection.send(HEAD)
    connection.send_event('{"token": "Well"}')
    connection.hold()


def say_json_rpc(event_id, **message):
    return f"id: {event_id}\ndata: {json.dumps({'jsonrpc': '2.0', **message})}\n\n".encode()


def progress(event_id, count):
    return say_json_rpc(event_id, method="notifications/progress", params={"progress": count})


def take_mcp_request(connection, request):
    """Answer with JSON; or prime the client for resuming, and leave it after a notification."""
    check_mcp(request)
    assert request.header("Accept") == "application/json, text/event-stream"
    asked = request.json()
    if asked["method"] == "tools/list":
        tools = [{"name": "weather", "description": "x" * 100_000}]  # more than an error keeps
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"tools": tools}}
        body = json.dumps(answer).encode()
        respond(connection, "200 OK", "Content-Type: application/json", body=body)
    else:
        connection.send(HEAD + b"id: 2-0\ndata:\n\nretry: 20\n\n" + progress("2-1", 1))


def resume_mcp(connection, request):
    check_mcp(request)
    assert request.header("Last-Event-ID") == "2-1"
    content = [{"type": "text", "text": "rainy"}]
    rest = progress("2-2", 2) + say_json_rpc("2-3", id=2, result={"content": content})
    connection.send(HEAD + rest)


def check_mcp(request):
    assert request.header("MCP-Protocol-Version") == "2025-11-25"
    assert request.header("Authorization") == "Bearer key"


PATHS = {
    ("GET", "/log"): log,
    ("GET", "/metered"): log_in_two_parts,
    ("GET", "/orders"): orders,
    ("GET", "/quiet"): quiet,
    ("POST", "/v1/chat"): answer_in_tokens,
    ("POST", "/v1/chat/completions"): answer_in_choices,
    ("POST", "/v1/messages"): answer_in_blocks,
    ("POST", "/v1/responses"): answer_in_deltas,
    ("POST", "/v1/refused"): refuse,
    ("POST", "/v1/busy"): be_busy,
    ("POST", "/v1/long"): talk_for_long,
    ("POST", "/mcp"): take_mcp_request,
    ("GET", "/mcp"): resume_mcp,
}
"""What `example.com` does, but for what is usual."""

OTHERWISE = {
    "docs/how-to/gui.md": {("GET", "/stream"): quiet},
}
"""By page: what it does there."""


def answers_for(page):
    paths = PATHS | OTHERWISE.get(page, {})

    def answer(connection):
        request = connection.read_request()
        paths.get((request.method, request.path), usual)(connection, request)

    return answer


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """An authority, and the file with its certificate."""
    import trustme

    maker = trustme.CA()
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    maker.cert_pem.write_to_path(str(path))
    return maker, path


@pytest.fixture(scope="session")
def server_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = [f"{part}example.{top}" for part in ("", "*.") for top in ("com", "org", "net")]
    authority[0].issue_cert(*names).configure_cert(context)
    return context


def name_of(page):
    return str(page.relative_to(ROOT))


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@needs_bash
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_says_is_so(page, tmp_path, request, authority, server_context):
    blocks = [block for block in pages.read(page) if block not in RUN_BY_THE_GATE]
    script = answers_for(name_of(page))
    with (
        ScriptedServer(script) as plain,
        ScriptedServer(script, ssl_context=server_context) as secure,
        Reader(
            tmp_path,
            {80: plain.port, 443: secure.port},
            authority[1],
            lambda: request.getfixturevalue("display"),
        ) as reader,
    ):
        reader.follow(blocks)


@pytest.mark.parametrize("page", [README, *PAGES_OF_THE_SITE], ids=name_of)
def test_no_block_of_a_page_is_overlooked(page):
    """One that is indented, and one of a language that nobody has thought of."""
    assert pages.indented_blocks(page) == []
    for block in pages.read(page):
        assert block.language in pages.RUN | pages.DATA, str(block)


def test_the_examples_are_all_shown_and_shown_as_they_are():
    shown = {block.included for block in pages.read(DOCS / "examples.md")}
    assert shown == {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")}


def test_the_page_about_handlers_shows_all_toolkits():
    toolkits = {block.toolkit for block in pages.read(DOCS / "handlers.md")}
    assert toolkits == {None, "PySide6", "gi", "tkinter", "wx"}


def test_the_gate_runs_the_readmes_commands_and_we_do_not():
    assert [block.code for block in RUN_BY_THE_GATE] == [
        "python -m pip install . && python -m eventsource demo\n",
        "python -m pip install -e '.[test]' && python -m pytest\n",
    ]


# --- What to install ---


def test_a_hint_to_install_something_works_without_an_index_that_has_this_package():
    """So messages and pages name what is missing; the package itself is a path."""
    package = [*(ROOT / "eventsource").rglob("*.py"), ROOT / "_eventsource_pytest.py"]
    texts = {path: path.read_text("utf-8") for path in (*package, README, *PAGES_OF_THE_SITE)}
    hints = [
        (name_of(path), line.strip())
        for path, text in texts.items()
        for line in text.splitlines()
        if "pip install" in line
    ]
    assert {path for path, _ in hints} >= {"eventsource/cli/__init__.py", "docs/index.md"}
    ours = {hint for hint in hints if re.search(r"install .*(?<![./])eventsource-client", hint[1])}
    later = "python -m pip install 'eventsource-client[cli,testing]'"
    assert ours == {("docs/tutorial.md", later)}
    assert (
        f"Once it is on PyPI, this is enough:\n\n```sh\n{later}\n" in (texts[DOCS / "tutorial.md"])
    )


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SEPARATE = {"tkinter", "uwsgidecorators"}
"""Not in the standard library everywhere; not a module of a distribution."""
DISTRIBUTIONS = {
    "gi": {"pygobject", "python3-gi"},
    "nats": {"nats-py"},
    "PySide6": {"pyside6", "pyside6-essentials"},
    "requests_mock": {"requests-mock"},
    "httpx_sse": {"httpx-sse"},
    "sseclient": {"sseclient", "sseclient-py"},
    "tkinter": {"python3-tk"},
    "uwsgidecorators": {"uwsgi"},
    "wx": {"wxpython", "python3-wxgtk4.0"},
}
"""By what is imported, where the names differ: one of these brings it."""
COMMANDS = {"eventsource": "click", "gunicorn": "gunicorn", "celery": "celery"}
"""What brings the commands that pages type."""


def distributions(requirement):
    """The names that a requirement of ours stands for, its extras resolved."""
    name, extras = re.fullmatch(r"([\w.-]+)(?:\[([\w,-]+)\])?.*", requirement).groups()
    own = name == PROJECT["name"] or name.startswith(".")
    found = set() if own else {name.lower()}
    for extra in (extras or "").split(",") if own and extras else []:
        for each in PROJECT["optional-dependencies"][extra]:
            found |= distributions(each)
    return found


def installed_by(page):
    """What a page tells its readers to install, in a block, in its text or by a link."""
    found = set()
    for target in links(page):
        if target.endswith("#what-to-install"):
            found |= installed_by(page.parent / target.partition("#")[0])
    for line in page.read_text("utf-8").splitlines():
        for arguments in re.findall(r"(?:pip|apt-get) install ([^`#&]+)", line):
            for argument in shlex.split(arguments):
                if not argument.startswith("-"):
                    found |= distributions(argument.replace("../eventsource-client", "."))
    return found


def imported_by(page):
    """Which modules of others the programs of a page import, and which commands it types."""
    found, own = set(), {"eventsource"}
    for block in pages.read(page):
        if block.included:
            continue
        own.add((block.title or "").removesuffix(".py"))
        if block.mark.startswith("not run: needs ") and block.language == "python":
            continue  # what a reader comes from, and has
        if block.language == "python":
            found |= {"pytest"} if block.has_tests else set()
            for node in ast.walk(ast.parse(block.code)):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add(node.module.partition(".")[0])
        elif block.language in ("sh", "console"):
            typed = re.findall(r"(?:^|\| |&& )(?:\$ )?(\w+) ", block.code, re.MULTILINE)
            found |= {COMMANDS[name] for name in typed if name in COMMANDS}
    return found - own - (sys.stdlib_module_names - SEPARATE)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_says_how_to_install_what_its_programs_import(page):
    comes_with_us = {re.split(r"[>=]", each)[0] for each in PROJECT["dependencies"]}
    has = installed_by(page) | comes_with_us
    missing = {
        name for name in imported_by(page) if not DISTRIBUTIONS.get(name, {name.lower()}) & has
    }
    assert missing == set()


# --- Links: those of the site are checked by `mkdocs build --strict`, too ---

LINKING = [*PAGES_OF_THE_SITE, *ROOT.glob("*.md"), *ROOT.glob("*/README.md")]


@functools.cache
def anchors(page):
    """The fragments that a page has on the site: of its headings, and of what it includes."""
    found, fenced = set(), False
    for line in page.read_text("utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and (heading := pages.HEADING.match(line)):
            text = re.sub(r"[^\w\s-]", "", heading["text"]).strip().lower()
            found.add(re.sub(r"[-\s]+", "-", text))
        elif not fenced and (inclusion := pages.INCLUSION.match(line)):
            found |= anchors(ROOT / inclusion["path"])
    return found


def links(page):
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_a_link_leads_somewhere(page):
    for target in links(page):
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        # Those of the reference are made from the code.
        if fragment and not fragment.startswith("eventsource."):
            assert fragment in anchors(there), target


def test_the_site_can_be_built_and_shows_defaults_by_value(tmp_path):
    """The gate builds it in any case, where this may be skipped."""
    imported("mkdocs", extra="docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=4 * LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    signatures = [
        html.unescape(re.sub("<[^>]*>", "", signature))
        for page in (tmp_path / "reference").glob("*.html")
        for signature in re.findall(
            r'<div class="[^"]*doc-signature.*?</div>', page.read_text("utf-8"), re.DOTALL
        )
    ]
    assert any("max_event_size: int = 64 * 2**20" in signature for signature in signatures)
    assert any("= ReconnectPolicy()" in signature for signature in signatures)
    assert [s for s in signatures if re.search(r"= (?!None|True|False)[A-Z][A-Z_]+\b", s)] == []


def test_the_site_links_to_the_repository_that_the_package_names(tmp_path):
    on_config = runpy.run_path(str(DOCS / "repository.py"))["on_config"]
    config = SimpleNamespace(config_file_path=str(tmp_path / "mkdocs.yml"))
    project = tmp_path / "pyproject.toml"
    project.write_text("[project]\n")
    on_config(config)
    assert not hasattr(config, "repo_url")
    project.write_text('[project.urls]\nRepository = "https://example.org/one/it"\n')
    on_config(config)
    assert (config.repo_url, config.repo_name) == ("https://example.org/one/it", "one/it")


# --- That it would be noticed ---

SERVER = """```python title="server.py"
import time

try:
    print("here", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("gone", flush=True)
```

<!-- runs on -->
```sh
python server.py
```
"""

SHOWN = "```text\n1\n```\n"
LATER = "until [ -e now ]; do sleep 0.01; done; echo more; touch done"
NOW = "```sh\ntouch now\nuntil [ -e done ]; do sleep 0.01; done\n```\n"
"""What is printed after a text, when the page goes on."""


def follow(page, folder, authority, limit=LIMIT):
    path = folder / "page.md"
    path.write_text(page, "utf-8")
    work = folder / "work"
    work.mkdir()
    with Reader(work, {}, authority[1], None, limit=limit) as reader:
        reader.follow(list(pages.read(path)))


@needs_bash
@pytest.mark.parametrize(
    "page",
    [
        "```python\nprint(6 * 7)\n```\n\nThis prints:\n\n```text\n42\n```\n",
        "```python\nprint(1, 2, 3)\nprint(4)\nprint(5)\n```\n```text\n1 … 3\n…\n5\n```\n",
        "```python\nx = 1\n```\n```python\nx += 1\n```\n## Next\n```python\nx += 1\n```\n",
        "```python\nx = 1\n```\n## Next\n```python\nassert x\n\n\ndef test_x():\n    assert x\n```\n",
        "```python\ndef test_it():\n    assert True\n```\n",
        "```console\n$ echo a\na\n$ false\n$ echo $?\n1\n```\n",
        "```sh\nmkdir new && cd new\n```\n```sh\npwd\n```\n```text\n…/new\n```\n",
        "```sh\npython -m venv .venv\n. .venv/bin/activate\npip install 'eventsource-client'\n```\n",
        "<!-- not run: it would fail -->\n```sh\nfalse\n```\n",
        "```sh\nyes | head -n 1\n```\n```text\ny\n```\n",
        "```console\n$ false | true\n$ echo $?\n0\n```\n",
        '```json\n{"a": 1}\n```\n',
        "```mermaid\nflowchart LR\n  a --> b\n```\n",
        "```ini\n[Service]\nRestart=on-failure\n```\n",
        SERVER + "```text\nhere\n```\n",
    ],
)
def test_a_page_that_is_right_is_followed(page, tmp_path, authority):
    follow(page, tmp_path, authority)


@needs_bash
@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("```python\nraise ValueError('no')\n```\n", r"page\.md.*line 2\b.*ValueError: no"),
        ("```python\nprint(6 * 7)\n```\n```text\n41\n```\n", "the page shows\n41\n.*was\n42"),
        ("```python\nx = 1\n```\n```text\n1\n```\n", "the page shows"),
        ("```python\ndef show():\n    print(1)\n```\n", "nothing was printed"),
        ("```python\nimport warnings\nwarnings.warn('old')\n```\n", "complained.*old"),
        ("## First\n```python\nx = 1\n```\n## Next\n```python\nx += 1\n```\n", "NameError"),
        ("```python\nimport sys\nsys.exit(3)\n```\n", "ended with 3"),
        ("```python\ndef test_it():\n    assert False\n```\n", "1 failed"),
        (
            "```python\ndef test_it():\n    assert False\n\n\ndef test_it():\n    pass\n```\n",
            r"the page shows\n…\n2 passed.*\n1 passed",
        ),
        (
            "```python\nclass TestIt:\n    def test_it(self):\n        assert False\n```\n",
            "1 failed",
        ),
        ('```python title="a.py"\nx = (\n```\n', "SyntaxError"),
        (
            "```python\nimport threading\n\nthreading.Timer(0.05, lambda: 1 / 0).start()\n```\n",
            "complained.*ZeroDivisionError",
        ),
        ("<!-- not run: gone -->\n```python\nx = (\n```\n", "SyntaxError"),
        ("```sh\nfalse\ntrue\n```\n", "the shell has ended"),
        ("```sh\nfalse | cat\ntrue\n```\n", "the shell has ended"),
        ("```sh\nfalse | yes | head -n 1\ntrue\n```\n", "the shell has ended"),
        ("```sh\n(exit 141)\ntrue\n```\n", "the shell has ended"),
        ("```sh\necho oh >&2\n```\n", "complained:\noh"),
        ("```sh\necho 1\n```\n```text\n2\n```\n", "the page shows\n2\n.*was\n1"),
        ("```console\n$ echo a\nb\n```\n", "the page shows\nb\n.*was\na"),
        ("```console\n$ echo a\n```\n", "the page shows"),
        ("```sh\npython -m pip install 'eventsource-client[all]'\n```\n", "no extra all"),
        ("```sh\npip install '..[all]'\n```\n", "no extra all"),
        ("```sh\npip install eventsourceclient\n```\n", "eventsourceclient: what is that?"),
        ("```text\n1\n```\n", "of what is this the output"),
        ("```json\n{a}\n```\n", "Expecting property name"),
        ("```ini\n[Service]\nRestarts=no\n```\n", "Service.Restarts"),
        ("```mermaid\nflow LR\n```\n", "unknown kind"),
        ("```sh\ntrue\n", "does not end"),
        ("~~~sh\ntrue\n~~~\n", "are ```"),
        ("<!-- not run: gone -->\n\nText.\n", "no block after it"),
        ("<!-- runs on -->\n```python\nx = 1\n```\n", "only a command"),
        ("```js\nlet x = ;\n```\n", "Unexpected token"),
        (
            "```python\nimport threading\n\nprint(1)\nthreading.Timer(0.1, print, [2]).start()\n```\n"
            + SHOWN,
            "but there was\n1\n2",
        ),
        (
            "```python\nimport threading\n\nprint(1)\n"
            "threading.Thread(target=threading.Event().wait, daemon=True).start()\n```\n" + SHOWN,
            "goes on: .*Thread",
        ),
        (f"```sh\n({LATER}) &\necho here\n```\n```text\nhere\n```\n{NOW}", "was\nhere\nmore"),
        (
            f"<!-- runs on -->\n```sh\necho here; {LATER}\n```\n```text\nhere\n```\n{NOW}",
            "was\nhere\nmore",
        ),
        (f"<!-- runs on -->\n```sh\n({LATER}) >&2\n```\n{NOW}", "complained:\nmore"),
        (SERVER + "```text\nthere\n```\n", "the page shows\nthere\n.*but there was\n"),
        (
            SERVER.replace("runs on", "runs on until SIGTERM") + "```text\nhere\n```\n",
            "ended with status 143",
        ),
        (SERVER.replace("Keyboard", "Value") + "```text\nhere\n```\n", "Traceback"),
        (
            SERVER.replace("Keyboard", "Value").replace(
                'print("here", flush=True)', 'open("done", "x").close()'
            )
            + NOW,
            "Traceback",
        ),
    ],
)
def test_a_page_that_is_wrong_is_noticed(page, reason, tmp_path, authority):
    is_waited_for = re.search("the page shows|nothing was|goes on", reason)
    limit = 0.5 if is_waited_for else LIMIT
    with pytest.raises((Wrong, ValueError, SyntaxError)) as caught:
        follow(page, tmp_path, authority, limit)
    assert re.search(reason, f"{type(caught.value).__name__}: {caught.value}", re.DOTALL)


def test_a_block_without_a_fence_is_noticed(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("Text.\n\n    x = 1\n\n- item\n\n    more of it\n\n!!! note\n\n    Text.\n")
    assert pages.indented_blocks(path) == [3]
