"""Which patents are biomedical, by their classification."""

import re
from dataclasses import dataclass

from megatron_biollm.config import UserError, option
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.steps import Drop

# The fields "pharmaceuticals", "biotechnology", "medical technology" and "analysis of biological
# materials" of WIPO's IPC-technology concordance (Schmoch 2008, as revised), with these changes.
# Left out: cosmetics (A61K8, A61Q; the concordance does so too), wheelchairs and coffins (A61G),
# food, water and other matter in G01N33 (subgroups below 48). Added: nucleosides and steroids,
# combinatorial libraries, informatics of life science and of health, animal models, organ
# storage, dietary supplements. Other organic chemistry (C07C, C07D) is not here: drugs in it also
# bear A61K or A61P, and what bears neither is dyes, light-emitting layers and plastics.
BIOMEDICAL_CLASSES = """
    A61B A61C A61D A61F A61H A61J A61L A61M A61N A61P
    A61K6 A61K9 A61K31 A61K33 A61K35 A61K36 A61K38 A61K39 A61K41 A61K45 A61K47 A61K48 A61K49
    A61K50 A61K51
    C07G C07H C07J C07K C12M C12N C12P C12Q C12R C12S C12Y C40B
    G01N33/48 G01N33/49 G01N33/5 G01N33/6 G01N33/7 G01N33/8 G01N33/9
    G16B G16H A01K67 A01N1 A23L33
"""

_SYMBOL = re.compile(r"[A-HY](\d\d([A-Z](\d{1,4}(/\d*)?)?)?)?")


@dataclass
class PatentSelectionConfig:
    """Patents of which classes are kept."""

    classes: list[str] = option(
        BIOMEDICAL_CLASSES.split(),
        "IPC and CPC symbols or their beginnings (A61K31, G01N33/5); none: all patents are kept",
    )

    def __post_init__(self) -> None:
        for symbol in self.classes:
            if not _SYMBOL.fullmatch(symbol):
                raise UserError(
                    f"patent class {symbol!r} is no IPC or CPC symbol; write it like A61K, "
                    "A61K31 or A61K31/70, without spaces"
                )


class PatentSelection:
    """Drops patents none of whose classes is selected; other sources pass."""

    name = "patent_selection"

    def __init__(self, config: PatentSelectionConfig):
        self.classes = tuple(config.classes)

    def __call__(self, document: Document) -> Document | Drop:
        if document.source != "patents" or not self.classes:
            return document
        symbols = document.metadata.get("classification") or []
        if any(self._is_selected(symbol) for symbol in symbols):
            return document
        return Drop("not_biomedical", ", ".join(symbols) or "no IPC or CPC class")

    def _is_selected(self, symbol: str) -> bool:
        return any(_begins(symbol, selected) for selected in self.classes)


def _begins(symbol: str, selected: str) -> bool:
    """Whether a symbol lies in a class: A61K31/70 in A61K31, but A61K317 not.

    Subgroups are decimal fractions, so that G01N33/5 has 33/53 and 33/5308 in it.
    """
    rest = symbol.removeprefix(selected)
    if rest == symbol:
        return False
    return "/" in selected or not selected[-1].isdigit() or not rest[:1].isdigit()
