import pytest

from megatron_biollm.corpus.readers.blocks import html_text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>One <b>two</b>\n three</p><p>four</p>", "One two three\nfour"),
        ("one<br>two<br/><br/>three", "one\ntwo\nthree"),
        ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "a\nb\nc"),
        ("before<table><caption>T</caption><tr><td>a<br>b</td><td>c</td></tr></table>after",
         "before\nT\na b | c\nafter"),
        ("H<sub>2</sub>O at 10<sup>6</sup> &lt;&nbsp;&mu;g &amp; x", "H2O at 10^6 < μg & x"),
        ("<html><head><title>T</title></head><body>B<script>s()</script></body></html>", "B"),
        ("<?xml version='1.0' encoding='latin-1'?><p>café", "café"),
        ("plain  words\nand lines", "plain words\nand lines"),
        ("</p></b>loose<p", "loose"),
        ("<!-- only a comment -->", ""),
        ("  ", ""),
    ],
)  # fmt: skip
def test_html_is_its_lines_however_badly_formed(source, text):
    assert html_text(source) == text


def test_very_deep_html_keeps_its_text():
    assert "deep" in html_text("<div>" * 3000 + "deep" + "</div>" * 3000)
