"""The dashboard below a path, behind a proxy that strips the path."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, expect

from shared.access.passwords import password_entry
from tests.browser.look import Shown, fill_in
from tests.harness import HOST, free_port, running_dashboard

_ROOT = "/app"


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class _StrippingProxy:
    """Passes one request per connection on, with the root stripped from its path.

    It adds the headers that Traefik adds by itself, which must not count the path twice.
    """

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._port = free_port()
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://{HOST}:{self._port}{_ROOT}"

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        async with await asyncio.start_server(self._serve, HOST, self._port):
            await self._stopped.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, rest = head.split(" ", 2)
        if not path.startswith(f"{_ROOT}/"):
            writer.write(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            writer.close()
            return
        if "\r\nupgrade:" not in rest.lower():
            rest = rest.replace("Connection: keep-alive", "Connection: close")
        version, _, fields = rest.partition("\r\n")
        upstream_reader, upstream = await asyncio.open_connection(HOST, self._upstream_port)
        passed = f"{method} {path.removeprefix(_ROOT)} {version}\r\n"
        passed += f"X-Forwarded-Prefix: {_ROOT}\r\nX-Forwarded-For: 203.0.113.7\r\n{fields}"
        upstream.write(passed.encode("latin-1"))
        await asyncio.gather(_pass_on(reader, upstream), _pass_on(upstream_reader, writer))


@pytest.fixture(scope="module", params=["", HOST], ids=["untrusted", "trusted"])
def below_url(shown: Shown, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of the dashboard behind the proxy."""
    with (
        running_dashboard(
            shown.system,
            logs=shown.logs / f"below-{request.param}",
            DASHBOARD_PASSWORD=password_entry("correct horse"),
            BATCH_URL=shown.batch_url,
            ROOT_PATH=_ROOT,
            FORWARDED_ALLOW_IPS=request.param,
        ) as url,
        _StrippingProxy(urlsplit(url).port or 0) as below,
    ):
        yield below


def test_every_page_works_below_a_path(
    open_context: Callable[..., BrowserContext], below_url: str
) -> None:
    """Signing in and out, files, the open connection, links, forms, downloads and redirects."""
    context = open_context()
    missing: list[str] = []
    context.on(
        "response",
        lambda answer: missing.append(answer.url) if answer.status in (404, 500) else None,
    )
    page = context.new_page()
    page.goto(f"{below_url}/statistics")
    page.get_by_label("Password or API key").fill("correct horse")
    page.keyboard.press("Enter")
    expect(page.locator('dd[data-value="total"]')).to_be_visible()
    assert page.url == f"{below_url}/statistics"
    assert [cookie["path"] for cookie in context.cookies()] == [_ROOT]
    page.get_by_role("link", name="Decide").click()
    fill_in(page)
    page.get_by_role("button", name="Decide", exact=True).click()
    expect(page.locator('[data-value="prediction"]')).to_be_visible()
    page.get_by_role("link", name="See the record").click()
    expect(page.get_by_role("heading", name="One decision")).to_be_visible()
    expect(page.locator('[data-value="prediction"]')).to_be_visible()
    page.get_by_role("link", name="History").click()
    with page.expect_download():
        page.get_by_role("link", name="Download as CSV").click()
    page.get_by_role("link", name="Models").click()
    image = page.locator('figure img[src$="roc.png"]')
    image.scroll_into_view_if_needed()
    expect(image).to_have_js_property("complete", value=True)
    assert image.evaluate("(image) => image.naturalWidth") > 100
    page.get_by_role("link", name="Batch").click()
    page.get_by_label("File of applications").set_input_files(
        {"name": "new.csv", "mimeType": "text/csv", "buffer": b"ApplicantIncome\n5000\n"}
    )
    page.get_by_role("button", name="Check the file").click()
    page.get_by_role("button", name="Decide 1 application").click()
    expect(page.get_by_role("link", name="Download decisions")).to_be_visible()
    assert page.url.startswith(f"{below_url}/batch?batch=")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.url == f"{below_url}/login"
    assert missing == []
