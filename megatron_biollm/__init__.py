"""Pretraining, alignment and export of biomedical language models with megatron-core."""

__version__ = "0.1.0"
