import pytest
from lxml import etree

from megatron_biollm.corpus.readers.inline import text_of
from megatron_biollm.corpus.readers.xml import SAFE


def text(xml, **options):
    return text_of(etree.fromstring(f"<p>{xml}</p>", etree.XMLParser(**SAFE)), **options)


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ("a <i>b</i> <b>c</b>\n  d", "a b c d"),
        ("H<sub>2</sub>O, Ca<sup>2+</sup>, <sup>99m</sup>Tc", "H2O, Ca2+, 99mTc"),
        ("2 × 10<sup>6</sup>, 10<sup>−3</sup>, 2<sup>nd</sup>", "2 × 10^6, 10^−3, 2nd"),
        ("x1<sub>2</sub>", "x1_2"),
        ("one<break/>two\u2009three", "one two three"),
        ("", ""),
    ],
)
def test_markup_goes_and_its_meaning_stays(xml, expected):
    assert text(xml) == expected


def test_a_formula_given_twice_is_written_once():
    tex = r"<tex-math>\documentclass{minimal}\begin{document}$$x^2$$\end{document}</tex-math>"
    math = "<math><msup><mi>x</mi><mn>2</mn></msup></math>"
    assert text(f"so <alternatives>{math}{tex}</alternatives> holds") == "so $x^2$ holds"
    assert text(f"so <alternatives><graphic/>{math}</alternatives> holds") == "so x^2 holds"


def test_children_may_be_replaced_or_left_out():
    def replace(child, name):
        return {"xref": "", "fig": " (figure) "}.get(name)

    given = "a<xref>1</xref>, b<fig><p>c</p></fig>d <i>e</i>"
    assert text(given, replace=replace) == "a, b (figure) d e"


def test_names_of_characters_are_resolved_and_unknown_ones_stay():
    xml = b'<!DOCTYPE p SYSTEM "x"><p>&beta;-blocker &nonsense; &lt;5&#x3b1;</p>'
    root = etree.fromstring(xml, etree.XMLParser(**SAFE))
    assert text_of(root) == "β-blocker &nonsense; <5α"


def test_no_element_is_no_text_and_no_depth_is_too_deep():
    assert text_of(None) == ""
    assert text("<i>" * 1500 + "x" + "</i>" * 1500) == "x"
