"""The visible text of pages, written by hand from the rules of HTML's `innerText`."""

import html
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.data.sources.html import UnclosedError, visible_text

Read = Any
PAGES = {
    "paragraphs": ("<p>One\n two.</p>\n<p>Three</p>", "One two.\n\nThree"),
    "paragraphs without ends": ("<p>One<p>Two<p>Three", "One\n\nTwo\n\nThree"),
    "blocks": ("<div>a<div>b</div></div>c<h1>d</h1><ul><li>e<li>f</ul>", "a\nb\nc\nd\ne\nf"),
    "inline": ("a<b>b</b> <i> c</i>d<span></span> e", "ab cd e"),
    "white space": ("  a \t\n  b  <br>  c  ", "a b\nc"),
    "no-break space stays": ("a&nbsp;&nbsp;b", "a\xa0\xa0b"),
    "breaks": ("a<br>b<br/><br />c", "a\nb\n\nc"),
    "entities": ("&lt;p&gt; &amp;amp; &#65;&#x42;&eacute; R&D &zork;", "<p> &amp; ABé R&D &zork;"),
    "script and style": (
        "a<script>if (a < b) document.write('<p>x</p>')</script><style>p{}</style>b",
        "ab",
    ),
    "script with an entity": ("a<script>'&lt;/script>'</script>b", "ab"),
    "head": (
        "<html><head><title>T</title><meta charset=utf-8><link href=x></head><body>a</body></html>",
        "a",
    ),
    "head without end": ("<head><title>T</title><body>a", "a"),
    "comment": ("a<!-- <p>x</p> -->b<!DOCTYPE html>c<?xml x?>d", "abcd"),
    "pre": ("<p>x</p><pre>\n  a\n\n\tb  c\n</pre>d", "x\n\n  a\n\n\tb  c\nd"),
    "code in pre": ("<pre><code>a  =\n  b</code></pre>", "a  =\n  b"),
    "table": (
        "<table><tr><th>a</th><th>b</th></tr>\n<tr><td>c</td> <td>d</td></tr></table>e",
        "a\tb\nc\td\ne",
    ),
    "hidden": ("a<div hidden>b<div>c</div></div>d<p hidden>e<p>f", "ad\n\nf"),
    "hidden void": ("a<input hidden>b<img src=x hidden>c", "abc"),
    "template and noscript": ("a<template><p>x</template><noscript>y</noscript>b", "ab"),
    "self-closed": ('<script src="x"/>a<title/>b<div/>c', "ab\nc"),
    "ends without starts": ("</p></script></pre>a</div>b", "a\nb"),
    "carriage returns": ("<pre>a\r\nb\rc</pre>", "a\nb\nc"),
    "upper case": ("<P>a</P><SCRIPT>x</SCRIPT><BR>b", "a\n\n\nb"),
    "rule": ("a<hr>b", "a\nb"),
    "options": ("<select><option>a<option>b</select>", "a\nb"),
    "less than": ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
}


@pytest.mark.parametrize(("page", "text"), PAGES.values(), ids=PAGES)
def test_visible_text_by_hand(page: str, text: str) -> None:
    assert visible_text(page) == text


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_escaped_text_is_read_unchanged(text: str) -> None:
    assert visible_text(f"<pre>x{html.escape(text)}x</pre>") == f"x{text}x"


@pytest.mark.parametrize("tag", ["script", "style", "noscript", "title", "template"])
def test_an_unclosed_hidden_element_is_refused(tag: str) -> None:
    with pytest.raises(UnclosedError, match=tag):
        visible_text(f"a<{tag}>x<p>all the rest")


def test_pages_are_documents(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<title>T</title><p>One<p>Two é")
    (tmp_path / "b.htm").write_text("<script>x</script>")
    (tmp_path / "c.html").write_text("a<noscript>b")
    (tmp_path / "d.html").write_bytes(b"caf\xe9")
    (tmp_path / "e.html").write_text("a&#0;b\0")
    assert read(tmp_path) == (
        {"a.html": "One\n\nTwo é"},
        {
            "b.htm": "empty",
            "c.html": "unclosed <noscript>",
            "d.html": "not UTF-8",
            "e.html": "NUL byte",
        },
    )
