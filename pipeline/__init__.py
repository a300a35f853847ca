"""Merge fine-tuned CLIP experts into one model: task vectors, merging methods, AdaMerging."""

__version__ = "0.1.0"
