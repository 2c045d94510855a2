"""Build the site into build/docs, and check the links in it.

    pip install -e ".[docs]"
    python docs/build.py            # then open build/docs/index.html; no server and no network is needed

All cells of the course are run. A cell that fails, a warning, or a link to nowhere is an error.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).parent
SITE = HERE.parent / "build" / "docs"
TREES = HERE.parent / "build" / "docs-trees"
LOADED = {
    "script",
    "img",
    "iframe",
    "source",
    "video",
    "audio",
    "embed",
    "object",
}  # links may lead elsewhere, these not


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, given: list[tuple[str, str | None]]) -> None:
        """Note ids and addresses."""
        attributes = {name: value or "" for name, value in given}
        self.anchors.update(attributes[name] for name in ("id", "name") if name in attributes)
        for name in ("href", "src"):
            if name in attributes:
                loaded = tag in LOADED or (tag == "link" and attributes.get("rel") in ("stylesheet", "preload", "icon"))
                (self.loads if loaded else self.links).append(attributes[name])


def problems(site: Path) -> Iterator[str]:
    """Yield a line for each link in a site that leads nowhere, and for each thing that is loaded from elsewhere."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        where = path.relative_to(site)
        for address in page.loads + page.links:
            url = urlsplit(address)
            if url.scheme or url.netloc:
                if address in page.loads and url.scheme != "data":
                    yield f"{where}: loads {address}; everything that a page needs has to be in the site"
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not target.is_file():
                yield f"{where}: {address} is not there"
            elif url.fragment and target in pages and unquote(url.fragment) not in pages[target].anchors:
                yield f"{where}: {address}: that page has no such place"


def main() -> int:
    """Build, check, and say where the site is."""
    from sphinx.cmd.build import main as sphinx  # here, so that the rest can be used without

    for folder in (SITE, TREES):
        shutil.rmtree(folder, ignore_errors=True)
    failed = sphinx(["-b", "html", "-W", "--keep-going", "-q", "-d", str(TREES), str(HERE), str(SITE)])
    if failed:
        return failed
    found = sorted(set(problems(SITE.resolve())))
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        return 1
    print(f"built: {SITE / 'index.html'}, {len(list(SITE.rglob('*.html')))} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
