"""Words around names and places: the tables of `data/vocabulary.json` as constants."""

from __future__ import annotations

import json
from importlib.resources import files


def _tables() -> dict[str, frozenset[str]]:
    folder = files("megatron_biollm.corpus.deidentify")
    raw = json.loads(folder.joinpath("data", "vocabulary.json").read_text(encoding="utf-8"))
    return {name: frozenset(" ".join(lines).split()) for name, lines in raw.items()}


def _pairs(words: frozenset[str]) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(word.split("_")) for word in words)


_TABLES = _tables()

# -- persons
TITLES = _TABLES["titles"]
DEGREES = _TABLES["degrees"]
# Words behind "Dr." that are no name: "Dr. will see".
AFTER_TITLE_NO_NAME = _TABLES["after_title_no_name"]
# No evidence makes a name of these, although somewhere in the world each is one.
FUNCTION_WORDS = _TABLES["function_words"]
# Fields whose value is a name ("Attending:"), and phrases that introduce one ("name is").
HEADERS = frozenset(word.replace("_", " ") for word in _TABLES["headers"])
INTRODUCTIONS = tuple(sorted(word.replace("_", " ") for word in _TABLES["introductions"]))
MEDICAL_PREFIXES = tuple(sorted(_TABLES["medical_prefixes"]))
# Words of departments, sections, tests, orders: capitalised in notes and no name of anybody.
CLINICAL = _TABLES["clinical"]
CLINICAL_ENDS = tuple(sorted(_TABLES["clinical_ends"]))

# -- places
STATES = _TABLES["states"]
# Words that end the name of a street or of a settlement; of these SETTLEMENTS tell a place by a
# capital alone ("Mill Village").
STREETS = _TABLES["streets"]
SETTLEMENTS = _TABLES["settlements"]
# Words that begin the name of a street, in other languages; ends of such names that are one word;
# small words between the name and the number of the house.
FOREIGN_STREETS = _TABLES["foreign_streets"]
STREET_ENDINGS = tuple(sorted(_TABLES["street_endings"]))
HOUSE_WORDS = _TABLES["house_words"]
ADDRESS_PARTICLES = _TABLES["address_particles"]
# What the name of a town may begin with.
TOWN_STARTS = _TABLES["town_starts"]
UNITS = _TABLES["units"]
SHIPS = _TABLES["ships"]
ROOMS = _TABLES["rooms"]
# What a person does at a place: the two words before it; and what is no place behind them.
RESIDENCE = _pairs(_TABLES["residence"])
NO_RESIDENCE = _TABLES["no_residence"]
# What follows the name of its inventor, not of a town.
AFTER_NAME_NO_PLACE = tuple(sorted(_TABLES["after_name_no_place"]))

# -- organisations
# Words that end the name of a facility or company; the weak ones only behind a proper name.
FACILITIES = _TABLES["facilities"]
WEAK_FACILITIES = _TABLES["weak_facilities"]
KINDS_OF_FACILITY = _TABLES["kinds_of_facility"]
FACILITY_NO_NAME = _TABLES["facility_no_name"]
# What a person does at a company: the two words before it.
EMPLOYMENT = _pairs(_TABLES["employment"])

# -- numbers
# Last words of what says what a number is; and those behind which it needs no "no." or colon.
LABEL_LAST_WORDS = _TABLES["label_last_words"]
NEED_NO_MARK = _TABLES["need_no_mark"]

# -- surrogates
# First three digits of the areas of fewer than 20,000 people (census of 2000), as the guidance of
# the Department of Health and Human Services lists them: they become 000.
RESTRICTED_ZIP3 = _TABLES["restricted_zip3"]
STREET_WORDS = _TABLES["street_words"]
FACILITY_WORDS = _TABLES["facility_words"]
SURROGATE_PARTICLES = _TABLES["surrogate_particles"]

# -- measure
IDENTIFIES_NOBODY = _TABLES["identifies_nobody"]
