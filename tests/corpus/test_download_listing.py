import re

import pytest

from megatron_biollm.corpus.download.listing import (
    Entry,
    is_plain_name,
    match_any,
    read_listing,
)

APACHE = """<html><head><title>Index of /pubmed/baseline</title></head><body><pre>
<a href="?C=N;O=D">Name</a> <a href="?C=M;O=A">Last modified</a>
<a href="/pubmed/">Parent Directory</a>                             -
<a href="README.txt">README.txt</a>                2026-01-14 10:59  5.5K
<a href="pubmed26n0001.xml.gz">pubmed26n0001.xml.gz</a>      2026-01-15 14:05   19M
<a href="pubmed26n0001.xml.gz.md5">pubmed26n0001.xml.gz.md5</a>  2026-01-15 14:05   60
</pre></body></html>"""

TABLE = """<table><tr><td><a href="a.xml.gz">a.xml.gz</a></td>
<td align="right">2026-01-15 14:05  </td><td align="right">1.5G</td></tr></table>"""

NGINX = """<pre><a href="../">../</a>
<a href="a%20b.gz">a b.gz</a>
<a href="a.xml.gz">a.xml.gz</a>       15-Jan-2026 14:05       19012345
</pre>"""


def test_an_apache_listing_gives_names_dates_and_rounded_sizes():
    entries = {entry.name: entry for entry in read_listing(APACHE).entries}
    assert set(entries) == {"README.txt", "pubmed26n0001.xml.gz", "pubmed26n0001.xml.gz.md5"}
    assert entries["pubmed26n0001.xml.gz"] == Entry(
        "pubmed26n0001.xml.gz", 19 << 20, False, "2026-01-15 14:05"
    )
    assert entries["pubmed26n0001.xml.gz.md5"].exact


def test_a_listing_as_a_table_is_read_too():
    (entry,) = read_listing(TABLE).entries
    assert (entry.size, entry.modified) == (int(1.5 * 2**30), "2026-01-15 14:05")


def test_an_nginx_listing_has_exact_sizes():
    (entry,) = read_listing(NGINX).entries
    assert entry == Entry("a.xml.gz", 19012345, True, "15-Jan-2026 14:05")


def test_a_listing_without_sizes_still_gives_names():
    assert read_listing('<li><a href="a.gz">a.gz</a></li>').entries == [Entry("a.gz")]


@pytest.mark.parametrize(
    "href",
    [
        "../../etc/pubmed26n0001.xml.gz",
        "%2e%2e%2fpubmed26n0001.xml.gz",
        "/etc/pubmed26n0001.xml.gz",
        "https://elsewhere.org/pubmed26n0001.xml.gz",
        "..\\pubmed26n0001.xml.gz",
        "a/%00/pubmed26n0001.xml.gz",
    ],
)
def test_a_link_that_leads_out_of_the_folder_is_refused_and_named(href):
    listing = read_listing(f'<a href="{href}">pubmed26n0001.xml.gz</a>')
    assert listing.entries == []
    assert match_any(listing.refused, re.compile(r"pubmed26n\d+\.xml\.gz")) == [href]


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\nb", "a\0", "-rf", "é"]
)
def test_names_that_are_more_than_a_name_are_not_plain(name):
    assert not is_plain_name(name)
