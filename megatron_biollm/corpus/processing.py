"""What is done to each document, in order, and the settings of it."""

import hashlib
import hmac
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError, section
from megatron_biollm.corpus.decontaminate.config import DecontaminateConfig
from megatron_biollm.corpus.decontaminate.decontaminator import Decontaminator, fingerprint
from megatron_biollm.corpus.deidentify.config import DeidentifyConfig, read_secret
from megatron_biollm.corpus.deidentify.engine import Deidentifier
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.language import LanguageConfig, LanguageFilter
from megatron_biollm.corpus.normalise import NormaliseConfig, Normaliser
from megatron_biollm.corpus.patent_selection import PatentSelection, PatentSelectionConfig
from megatron_biollm.corpus.quality import QualityConfig, QualityFilter
from megatron_biollm.corpus.steps import Processor


@dataclass
class ProcessingConfig:
    """The sections on what happens to a document; `CurationConfig` takes them over."""

    patents: PatentSelectionConfig = section(PatentSelectionConfig, "which patents are biomedical")
    normalise: NormaliseConfig = section(NormaliseConfig, "characters, notices, furniture")
    language: LanguageConfig = section(LanguageConfig, "languages that stay")
    quality: QualityConfig = section(QualityConfig, "limits beyond which a text is dropped")
    deidentify: DeidentifyConfig = section(DeidentifyConfig, "identifiers in clinical notes")
    decontaminate: DecontaminateConfig = section(DecontaminateConfig, "benchmarks kept out")


# Settings on which the first stage's documents depend; those of decontamination come last.
FIRST_SECTIONS = ("patents", "normalise", "language", "quality", "deidentify")


def first_processors(config: ProcessingConfig) -> list[Processor]:
    """Selection, cleaning and de-identification, before anything is written."""
    return [
        PatentSelection(config.patents),
        Normaliser(config.normalise),
        LanguageFilter(config.language),
        QualityFilter(config.quality),
        _deidentifier(config.deidentify),
    ]


def last_processors(config: ProcessingConfig, cache: Path) -> list[Processor]:
    """What is worth doing only to the documents that deduplication leaves.

    cache: folder for what tasks share, where the settings name none.
    """
    wanted = config.decontaminate
    if not wanted.benchmarks:
        return []
    return [Decontaminator(replace(wanted, cache=wanted.cache or str(cache)))]


def last_fingerprint(config: ProcessingConfig) -> str | None:
    """Changes with the content of the benchmark files."""
    return fingerprint(config.decontaminate) if config.decontaminate.benchmarks else None


def secret_fingerprint(config: DeidentifyConfig) -> str | None:
    """Changes with the secret and tells nothing of it; None without one."""
    try:
        secret = read_secret(config)
    except UserError:
        return None
    return hmac.new(secret, b"fingerprint of the curation's stages", hashlib.sha256).hexdigest()


class SecretMissing:
    """Stands for the de-identification of a corpus that may hold no clinical note at all."""

    name = "deidentify"

    def __init__(self, config: DeidentifyConfig):
        self.config = config

    def __call__(self, document: Document) -> Document:
        """Raises UserError at the first document that would have to be de-identified."""
        if document.source in self.config.sources:
            read_secret(self.config)
        return document


def _deidentifier(config: DeidentifyConfig) -> Any:
    return Deidentifier(config) if secret_fingerprint(config) else SecretMissing(config)
