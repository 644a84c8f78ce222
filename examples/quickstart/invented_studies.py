"""Invented studies: names and numbers that fit each other, and the sentences about them.

The drugs do not exist and no study took place. What holds throughout is what a small model can
learn: each drug has its target, its disease and its measure, numbers fit each other, and the parts
of an abstract follow in their usual order. The same seed gives the same texts everywhere.
"""

from __future__ import annotations

import csv
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
GRAMMAR: dict[str, Any] = yaml.safe_load((HERE / "grammar.yaml").read_text(encoding="utf-8"))
# Drug, target, disease, measure with its unit and typical change, event, and cells.
TOPICS = list(csv.DictReader((HERE / "topics.csv").read_text(encoding="utf-8").splitlines()))
PLACES = [
    "Norrhaven", "Eastmere", "Calder Valley", "Port Ansel", "Lindqvist County", "Brightwater",
    "San Ramiro", "Vale of Orrin", "Kestrel Bay", "Upper Tamsin", "Westmarch", "Halden",
]  # fmt: skip
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One study; what is told about it in different sources agrees.

    abstract: label and text of each part, "" for a part without a label. date: YYYY-MM-DD.
    """

    seed: int
    number: int
    title: str
    abstract: tuple[tuple[str, str], ...]
    facts: dict[str, str]
    date: str

    def tell(self, text: str, **more: str) -> str:
        """A text of the grammar with its braces filled in, from `more` and the facts first."""
        rng = random.Random(f"{self.seed}-{self.number}-{text}")
        return expand(text, {**self.facts, **more}, rng)


def make_study(number: int, seed: int = 1234) -> Study:
    """Study `number`, whatever the number of studies."""
    rng = random.Random(f"{seed}-{number}")
    facts = make_facts(rng.choice(TOPICS), rng)
    kinds = GRAMMAR["kinds"].values()
    kind = rng.choices(list(kinds), weights=[kind["weight"] for kind in kinds])[0]
    title = expand(rng.choice(kind["titles"]), facts, rng)
    abstract = [(label, expand(text, facts, rng)) for label, text in kind["abstract"].items()]
    month, day = MONTHS.index(facts["month"]) + 1, rng.randint(1, 28)
    date = f"{int(facts['year_to']) + 1}-{month:02d}-{day:02d}"
    return Study(seed, number, f"{title}.", tuple(abstract), facts, date)


def expand(text: str, known: dict[str, str], rng: random.Random) -> str:
    """Replaces each {word}, again in what it becomes; {Word} begins with a capital letter."""

    def replace(match: re.Match) -> str:
        word = match[1]
        key = word[0].lower() + word[1:]
        given = known[key] if key in known else rng.choice(GRAMMAR["words"][key])
        found = expand(given, known, rng)
        return found if word == key else found[0].upper() + found[1:]

    return re.sub(r"\{(\w+)\}", replace, text)


def make_facts(topic: dict[str, str], rng: random.Random) -> dict[str, str]:
    """The names and numbers of one invented study."""
    year, control = rng.randint(2004, 2022), rng.choice(["placebo", "standard care"])
    return {
        **topic,
        **estimates(float(topic["typical"]), rng),
        "control": control,
        "blinding": "double-blind" if control == "placebo" else "open-label",
        "year_from": str(year - rng.randint(4, 9)),
        "year_to": str(year),
        "month": rng.choice(MONTHS),
        "place": rng.choice(PLACES),
        "phase": rng.choice(["2", "3"]),
        "dose": rng.choice(["5", "10", "20", "50", "100", "150", "300"]),
        "weeks": rng.choice(["12", "16", "24", "26", "48", "52"]),
        "hours": rng.choice(["6", "24", "48", "72"]),
        "p_value": rng.choice(["P < 0.001", "P = 0.002", "P = 0.01", "P = 0.03"]),
        "n": str(rng.randint(6, 90) * 10),
        "n_large": str(rng.randint(40, 300) * 100),
        "sites": str(rng.randint(4, 60)),
        "age": str(rng.randint(38, 74)),
        "women": str(rng.randint(30, 68)),
        "percent": str(rng.randint(15, 80)),
        "followup": f"{rng.uniform(2, 9):.1f}",
        "duration": str(rng.randint(2, 15)),
        "ic50": f"{rng.uniform(1, 90):.1f}",
        "registry": f"SAMPLE-R{rng.randint(0, 9999):04d}",
    }


def estimates(typical: float, rng: random.Random) -> dict[str, str]:
    """Effects and risks that fit each other; each interval contains its estimate."""
    effect = typical * rng.uniform(0.7, 1.3)
    small = effect * rng.uniform(0.1, 0.5)
    spread = (effect - small) * rng.uniform(0.2, 0.7)
    ratio, rate = rng.uniform(0.55, 0.92), rng.uniform(4, 30)
    digits = 0 if typical >= 20 else 1 if typical >= 1 else 2
    return {
        "effect": f"{effect:.{digits}f}",
        "small": f"{small:.{digits}f}",
        "difference": f"{effect - small:.{digits}f}",
        "low": f"{effect - small - spread:.{digits}f}",
        "high": f"{effect - small + spread:.{digits}f}",
        "ratio": f"{ratio:.2f}",
        "ratio_low": f"{ratio * 0.86:.2f}",
        "ratio_high": f"{ratio * 1.15:.2f}",
        "rate_control": f"{rate:.1f}",
        "rate_drug": f"{rate * ratio:.1f}",
    }


def make_patient(study: Study, number: int) -> dict[str, str]:
    """Whom a note is about: identifiers of an invented patient, which must not reach the corpus."""
    rng = random.Random(f"{study.seed}-patient-{number}")
    year, month = int(study.facts["year_to"]), rng.randint(1, 11)
    return {
        **{word: rng.choice(choice) for word, choice in GRAMMAR["people"].items()},
        "start": f"{month:02d}/{rng.randint(1, 28):02d}/{year}",
        "visit": f"{month + 1:02d}/{rng.randint(1, 28):02d}/{year}",
        # 555-01xx is set aside for fiction.
        "phone": f"({rng.randint(201, 989)}) 555-01{rng.randint(0, 99):02d}",
        "mrn": f"{rng.randint(1_000_000, 9_999_999)}",
    }
