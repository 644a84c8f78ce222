import io

import pytest
from lxml import etree

from megatron_biollm.corpus.readers.xml import parse_document, stream_elements
from megatron_biollm.corpus.report import FileReport


def read(xml, tags=("a",)):
    report = FileReport("x.xml")
    stream = io.BytesIO(xml if isinstance(xml, bytes) else xml.encode())
    texts = ["".join(e.itertext()) for e in stream_elements(stream, tags, report)]
    return texts, [f"{fault.position}: {fault.reason}" for fault in report.faults]


def bomb(levels=9):
    entities = "".join(
        f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "lol"}">' for i in range(levels)
    )
    return f"<!DOCTYPE r [{entities}]>"


def test_elements_come_in_order_whatever_their_namespace():
    xml = '<r xmlns:n="urn:n"><a>1</a>\n<n:a>2</n:a><b><a>3</a></b></r>'
    assert read(xml) == (["1", "2", "3"], [])


def test_an_element_inside_another_comes_with_it_once():
    assert read("<r><a>1<b>2</b></a><b>3</b></r>", ("a", "b")) == (["12", "3"], [])


def test_what_stands_before_a_break_is_kept_and_the_break_is_placed():
    texts, faults = read("<r><a>1</a>\n<a>2</a>\n<a>3</b></r>")
    assert texts == ["1", "2"]
    assert faults == [
        "line 3, column 9: not well-formed XML: Opening and ending tag mismatch: a line 3 and b; "
        "read 2 records before it, none after it"
    ]


def test_a_whole_inner_element_outlives_the_outer_one_cut_short():
    texts, faults = read("<r><a><b>1</b><c>cut", ("a", "b"))
    assert texts == ["1"] and "ends too early" in faults[0]


@pytest.mark.parametrize("xml", ["", " ", "no XML", "<r>", "<r/><r/>", "<r>&lt</r>"])
def test_what_is_no_document_is_one_fault(xml):
    texts, faults = read(xml)
    assert texts == [] and len(faults) == 1


@pytest.mark.parametrize("bad", ["<a>\0</a>", "<a>caf\xe9</a>", "<a>&alpha;</a>"])
def test_characters_and_names_that_are_none_are_a_break_at_their_place(bad):
    xml = f"<r>\n<a>1</a>\n{bad}{'<a>4</a>' * 50_000}</r>".encode("latin-1")
    texts, faults = read(xml)
    assert texts == ["1"] and faults[0].startswith("line 3, column ")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_entities_of_the_files_own_are_refused_before_they_unfold(encoding):
    body = f"{bomb()}<r t='&e8;'><a>&e8;</a></r>"
    for data in (body.encode(), body.encode(encoding)):
        texts, faults = read(data)
        assert texts == [] and "declares 9 entities" in faults[0]
        with pytest.raises(ValueError, match="declares 9 entities"):
            parse_document(data)


def test_entities_declared_behind_a_long_comment_are_seen():
    texts, faults = read(f"<!DOCTYPE r [<!--{'x' * 200_000}-->{bomb()[13:]}<r><a>&e8;</a></r>")
    assert texts == [] and "declares 9 entities" in faults[0]


def test_files_named_as_entities_are_not_read_and_pictures_do_no_harm(tmp_path):
    (tmp_path / "secret").write_text("secret")
    declared = f'<!DOCTYPE r [<!ENTITY s SYSTEM "{tmp_path}/secret">]><r><a>&s;</a></r>'
    assert read(declared)[0] == []
    pictures = '<!DOCTYPE r SYSTEM "r.dtd" [<!ENTITY p.TIF SYSTEM "p.TIF" NDATA TIF>]>'
    assert read(f"{pictures}<r><a>1</a></r>") == (["1"], [])


def test_a_document_type_elsewhere_is_never_fetched_and_its_names_stay():
    xml = '<!DOCTYPE r SYSTEM "http://127.0.0.1:9/r.dtd"><r><a>&alpha;</a></r>'
    assert read(xml) == (["&alpha;"], [])


def test_a_document_type_on_this_disk_is_not_read_either(tmp_path):
    (tmp_path / "r.dtd").write_text('<!ENTITY alpha "secret"><!ATTLIST a t CDATA "secret">')
    xml = f'<!DOCTYPE r SYSTEM "{tmp_path}/r.dtd"><r><a>&alpha;</a></r>'.encode()
    element = next(stream_elements(io.BytesIO(xml), ("a",), FileReport("x")))
    assert ("".join(element.itertext()), dict(element.attrib)) == ("&alpha;", {})
    assert b"secret" not in etree.tostring(parse_document(xml), with_tail=False)


def test_comments_and_instructions_are_no_text():
    assert read("<r><a>1<!-- c -->2<?p i?>3</a></r>") == (["123"], [])


def test_a_whole_document_is_parsed_or_the_place_is_named():
    assert parse_document(b"<r><a>1</a></r>").tag == "r"
    with pytest.raises(ValueError, match="line 2, column 6: not well-formed XML: Opening"):
        parse_document(b"<r><a>\n1</b></r>")


def test_a_text_of_twenty_megabytes_and_a_depth_of_a_thousand_are_read():
    assert len(read(f"<r><a>{'x' * 20_000_000}</a></r>")[0][0]) == 20_000_000
    assert read("<r><a>" + "<i>" * 1000 + "x" + "</i>" * 1000 + "</a></r>")[0] == ["x"]


def test_what_was_read_is_freed():
    record = b"<w><a>" + b"<t>x</t>" * 100 + b"</a></w>"
    left = []
    stream = io.BytesIO(b"<r>" + record * 50 + b"</r>")
    for element in stream_elements(stream, ("a",), FileReport("x")):
        root = element.getroottree().getroot()
        left.append(sum(1 for e in root.iter("a") if len(e)))
    # One chunk of the file is parsed ahead; behind the element nothing is left.
    assert left == list(range(50, 0, -1))


def test_documents_behind_one_another_are_read_one_by_one():
    document = '<?xml version="1.0"?>\n<!DOCTYPE r SYSTEM "r.dtd">\n<r><a>{}</a></r>\n'
    xml = "\n" + "".join(document.format(i) for i in range(3))
    assert read(xml) == (["0", "1", "2"], [])
    long = "".join(document.format(str(i) * 1_000) for i in range(1_000))
    assert len(read(long)[0]) == 1_000


def test_a_broken_document_among_several_costs_no_other():
    document = '<?xml version="1.0"?><r>\n<a>{}</r>'
    xml = document.format("1</a>") + document.format("2") + document.format("3</a>")
    texts, faults = read(xml)
    assert texts == ["1", "3"]
    assert faults[0].startswith("document 2, line 2, column ")
    assert faults[0].endswith("read 1 records before it")


def test_a_declaration_cut_by_the_end_of_a_chunk_is_seen():
    for length in range((1 << 17) - 60, (1 << 17) + 10):
        one = f"<r><a>{'x' * (length - 40)}</a></r>".encode()
        assert len(read(one + b'<?xml version="1.0"?><r><a>2</a></r>')[0]) == 2


def test_a_prologue_without_end_is_refused():
    texts, faults = read(f"<!--{'x' * 2_000_000}--><!DOCTYPE r [<!ENTITY e 'e'>]><r><a>&e;</a></r>")
    assert texts == [] and "no element begins in its first 1048576 bytes" in faults[0]
