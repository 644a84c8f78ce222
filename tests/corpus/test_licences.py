import pytest

from megatron_biollm.corpus.readers.licences import short_licence


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("https://creativecommons.org/licenses/by/4.0/legalcode", "CC BY 4.0"),
        ("http://creativecommons.org/licenses/by/3/", "CC BY 3.0"),
        ("http://creativecommons.org/licenses/by-nc-nd/3.0", "CC BY-NC-ND 3.0"),
        ("http://creativecommons.org/licenses/by", "CC BY"),
        ("http://creativecommons.org/publicdomain/mark/1.0/", "public domain"),
        ("the Creative Commons Attribution 4.0 International License (http://x)", "CC BY 4.0"),
        ("the Creative Commons Attribution Non-Commercial License", "CC BY-NC"),
        ("the Creative Commons Attribution-NonCommercial-NoDerivs 3.0", "CC BY-NC-ND 3.0"),
        ("under a CC BY-SA 4.0 licence", "CC BY-SA 4.0"),
        ("This work is in the public domain in the USA", "public domain"),
        ("All rights reserved", None),
        ("", None),
    ],
)
def test_licences_have_one_short_name(statement, expected):
    assert short_licence(statement) == expected


def test_the_first_statement_that_names_one_decides():
    assert short_licence(None, "open access", "CC BY 4.0", "CC BY-NC 3.0") == "CC BY 4.0"
