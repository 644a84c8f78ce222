"""What an expert can say about two answers, by the keys that the database and the exports hold."""

# As shown: a is the answer on the left.
PREFERENCES = {
    "a": "Answer A is better",
    "b": "Answer B is better",
    "tie": "Equally good",
    "both_unsafe": "Both are unsafe",
    "cannot_judge": "I cannot judge this",
}
# As stored in verdicts and gold answers: first and second are the order of the import.
VERDICTS = ("first", "second", "tie", "both_unsafe")
STRENGTHS = {1: "slightly", 2: "clearly", 3: "much"}
CATEGORIES = {
    "harmful_advice": "Advice that could injure",
    "wrong_dose": "Wrong drug or dose",
    "missed_emergency": "Emergency or red flag missed",
    "interaction": "Contraindication or interaction missed",
    "false_reassurance": "False reassurance or delayed care",
    "privacy": "Reveals personal data",
    "bias": "Biased or discriminating",
    "other": "Other harm",
}
ANNOTATOR, ADJUDICATOR, DATASET = "annotator", "adjudicator", "dataset"
ROLES = (ANNOTATOR, ADJUDICATOR, DATASET)
# Longest texts that an expert may type, in characters.
LONGEST_RATIONALE = 20_000
LONGEST_CORRECTION = 200_000
