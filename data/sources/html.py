"""The visible text of a page, as a browser's `innerText` gives it without its style sheets. Pure.

Paragraphs are lines with an empty one between, other blocks are lines, cells are parted by tabs; entities are characters.
"""

import re
from html.parser import HTMLParser

_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "dir", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup", "hr", "html",
    "legend", "li", "listing", "main", "menu", "nav", "ol", "optgroup", "option", "p", "pre", "section", "summary", "table",
    "tbody", "tfoot", "thead", "tr", "ul",
}  # fmt: skip
_UNSEEN = {
    "script", "style", "template", "noscript", "title", "iframe", "noframes", "noembed", "audio", "video", "canvas", "object",
    "datalist",
}  # fmt: skip
_VOID = {
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
}  # fmt: skip
_PRE = {"pre", "listing", "textarea"}
_SPACE = re.compile(r"[ \t\n\f]+")  # what HTML calls white space: a no-break space is none


class Unclosed(ValueError):
    """An element that is not shown has no end: all that follows it would be lost."""


def visible(page: str) -> str:
    """Raises: Unclosed with the element's name."""
    reader = _Reader(convert_charrefs=True)
    reader.feed(page.replace("\r\n", "\n").replace("\r", "\n"))
    reader.close()
    if reader.unseen:
        raise Unclosed(reader.unseen[0])
    return "".join(reader.text).strip("\n").rstrip(" \t\n")


class _Reader(HTMLParser):
    def reset(self) -> None:
        super().reset()
        self.text: list[str] = []
        self.unseen: list[
            str
        ] = []  # one name, as often as the element that hides is nested in itself
        self.breaks = 0  # newlines before the next text
        self.pre = 0
        self.pre_begins = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if (
            self.unseen[:1] == ["p"] and tag in _BLOCKS
        ):  # a block ends a paragraph that has no end of its own
            self.unseen.clear()
        if self.unseen:
            self.unseen += [tag] if tag == self.unseen[0] else []
        elif tag in _UNSEEN or ("hidden" in dict(attrs) and tag not in _VOID):
            self.unseen.append(tag)
        else:
            self._border(tag)
            self.pre += tag in _PRE
            self.pre_begins = tag in _PRE

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<script src="x"/>` is whole, as its author means it."""
        if not self.unseen:
            self._border(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.unseen:
            if tag == self.unseen[0]:
                self.unseen.pop()
            return
        if tag in _PRE and self.pre:
            self.pre -= 1
            if self.text and self.text[-1].endswith("\n"):
                self.text[-1] = self.text[-1][:-1]
        self._border(tag)

    def handle_data(self, data: str) -> None:
        if self.unseen:
            return
        if self.pre:
            self._put(data.removeprefix("\n") if self.pre_begins else data)
            self.pre_begins = False
            return
        words = _SPACE.sub(" ", data)
        line_begins = self.breaks or not self.text or self.text[-1][-1:] in (" ", "\n", "\t")
        self._put(words.lstrip(" ") if line_begins else words)

    def _border(self, tag: str) -> None:
        if tag in _BLOCKS or tag == "br":
            self._end_line()
            self.breaks = max(self.breaks, 2 if tag == "p" else tag != "br")
        if tag == "br":
            self._put("\n")
        elif tag in ("td", "th"):
            self.text += ["\t"] if self.text and not self.breaks and self.text[-1] != "\t" else []

    def _end_line(self) -> None:
        while not self.breaks and not self.pre and self.text and self.text[-1][-1:] in (" ", "\t"):
            self.text[-1] = self.text[-1].rstrip(" \t")
            if not self.text[-1]:
                self.text.pop()

    def _put(self, text: str) -> None:
        if text:
            self.text += ["\n" * self.breaks, text] if self.breaks and self.text else [text]
            self.breaks = 0
