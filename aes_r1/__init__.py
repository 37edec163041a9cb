"""Aes-R1: teach vision-language models to critique and score photographs (arXiv 2509.21871)."""

__version__ = "0.1.0"
