#!/usr/bin/env python
"""Shows what cleaning, the language filter and the quality filter would drop from a corpus.

Example:
    python tools/try_filters.py downloads/pubmed --limit 10000
    python tools/try_filters.py notes.csv --source clinical_notes quality.min_words.clinical_notes=5
"""

import argparse
import sys
from dataclasses import dataclass
from itertools import islice

from megatron_biollm.config import load_config, section
from megatron_biollm.corpus.clean.trial import to_text, try_processors
from megatron_biollm.corpus.language import LanguageConfig, LanguageFilter
from megatron_biollm.corpus.normalise import NormaliseConfig, Normaliser
from megatron_biollm.corpus.quality import QualityConfig, QualityFilter
from megatron_biollm.corpus.read import read_corpus
from megatron_biollm.corpus.report import CorpusReport
from megatron_biollm.log import run_tool


@dataclass
class FilterConfig:
    """Settings of the three processors."""

    normalise: NormaliseConfig = section(NormaliseConfig, "cleaning")
    language: LanguageConfig = section(LanguageConfig, "languages")
    quality: QualityConfig = section(QualityConfig, "quality")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", help="file or folder of source files")
    parser.add_argument("overrides", nargs="*", help="settings, for example quality.max_broken=0.2")
    parser.add_argument("--config", help="YAML file with normalise, language and quality sections")
    parser.add_argument("--source", help="what the files are, where their content cannot say it")
    parser.add_argument("--limit", type=int, help="documents to try; all without it")
    args = parser.parse_args()
    config = load_config(FilterConfig, args.config, args.overrides)
    processors = (
        Normaliser(config.normalise),
        LanguageFilter(config.language),
        QualityFilter(config.quality),
    )
    documents = read_corpus([args.corpus], CorpusReport(), source=args.source)
    print(to_text(try_processors(islice(documents, args.limit), processors)))


if __name__ == "__main__":
    sys.exit(run_tool(main))
