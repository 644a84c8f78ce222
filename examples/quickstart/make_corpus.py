"""Writes a sample corpus: abstracts in the form of PubMed's, all of them invented.

The drugs do not exist and no study took place. What holds throughout is what a small model can
learn: each drug has its target, its disease and its measure, numbers fit each other, and the parts
of an abstract follow in their usual order. The same arguments give the same bytes everywhere.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

EXAMPLE = """example:
  python examples/quickstart/make_corpus.py corpus.jsonl --documents 4000"""

LICENCE = "Apache-2.0"

# Drug, target, disease, measure with its unit and typical change, event, and cells.
TABLE = Path(__file__).parent / "topics.csv"
TOPICS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
PLACES = [
    "Norrhaven", "Eastmere", "Calder Valley", "Port Ansel", "Lindqvist County", "Brightwater",
    "San Ramiro", "Vale of Orrin", "Kestrel Bay", "Upper Tamsin", "Westmarch", "Halden",
]  # fmt: skip
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip

# A word in braces is replaced by one of its alternatives or by a fact of the study.
GRAMMAR = {
    "trial_title": [
        "{Drug} in patients with {disease}: a randomised, {blinding} trial",
        "Efficacy and safety of {drug} in {disease}: results of a phase {phase} trial",
        "Effect of {drug} on {measure} in {disease}: a randomised clinical trial",
    ],
    "trial": [
        "BACKGROUND: {background} {gap}\nMETHODS: In this {blinding} trial, we randomly assigned "
        "{n} {adults} with {disease} to {drug} {dose} mg {schedule} or {control} at {sites} sites "
        "in {place}. The primary outcome was the change in {measure} at {weeks} weeks. "
        "{analysis}\nRESULTS: {baseline} At {weeks} weeks, {measure} had {changed} by {effect} "
        "{unit} with {drug} and by {small} {unit} with {control} (difference {difference} {unit}; "
        "95% CI {low} to {high}; {p_value}). {Event} occurred in {rate_drug}% and "
        "{rate_control}% of patients, respectively. {harms}\nCONCLUSIONS: {trial_conclusion}",
    ],
    "cohort_title": [
        "{Event} in patients with {disease} treated with {drug}: a population-based cohort study",
        "Long-term outcomes of {drug} for {disease}: a cohort study from {place}",
    ],
    "cohort": [
        "OBJECTIVE: To estimate the risk of {event} among patients with {disease} who start "
        "{drug}.\nDESIGN: Retrospective cohort study using linked health records of {place}, "
        "{year_from} to {year_to}.\nPARTICIPANTS: {n_large} {adults} with {disease}, of whom "
        "{n} received {drug}. {baseline}\nMAIN OUTCOME: First record of {event}.\nRESULTS: During "
        "a median follow-up of {followup} years, {event} was recorded in {rate_drug}% of users and "
        "{rate_control}% of non-users (adjusted hazard ratio {ratio}; 95% CI {ratio_low} to "
        "{ratio_high}). {sensitivity}\nCONCLUSIONS: {cohort_conclusion}",
    ],
    "laboratory_title": [
        "{Drug} inhibits {target} in {cells}",
        "{Target} as a therapeutic target in {disease}: evidence from {cells}",
        "Mechanism of action of {drug} in models of {disease}",
    ],
    "laboratory": [
        "{background} {Drug} is a selective inhibitor of {target}, but its mode of action in "
        "{disease} is not fully understood. Here we treated {cells} with {drug} and measured "
        "{assay}. {Drug} inhibited {target} with a half-maximal concentration of {ic50} nM and "
        "reduced {readout} by {percent}% after {hours} h ({p_value}). {rescue} In mice, {drug} "
        "{mouse}. Taken together, our data {show} that {target} contributes to {disease} and that "
        "{drug} {lab_conclusion}",
    ],
    "case_title": [
        "{Event} in a patient with {disease} receiving {drug}: a case report",
        "Unexpected response of {disease} to {drug}: case report and review of the literature",
    ],
    "case": [
        "INTRODUCTION: {background}\nCASE PRESENTATION: A {age}-year-old {person} with a "
        "{duration}-year history of {disease} presented with {symptom}. Treatment with {drug} "
        "{dose} mg {schedule} was started. {course}\nCONCLUSION: Clinicians should {advice} "
        "when {drug} is given to patients with {disease}.",
    ],
    "review_title": [
        "{Drug} for {disease}: a systematic review and meta-analysis",
        "Inhibition of {target} in {disease}: a systematic review of randomised trials",
    ],
    "review": [
        "OBJECTIVES: To assess the effects of {drug} in people with {disease}.\nDATA SOURCES: We "
        "searched three databases up to {month} {year_to} without restriction of language.\n"
        "SELECTION: Randomised trials that compared {drug} with {control} and reported {measure}."
        "\nRESULTS: Of {n_large} records, {sites} trials with {n} participants were included. "
        "{Drug} {improved} {measure} (mean difference {difference} {unit}; 95% CI {low} to "
        "{high}; I2 = {percent}%). {evidence} {harms}\nCONCLUSIONS: {trial_conclusion}",
    ],
    "background": [
        "{Disease} is a common cause of morbidity, and its treatment remains difficult.",
        "Many patients with {disease} do not respond to standard therapy.",
        "{Target} is overexpressed in {disease} and has been linked to {event}.",
        "The burden of {disease} has increased over the past two decades.",
        "Activation of {target} plays a central role in the pathogenesis of {disease}.",
    ],
    "gap": [
        "{Drug}, an inhibitor of {target}, showed promise in early studies.",
        "Whether {drug} improves {measure} in these patients is unknown.",
        "We evaluated the efficacy and safety of {drug}, which blocks {target}.",
    ],
    "adults": ["adults", "patients", "adults aged 18 years or older"],
    "schedule": ["once daily", "twice daily", "once weekly", "every four weeks"],
    "analysis": [
        "Analysis was by intention to treat.",
        "Safety was assessed in all patients who received at least one dose.",
        "The trial is registered with the number {registry}.",
    ],
    "baseline": [
        "The mean age was {age} years and {women}% were women.",
        "Baseline characteristics were similar in the two groups.",
        "The median age was {age} years; {women}% were female.",
    ],
    "changed": ["improved", "changed"],
    "improved": ["improved", "had a favourable effect on"],
    "harms": [
        "The most common adverse events were {harm} and {other_harm}.",
        "Serious adverse events were similar in both groups.",
        "{Harm} was more frequent with {drug} than with {control}.",
    ],
    "harm": ["nausea", "headache", "fatigue", "diarrhoea", "rash", "dizziness"],
    "other_harm": ["nasopharyngitis", "injection-site reactions", "back pain", "insomnia"],
    "trial_conclusion": [
        "Among patients with {disease}, {drug} improved {measure} compared with {control}.",
        "{Drug} was effective and generally well tolerated in patients with {disease}.",
        "In {disease}, inhibition of {target} with {drug} resulted in better {measure}. Longer "
        "trials are needed to assess {event}.",
    ],
    "sensitivity": [
        "Results were consistent in sensitivity analyses.",
        "The association was stronger in patients older than {age} years.",
        "No association was seen for a negative control outcome.",
    ],
    "cohort_conclusion": [
        "In patients with {disease}, use of {drug} was associated with a lower risk of {event}.",
        "Treatment with {drug} was associated with less {event}; residual confounding cannot be "
        "excluded.",
    ],
    "assay": ["cell viability and {target} activity", "gene expression by RNA sequencing",
              "phosphorylation of downstream proteins by Western blot"],
    "readout": ["proliferation", "cytokine release", "migration", "oxidative stress"],
    "rescue": [
        "Overexpression of {target} abolished this effect.",
        "Knockdown of {target} by small interfering RNA had the same effect.",
        "No effect was seen in cells that lack {target}.",
    ],
    "mouse": ["reduced the severity of disease without loss of body weight",
              "prolonged survival compared with vehicle", "was well tolerated at {dose} mg/kg"],
    "show": ["show", "suggest", "indicate"],
    "lab_conclusion": ["deserves clinical evaluation.", "acts mainly through this pathway.",
                       "may be of therapeutic value."],
    "person": ["woman", "man"],
    "symptom": ["progressive fatigue", "fever and weight loss", "acute pain", "dyspnoea",
                "worsening of {measure}"],
    "course": [
        "After {weeks} weeks, {measure} had improved by {effect} {unit}, and the patient remained "
        "stable at follow-up.",
        "{weeks} days later the patient developed {harm}. {Drug} was stopped and the symptoms "
        "resolved within {phase} weeks.",
    ],
    "advice": ["be aware of {harm}", "monitor {measure}", "consider the risk of {event}"],
    "evidence": ["The certainty of evidence was moderate.", "The certainty of evidence was low.",
                 "There was no sign of publication bias."],
}  # fmt: skip

KINDS = {"trial": 35, "cohort": 25, "laboratory": 20, "case": 10, "review": 10}


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


def facts(topic: dict[str, str], rng: random.Random) -> dict[str, str]:
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


def expand(text: str, known: dict[str, str], rng: random.Random) -> str:
    """Replaces each {word}, again in what it becomes; {Word} begins with a capital letter."""

    def replace(match: re.Match) -> str:
        word = match[1]
        key = word[0].lower() + word[1:]
        found = expand(known[key] if key in known else rng.choice(GRAMMAR[key]), known, rng)
        return found if word == key else found[0].upper() + found[1:]

    return re.sub(r"\{(\w+)\}", replace, text)


def make_document(seed: int, index: int) -> dict[str, str]:
    """Document ``index`` of the corpus, whatever the number of documents."""
    rng = random.Random(f"{seed}-{index}")
    known = facts(rng.choice(TOPICS), rng)
    kind = rng.choices(list(KINDS), weights=list(KINDS.values()))[0]
    title = expand(rng.choice(GRAMMAR[f"{kind}_title"]), known, rng)
    abstract = expand(rng.choice(GRAMMAR[kind]), known, rng)
    month, day = MONTHS.index(known["month"]) + 1, rng.randint(1, 28)
    return {
        "id": f"SAMPLE-{index:06d}",
        "title": title,
        "date": f"{int(known['year_to']) + 1}-{month:02d}-{day:02d}",
        "source": "invented",
        "licence": LICENCE,
        "text": f"{title}.\n\n{abstract}",
    }


def make_corpus(documents: int, seed: int = 1234) -> Iterator[dict[str, str]]:
    return (make_document(seed, index) for index in range(1, documents + 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="JSONL file to write")
    parser.add_argument("--documents", type=int, default=4000, help="[default: %(default)s]")
    parser.add_argument("--seed", type=int, default=1234, help="[default: %(default)s]")
    arguments = parser.parse_args()
    if arguments.documents < 1:
        parser.error(f"--documents is {arguments.documents}, but a corpus has at least one")

    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    temporary = arguments.output.with_name(f".{arguments.output.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for document in make_corpus(arguments.documents, arguments.seed):
            file.write(json.dumps(document, ensure_ascii=False) + "\n")
    temporary.replace(arguments.output)
    print(f"{arguments.output}: {arguments.documents} documents", file=sys.stderr)


if __name__ == "__main__":
    main()
