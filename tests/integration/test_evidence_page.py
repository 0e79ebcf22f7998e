"""The page of a pack in a real browser: what it shows, that it fetches nothing, and that nothing in it runs."""

import http.server
import json
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.db.session import Database
from app.services import evidence
from app.verifier.headgate_verify import read_pack
from tests.evidence import PEOPLE, approved, asked, prepared
from tests.plant import World
from tests.services import LOOPBACK

ATTACK = '<script>document.title="run"</script><img src="{url}/by-image"><style>@import "{url}/by-style";</style>'


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """An address, and all that was ever asked of it."""
    asked: list[str] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads this."""

    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Listener)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chromium(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """One run of the browser, without a screen and with a profile of its own."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "the tests of the page need Chromium: apt-get install chromium"
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [program, *quiet, profile, "--virtual-time-budget=3000", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return prepared(World(database, tmp_path))


def page_of(world: World, number: int, folder: Path) -> str:
    """The address of the page, as an auditor opens it."""
    file = folder / "index.html"
    file.write_bytes(read_pack(evidence.pack(world.core, world.store, number))["index.html"])
    return file.as_uri()


def test_the_page_is_drawn_with_its_pictures(world: World, tmp_path: Path) -> None:
    from PIL import Image

    number = approved(world, asked(world))
    shot = tmp_path / "page.png"
    address = page_of(world, number, tmp_path)
    chromium(tmp_path, "--window-size=1100,4000", f"--screenshot={shot}", "--hide-scrollbars", address)
    with Image.open(shot) as image:
        flat = image.convert("RGB").tobytes()
    colors = Counter(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
    # The box around the digest has the page's own style; the bars of a plot are in no style of the page.
    assert colors[(0xF6, 0xF7, 0xF9)] > 10_000
    assert sum(count for color, count in colors.items() if _near(color, (121, 173, 210))) > 1_000


def _near(color: tuple[int, int, int], wanted: tuple[int, int, int]) -> bool:
    return all(abs(a - b) <= 4 for a, b in zip(color, wanted, strict=True))


def test_what_people_typed_neither_runs_nor_fetches(world: World, tmp_path: Path) -> None:
    with listening() as (url, fetched):
        attack = ATTACK.format(url=url)
        number = approved(world, asked(world, attack), attack)
        document = chromium(tmp_path, "--dump-dom", page_of(world, number, tmp_path)).stdout
    assert fetched == []
    assert "<title>Evidence of promotion 1: airbnb-price 1 to production</title>" in document
    for said in (*PEOPLE, world.show(number)["digest"], "LIVE", "&lt;script&gt;document.title="):
        assert said in document


def test_the_page_keeps_out_what_got_into_it(world: World, tmp_path: Path) -> None:
    """Where escaping had failed, the page's own policy would still let nothing run and nothing out."""
    address = page_of(world, approved(world, asked(world)), tmp_path)
    file = tmp_path / "index.html"
    with listening() as (url, fetched):
        whole = file.read_text(encoding="utf-8")
        file.write_text(whole.replace("<main>", f"<main>{ATTACK.format(url=url)}"), encoding="utf-8")
        document = chromium(tmp_path, "--dump-dom", address).stdout
        assert "by-image" in document, json.dumps(document[:300])
    assert fetched == []
    assert "<title>Evidence of" in document
