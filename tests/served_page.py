"""A served index of fifty documents, some of them hostile, and a Chromium that watches its page."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

DUPMAE = (sys.executable, "-m", "dupmae")

EVIL = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
EVIL_ID = f'../"{EVIL}'
ANIMALS = ("whale", "dolphin", "heron", "badger", "salmon", "eagle", "otter", "beetle", "viper")
PLACES = ("in cold seas", "near rivers", "in old forests", "on high mountains", "under dry sand")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_WATCH = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => {
      window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
    });
"""


def chromium() -> str | None:
    """Return where Chromium is, if it is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def documents() -> list[dict[str, Any]]:
    """Return the corpus: animals and places, and a document that tries to run what it says."""
    rows: list[dict[str, Any]] = [
        {
            "_id": f"{animal}-{number}",
            "title": f"The {animal} {place}",
            "text": f"A {animal} lives {place} and looks for food. The {animal} sleeps at night.",
            "kind": animal,
            "year": 2000 + number,
            "tags": ["wild", place.split()[-1]],
        }
        for animal in ANIMALS
        for number, place in enumerate(PLACES)
    ]
    hostile = {
        "_id": EVIL_ID,
        "title": f"Scripts {EVIL}",
        "text": f"Scripts run where 🐋 pages trust them: {EVIL} scripts are text here.",
        "kind": EVIL,
        "<b>key</b>": EVIL,
    }
    plain = [
        {"_id": f"plain {n}", "text": f"Number {n} has no title and no key."} for n in range(4)
    ]
    return [*rows, hostile, *plain]


def index_documents(folder: Path) -> Path:
    """Index the documents with the shipped encoder and return the index."""
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in documents()), encoding="utf-8")
    index = folder / "animals"
    subprocess.run(
        [*DUPMAE, "index", str(corpus), "--index", str(index)], check=True, capture_output=True
    )
    return index


@contextmanager
def serving(*indexes: str) -> Iterator[str]:
    """Serve indexes, each a folder or a name and a folder, and yield the server's address."""
    chosen = [part for index in indexes for part in ("--index", index)]
    with subprocess.Popen(
        [*DUPMAE, "serve", *chosen, "--port", "0"], stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            yield next(line.split()[-1] for line in server.stderr if "http://" in line)
        finally:
            server.terminate()
            server.communicate(timeout=30)


class Tab:
    """A tab of the browser; `errors` gathers what its console complains of."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(reduced_motion="reduce", **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.address = address
        self.errors: list[str] = []
        self.page.add_init_script(_WATCH)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        # A refused request is shown by the page and not wrong; the browser notes it all the same.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def open(self, **parameters: Any) -> Any:
        """Go to an address of the page."""
        query = f"/?{urlencode(parameters, doseq=True)}" if parameters else "/"
        self.page.goto(self.address + query)
        return self.page

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """Ask the server itself."""
        answer = self.context.request.post(self.address + path, data=body)
        assert answer.ok, answer.text()
        return answer.json()

    def close(self) -> None:
        """Close the tab, of which nothing may have gone wrong."""
        violations = self.page.evaluate("window.violations")
        pwned = self.page.evaluate("window.pwned")
        self.context.close()
        assert self.errors == []
        assert violations == []
        assert pwned is None
