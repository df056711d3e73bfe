"""HTML pages as documents: the visible text, as a browser's `innerText` gives it without CSS.

An empty line separates paragraphs, other blocks begin a new line, a tab separates table cells, and
entities become characters.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from ropewalk.data.sources import text
from ropewalk.data.sources.columns import ReadSettings
from ropewalk.data.sources.units import Document, Location, Refusal, Unit

_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details",
    "dialog", "dir", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form",
    "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup", "hr", "html", "legend", "li",
    "listing", "main", "menu", "nav", "ol", "optgroup", "option", "p", "pre", "section",
    "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
}  # fmt: skip
_HIDDEN = {
    "script", "style", "template", "noscript", "title", "iframe", "noframes", "noembed", "audio",
    "video", "canvas", "object", "datalist",
}  # fmt: skip
_VOID = {
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source",
    "track", "wbr",
}  # fmt: skip
_PRE = {"pre", "listing", "textarea"}
_SPACE = re.compile(r"[ \t\n\f]+")  # HTML's white space, which has no no-break space


class UnclosedError(ValueError):
    """A hidden element has no end tag, so the text after it would be lost."""


def documents(
    location: Location, name: str, _unit: Unit, settings: ReadSettings
) -> Iterator[Document | Refusal]:
    """The visible text of the page as one document."""
    page = text.decode(location, name, settings.max_bytes)
    if isinstance(page, Document):
        try:
            page = Document(name, visible_text(str(page.text)))
        except UnclosedError as error:
            page = Refusal(name, f"unclosed <{error}>")
    yield page


def visible_text(page: str) -> str:
    """Raises: UnclosedError with the element's name."""
    reader = _Reader(convert_charrefs=True)
    reader.feed(page.replace("\r\n", "\n").replace("\r", "\n"))
    reader.close()
    if reader.hidden:
        raise UnclosedError(reader.hidden[0])
    return "".join(reader.text).strip("\n").rstrip(" \t\n")


class _Reader(HTMLParser):
    def reset(self) -> None:
        super().reset()
        self.text: list[str] = []
        self.hidden: list[str] = []  # the hidden element's name, once a level of nesting in itself
        self.breaks = 0  # newlines before the next text
        self.pre = 0
        self.pre_begins = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.hidden[:1] == ["p"] and tag in _BLOCKS:  # a block ends an open paragraph
            self.hidden.clear()
        if self.hidden:
            if tag == self.hidden[0]:
                self.hidden.append(tag)
        elif tag in _HIDDEN or ("hidden" in dict(attrs) and tag not in _VOID):
            self.hidden.append(tag)
        else:
            self._border(tag)
            self.pre += tag in _PRE
            self.pre_begins = tag in _PRE

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<script src="x"/>` has no content, as its author means it."""
        if not self.hidden:
            self._border(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.hidden:
            if tag == self.hidden[0]:
                self.hidden.pop()
            return
        if tag in _PRE and self.pre:
            self.pre -= 1
            if self.text and self.text[-1].endswith("\n"):
                self.text[-1] = self.text[-1][:-1]
        self._border(tag)

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if self.pre:
            self._put(data.removeprefix("\n") if self.pre_begins else data)
            self.pre_begins = False
            return
        line = _SPACE.sub(" ", data)
        line_begins = self.breaks or not self.text or self.text[-1][-1:] in (" ", "\n", "\t")
        self._put(line.lstrip(" ") if line_begins else line)

    def _border(self, tag: str) -> None:
        if tag in _BLOCKS or tag == "br":
            self._end_line()
            self.breaks = max(self.breaks, 2 if tag == "p" else tag != "br")
        if tag == "br":
            self._put("\n")
        elif tag in ("td", "th") and self.text and not self.breaks and self.text[-1] != "\t":
            self.text.append("\t")

    def _end_line(self) -> None:
        while not self.breaks and not self.pre and self.text and self.text[-1][-1:] in (" ", "\t"):
            self.text[-1] = self.text[-1].rstrip(" \t")
            if not self.text[-1]:
                self.text.pop()

    def _put(self, text: str) -> None:
        if text:
            if self.breaks and self.text:
                self.text.append("\n" * self.breaks)
            self.text.append(text)
            self.breaks = 0
