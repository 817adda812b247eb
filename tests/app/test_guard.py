"""Who is answered: requests under the server's own names, and of browsers only those of its own page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.app.serving import ask, connect, echo_app, form, get, post, read_answer, serving


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(echo_app(hosts=["videos.example", "2001:DB8::1"])) as port:
        yield port


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST", "localhost.", "localhost:1", "a.localhost:8000", "127.0.0.1", "127.9.9.9:80", "[::1]",
        "[0:0:0:0:0:0:0:1]:8000", "videos.example", "Videos.Example.:443", "[2001:db8:0::1]:8000",
    ],
)  # fmt: skip
def test_own_names_are_answered(port: int, host: str) -> None:
    assert ask(port, get("/healthz", f"Host: {host}")).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "128.0.0.1", "0.0.0.0",
        "127.1", "[::]", "[2001:db8::2]", "notlocalhost", "videos.example.evil", "xn--lcalhost-54a",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/healthz", "/samples", "/openapi.json"])
def test_other_names_are_refused(port: int, host: str, path: str) -> None:
    """As a page reaches the server whose own name is made to point here."""
    answer = ask(port, get(path, f"Host: {host}"))
    assert answer.status == 403
    assert host.split(":8")[0].strip("[]") in answer.error
    assert "--allow-host" in answer.error


@pytest.mark.parametrize(
    "host",
    ["", "localhost:", "localhost:8000:1", "localhost,evil.example", "a@localhost", "localhost/x", "[::1", "::1"],
)
def test_what_is_no_name_is_refused(port: int, host: str) -> None:
    answer = ask(port, get("/healthz", f"Host: {host}"))
    assert answer.status == 400
    assert answer.error


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_one_host_and_a_path_are_needed(port: int, request_: bytes) -> None:
    answer = ask(port, request_)
    assert answer.status == 400
    assert answer.error


def test_an_old_client_with_a_host_is_answered(port: int) -> None:
    assert ask(port, b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n").status == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"), ("localhost", "http://localhost:80"),
        ("[::1]:8000", "http://[::1]:8000"), ("videos.example", "https://videos.example"),
        ("videos.example:443", "https://videos.example"), ("LOCALHOST:8000", "http://localhost:8000"),
    ],
)  # fmt: skip
def test_the_own_page_is_answered(port: int, host: str, origin: str) -> None:
    request = post(form(b"hello you"), headers=f"Origin: {origin}\r\nSec-Fetch-Site: same-origin\r\n".encode())
    assert ask(port, request.replace(b"Host: localhost", b"Host: " + host.encode())).label == "hello you"


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "http://evil.example", "http://localhost:3000", "https://localhost:8000", "http://127.0.0.1:8000",
        "http://localhost:8000.evil.example", "http://localhost:8000@evil.example", "file://localhost:8000",
        "http://localhost", "chrome-extension://localhost:8000", "http://localhost:8000/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_pages_are_refused(port: int, origin: str, method: str) -> None:
    header = f"Origin: {origin}"
    own = "Host: localhost:8000"
    if method == "GET":
        answer = ask(port, get("/samples", own, header))
    else:
        request = post(form(b"hello you"), headers=f"{header}\r\n".encode())
        answer = ask(port, request.replace(b"Host: localhost", own.encode()))
    assert answer.status == 403
    assert answer.error.startswith("Origin: ")


def test_another_page_is_refused_before_its_video_is_read(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(post(b"", length=10_000, headers=b"Origin: http://evil.example\r\n"))
        assert read_answer(connection).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "other"])
def test_what_another_site_embeds_is_refused(port: int, site: str) -> None:
    for path in ("/samples", "/healthz", "/openapi.json", "/"):
        assert ask(port, get(path, f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: no-cors")).status == 403
    assert ask(port, get("/samples", f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: navigate")).status == 403
    framed = f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"
    assert ask(port, get("/", *framed)).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin", "none"])
def test_a_link_to_the_page_may_be_followed(port: int, site: str) -> None:
    assert (
        ask(port, get("/", f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")).status
        == 200
    )


ANSWERS = [
    (get("/healthz"), 200), (get("/nowhere"), 404), (get("/predict"), 405), (get("/samples/x"), 404), (get("/"), 200),
    (get("/healthz", "Host: evil.example"), 403), (b"nonsense\r\n\r\n", 400), (post(form(b"")), 422),
    (post(form(b"fail")), 500), (get("/healthz?a=1"), 422), (b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    (b"OPTIONS /predict HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", 403),
    (post(b"", length=10**12), 413), (get("/" + "a" * 400_000), 431), (post(form(b"die")), 504),
    (post(form(b"full")), 503), (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "status"), ANSWERS, ids=[str(i) for i in range(len(ANSWERS))])
def test_every_answer_has_the_same_guards(port: int, request_: bytes, status: int) -> None:
    answer = ask(port, request_)
    assert answer.status == status, answer
    if status != 200 and not request_.startswith(b"HEAD"):
        assert answer.error
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    expected = {
        "x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin", "cache-control": "no-store",
    }  # fmt: skip
    assert {name: answer.headers[name] for name in expected} == expected
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert (answer.headers["retry-after"] is not None) == (status == 503)
    assert (answer.headers["allow"] is not None) == (status == 405)
