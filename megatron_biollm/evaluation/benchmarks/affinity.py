"""DAVIS and KIBA: how strongly a drug binds its target, told from structure and sequence.

Davis et al. 2011 (https://doi.org/10.1038/nbt.1990), the dissociation constant of kinase
inhibitors, told as pKd = -log10(Kd / 10^9 nM); Tang et al. 2014 (https://doi.org/10.1021/
ci400709d), scores that join Ki, Kd and IC50. Files and folds of DeepDTA, `data/` of
https://github.com/hkmztrk/DeepDTA (Öztürk et al. 2018): a matrix of drugs by targets, whose known
pairs the folds count row by row.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Benchmark, Convention, Conventions, Prompt, Source
from megatron_biollm.evaluation.files import filled, read_json, read_text
from megatron_biollm.evaluation.items import NumberItem, Prediction
from megatron_biollm.evaluation.numbers import score_numbers
from megatron_biollm.evaluation.tally import Tally

_SMILES = Convention(
    "smiles",
    ("canonical", "isomeric"),
    "how a drug's structure is written: canonical SMILES, as DeepDTA has it, or with isomers",
)
_ROLES = {"canonical": "drugs", "isomeric": "isomers"}


def read(
    source: Source, conventions: Conventions, unit: Callable[[np.ndarray], np.ndarray], by: str
) -> list[NumberItem]:
    """The pairs of a fold, in its order.

    Args:
        unit: what the matrix holds to what is told.
        by: "drug" or "target", the side with fewer members: the unit that intervals resample.

    Raises:
        UserError: with the file: another format, a matrix of another shape, a pair there is not.
    """
    drugs = _texts(source.path(_ROLES[conventions["smiles"]]))
    targets = _texts(source.path("targets"))
    affinity = unit(_matrix(source.path("affinities"), len(drugs), len(targets)))
    known = np.argwhere(~np.isnan(affinity))
    names = list(drugs), list(targets)
    items = []
    for pair in _fold(source.path("fold"), len(known)):
        row, column = known[pair]
        drug, target = names[0][row], names[1][column]
        items.append(
            NumberItem(
                id=f"{drug}/{target}",
                document=drug if by == "drug" else target,
                text=f"Drug (SMILES): {drugs[drug]}\nTarget {target}: {targets[target]}",
                value=float(affinity[row, column]),
            )
        )
    return filled(items, source.path("fold"))


def score(
    items: Sequence[NumberItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """Concordance index, mean squared error and r_m squared."""
    return score_numbers(items, predictions)


def _texts(path: Path) -> dict[str, str]:
    """Structures or sequences by name, in the order of the matrix."""
    texts = read_json(path)
    if not isinstance(texts, dict) or not all(isinstance(one, str) for one in texts.values()):
        raise UserError(f"{path} must be a JSON object of texts by name, as DeepDTA has it")
    return texts


def _matrix(path: Path, drugs: int, targets: int) -> np.ndarray:
    """[drugs, targets], NaN where a pair was not measured."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            rows.append(np.array(line.split(), float))
        except ValueError as error:
            raise UserError(f"{path}:{number} holds what is no number ({error})") from error
        if len(rows[-1]) != targets:
            raise UserError(
                f"{path}:{number} has {len(rows[-1])} columns; it must have one for each of "
                f"{targets} targets"
            )
    if len(rows) != drugs:
        raise UserError(
            f"{path} has {len(rows)} lines; it must have one for each of {drugs} drugs; where it "
            f"was cut off, download it again"
        )
    return np.stack(rows)


def _fold(path: Path, known: int) -> list[int]:
    """Places among the known pairs; of a file of several training sets, all of them."""
    fold = read_json(path)
    if isinstance(fold, list) and fold and all(isinstance(one, list) for one in fold):
        fold = sorted({place for one in fold for place in one})
    if not isinstance(fold, list):
        raise UserError(f"{path} must be a JSON list of places, or a list of such lists")
    for place in fold:
        if not isinstance(place, int) or not 0 <= place < known:
            raise UserError(f"{path} names pair {place!r:.40}; there are 0 to {known - 1}")
    return fold


def _pkd(nanomolar: np.ndarray) -> np.ndarray:
    return 9 - np.log10(nanomolar)


def _score_of_kiba(found: np.ndarray) -> np.ndarray:
    return found


def _benchmark(name: str, matrix: str, prompt: Prompt, read: Callable) -> Benchmark:
    files = {
        "drugs": "ligands_can.txt",
        "isomers": "ligands_iso.txt",
        "targets": "proteins.txt",
        "affinities": matrix,
    }
    return Benchmark(
        name=name,
        title=name.upper(),
        task="extra",
        folder=f"extra_dta/{name}",
        download=f"DeepDTA, data/{name} (https://github.com/hkmztrk/DeepDTA)",
        splits={
            "test": {**files, "fold": "folds/test_fold_setting1.txt"},
            "train": {**files, "fold": "folds/train_fold_setting1.txt"},
        },
        test_split="test",
        fewshot_split="train",
        prompt=prompt,
        read=read,
        score=score,
        conventions=(_SMILES,),
    )


DAVIS = _benchmark(
    "davis",
    "drug-target_interaction_affinities_Kd__Davis_et_al.2011v1.txt",
    Prompt(
        "How strongly does the drug bind the kinase? Give pKd, the negative decimal logarithm of "
        "the dissociation constant in mol/l, from 5 (not at all) to 11 (very strongly), as a "
        "number.",
        (
            "Estimate the pKd of this kinase inhibitor and its target; 5 means no binding. Reply "
            "with a number.",
            "From structure and sequence, tell the binding affinity as pKd (5 to 11). Answer with "
            "one number.",
        ),
    ),
    partial(read, unit=_pkd, by="drug"),
)
KIBA = _benchmark(
    "kiba",
    "kiba_binding_affinity_v2.txt",
    Prompt(
        "How strongly does the drug bind the kinase? Give the KIBA score, from 0 (not at all) to "
        "17 (very strongly), as a number.",
        (
            "Estimate the KIBA score of this inhibitor and its target, 0 to 17. Reply with a "
            "number.",
            "From structure and sequence, tell the binding affinity as KIBA score. Answer with one "
            "number.",
        ),
    ),
    partial(read, unit=_score_of_kiba, by="target"),
)
