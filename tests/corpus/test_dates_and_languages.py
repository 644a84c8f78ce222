import pytest

from megatron_biollm.corpus.readers.dates import first_date, iso_date
from megatron_biollm.corpus.readers.languages import iso_639_1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (("2019", "Mar", "7"), "2019-03-07"),
        (("2019", "september", None), "2019-09"),
        (("2019", "13", "7"), "2019"),
        (("2019", "2", "32"), "2019-02"),
        (("19", "2", "3"), None),
        ((None,), None),
    ],
)
def test_a_date_is_as_precise_as_its_fields(fields, expected):
    assert iso_date(*fields) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("1998 Dec-1999 Jan", "1998-12"),
        ("2001 Jun 15-21", "2001-06-15"),
        ("1998-1999", "1998"),
        ("Winter", None),
        ("", None),
    ],
)
def test_a_range_begins_with_its_first_date(words, expected):
    assert first_date(words) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [("eng", "en"), ("EN-gb", "en"), ("ger", "de"), ("deu", "de"), ("und", None), (None, None)],
)
def test_codes_of_either_length_become_two_letters(code, expected):
    assert iso_639_1(code) == expected
