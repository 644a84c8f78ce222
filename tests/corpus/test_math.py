import pytest
from lxml import etree

from megatron_biollm.corpus.readers.math import mathml_text, tex_text


def frac(above, below):
    return f"<mfrac><mrow>{above}</mrow><mrow>{below}</mrow></mfrac>"


@pytest.mark.parametrize(
    ("mathml", "expected"),
    [
        ("<msup><mi>x</mi><mn>2</mn></msup><mo>+</mo><mi>y</mi>", "x^2+y"),
        (frac("<mi>a</mi><mo>+</mo><mi>b</mi>", "<mn>12.5</mn>"), "(a+b)/12.5"),
        ("<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>", "x_i^2"),
        ("<msup><mn>10</mn><mrow><mo>−</mo><mn>3</mn></mrow></msup>", "10^(−3)"),
        ("<msqrt><mi>x</mi></msqrt><mroot><mi>y</mi><mn>3</mn></mroot>", "√xy^(1/3)"),
        ("<mover><mi>x</mi><mo>¯</mo></mover>", "x¯"),
        ("<mi>sin</mi><mi>x</mi><mn>2</mn><mi>y</mi>", "sin x2y"),
        ("<mfenced><mi>a</mi><mi>b</mi></mfenced>", "(a,b)"),
        ("<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr></mtable>", "[1, 2]"),
        ("<semantics><mi>x</mi><annotation>twice</annotation></semantics>", "x"),
        ("<mi>f</mi><mo>\u2061</mo><mi>x</mi>", "fx"),
        ("<msub><mi>x</mi></msub>", "x"),
        ("", ""),
    ],
)
def test_mathml_is_written_as_a_person_would_type_it(mathml, expected):
    root = etree.fromstring(f"<math xmlns='http://www.w3.org/1998/Math/MathML'>{mathml}</math>")
    assert mathml_text(root) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (r"\documentclass{a}\usepackage{b} \begin{document}$$a_b$$\end{document}", "$a_b$"),
        (r"\[ x \]", "$x$"),
        ("$x$", "$x$"),
        (r"\alpha", r"$\alpha$"),
        (" ", ""),
    ],
)
def test_tex_loses_its_preamble(source, expected):
    assert tex_text(source) == expected
