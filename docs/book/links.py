"""Checks that links within a book lead somewhere. Usage: links.py DIRECTORY"""

import html.parser
import pathlib
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    """The links of a page, and what can be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src"):
                self.links.append(value or "")
            elif name == "id":
                self.anchors.add(value)


def main(root):
    pages = {path.resolve(): Page(path) for path in root.rglob("*.html")}
    dead, count = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc or path.name in ("404.html", "toc.html"):
                continue
            count += 1
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            anchor = urllib.parse.unquote(parts.fragment)
            if not target.exists() or anchor and target in pages and anchor not in pages[target].anchors:
                dead.append(f"{path.relative_to(root.resolve())}: {link}")
    print(f"{len(pages)} pages, {count} links, {len(dead)} of them dead", *dead, sep="\n", file=sys.stderr)
    return 1 if dead or count < 100 else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
