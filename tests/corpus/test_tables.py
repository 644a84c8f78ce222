from lxml import etree

from megatron_biollm.corpus.readers.tables import table_text


def text(rows):
    return table_text(etree.fromstring(f"<table>{rows}</table>"))


def test_rows_are_lines_and_cells_are_separated():
    rows = (
        "<thead><tr><th>Drug</th><th>Dose</th></tr></thead><tbody><tr><td>A\n a</td>"
        "<td>5 mg</td></tr><tr><td/><td/></tr></tbody>"
    )
    assert text(rows) == "Drug | Dose\nA a | 5 mg"


def test_columns_stay_in_place_beside_cells_that_span():
    rows = (
        '<tr><th rowspan="2">A</th><th colspan="2">B</th><th>C</th></tr>'
        "<tr><th>b1</th><th>b2</th></tr><tr><td>1</td><td/><td>3</td><td>4</td></tr>"
    )
    assert text(rows) == "A | B |  | C\n | b1 | b2\n1 |  | 3 | 4"


def test_entries_and_rows_of_cals_are_the_same():
    rows = (
        "<tgroup><tbody><row><entry morerows='1'>a</entry><entry>b</entry></row>"
        "<row><entry>c</entry></row></tbody></tgroup>"
    )
    assert text(rows) == "a | b\n | c"


def test_a_table_inside_a_cell_belongs_to_the_cell():
    assert text("<tr><td>a<table><tr><td>b</td></tr></table></td></tr>") == "a b"


def test_a_span_that_no_table_has_is_cut():
    cell = f'<tr><td colspan="{"9" * 5000}" rowspan="x">a</td><td>b</td></tr>'
    assert len(text(cell)) < 1000
