"""The report's content security policy: it holds against names of others, as text and in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hostile_names import NAMES, check_page

from moevoprune import PruningProblem, evolve
from moevoprune.errors import printable
from moevoprune.fronts.report import write_report


@pytest.fixture(scope="module")
def page(small_features, quick_head, tmp_path_factory):
    """A report about objectives and classes with these names, in a folder with another, with such settings."""
    front = evolve(PruningProblem(small_features, head=quick_head, cv=2, seed=1), pop_size=6, n_gen=2, seed=1)
    names = list(NAMES.values())
    axes = tuple(replace(axis, name=name) for axis, name in zip(front.axes, names, strict=False))
    classes = tuple(printable(name)[:100] for name in (names[0], names[2], names[5]))
    folder = tmp_path_factory.mktemp("page") / "a<script>alert(1)<|script>&\"'\x1b\u202e"
    replace(front, axes=axes, class_names=classes).save(folder)
    known = "\n".join(f"k{number} = {json.dumps(name[:300])}" for number, name in enumerate(names))
    # TOML has no surrogates
    (folder / "config.toml").write_bytes(f"[data]\n{known}\n".encode("utf-8", "replace"))
    record = {
        "packages": dict.fromkeys(names, "1"),
        "python": names[0],
        "data": {"name": names[2], "sha256": names[1]},
    }
    (folder / "run.json").write_text(json.dumps({**record, "device": names[3], "moevoprune": names[4]}))
    return write_report([folder], folder / "report.html")


def policy_of(found):
    (policy,) = [
        value for tag, name, value in found.attributes if tag == "meta" and name == "content" and "-src" in value
    ]
    return dict(directive.strip().split(" ", 1) for directive in policy.split(";"))


def sha256(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_allows_its_own_script_and_style_alone(page):
    text = page.read_text(encoding="utf-8")
    found = check_page(text)
    (_, script), (style,) = found.scripts[1], found.styles
    assert policy_of(found) == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "img-src": "data:",
        "style-src": sha256(style),
        "script-src": sha256(script),
    }
    # of a policy in the page, what comes before it is not covered
    assert text.index("Content-Security-Policy") < min(
        text.index(tag) for tag in ("<title", "<link", "<style", "<script")
    )
    assert text.count("Content-Security-Policy") == 1


def test_the_data_of_the_script_are_data(page):
    text = page.read_text(encoding="utf-8")
    (attributes, data), _ = check_page(text).scripts
    assert attributes == {"type": "application/json", "id": "report-data"}
    assert not set(data) & set("<>&'")
    views = json.loads(data)["views"]
    assert views[0]["classes"] == [printable(NAMES[what])[:100] for what in ("script", "picture", "style")]


def test_the_script_makes_no_markup_of_text(page):
    script = check_page(page.read_text(encoding="utf-8")).scripts[1][1]
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "fetch(",
        "import(",
    ):
        assert way not in script


def open_page(browser, path):
    """The page, what it complained about, what it asked for, and the dialogs that it opened."""
    opened, complaints, requests, dialogs = browser.new_page(), [], [], []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    opened.goto(path.as_uri())
    return opened, complaints, requests, dialogs


def test_nothing_of_others_runs_in_a_browser(browser, page):
    opened, complaints, requests, dialogs = open_page(browser, page)
    for point in opened.locator(".points .point").all():
        point.hover(force=True)
        point.click(force=True)
    for choice in ("up", "across"):
        for option in range(opened.locator(f".choose-{choice} option").count()):
            opened.select_option(f".choose-{choice}", index=option)
    assert opened.evaluate("document.scripts.length") == 2
    assert "js" in opened.evaluate("document.documentElement.className")
    assert (complaints, dialogs) == ([], [])
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    opened.close()


@pytest.mark.parametrize(
    "injected",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<img src='EVIL/x.png'>",
        "<style>body{background:url(EVIL)}</style>",
        "<link rel=stylesheet href='EVIL/x.css'>",
        "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
        "<object data='EVIL'></object>",
        "<base href='EVIL/'><img src='x.png'>",
        "<a id=a href='javascript:alert(1)'>x</a><svg><use href='EVIL/x.svg#a'/></svg>",
        "<form action='EVIL' id=f><input name=a value=b></form>",
        "<video src='EVIL/x.mp4'></video>",
    ],
)
def test_the_policy_stops_what_would_slip_through(browser, page, listener, injected, tmp_path):
    """Should a name ever become markup, the policy is what remains."""
    address, asked = listener
    broken = tmp_path / "broken.html"
    text = page.read_text(encoding="utf-8")
    broken.write_text(text.replace("<main", f"{injected.replace('EVIL', address)}<main", 1), encoding="utf-8")
    opened, _, _, dialogs = open_page(browser, broken)
    opened.evaluate("() => { document.getElementById('a')?.click(); document.getElementById('f')?.submit(); }")
    opened.wait_for_timeout(100)
    assert dialogs == []
    assert opened.url == broken.as_uri()
    assert asked == []
    opened.close()


def test_without_the_policy_the_listener_is_asked(browser, page, listener, tmp_path):
    """The check above would notice."""
    address, asked = listener
    broken = tmp_path / "open.html"
    text = page.read_text(encoding="utf-8").replace("Content-Security-Policy", "nothing")
    broken.write_text(text.replace("<main", f"<img src='{address}/x.png'><main", 1), encoding="utf-8")
    opened = open_page(browser, broken)[0]
    opened.wait_for_timeout(100)
    opened.close()
    assert asked == ["/x.png"]


@pytest.fixture
def listener():
    """Address of a server on this machine, and the paths that it was asked for."""
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_POST = do_GET

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()
