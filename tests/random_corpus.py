"""Documents of words that are as unequally frequent as those of texts, and an index of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fakes import FakeEncoder

from dupmae.engine import build_index, delete_documents
from dupmae.types import Document

WORDS = [f"w{number}" for number in range(300)]


def random_documents(count: int, words: int = 12) -> list[Document]:
    rng = np.random.default_rng(0)
    shares = np.arange(1, len(WORDS) + 1) ** -0.7
    return [
        Document(
            f"d{number}",
            " ".join(rng.choice(WORDS, words, p=shares / shares.sum())),
            metadata={"third": number % 3, "tenth": number % 10},
        )
        for number in range(count)
    ]


def build_three_segments(folder: Path, *options: dict[str, Any]) -> None:
    """Index 1500 documents in three segments, each with its options; delete one in seven."""
    documents = random_documents(1500)
    parts = documents[:1000], documents[1000:1400], documents[1400:]
    for part, chosen in zip(parts, options, strict=True):
        build_index(part, FakeEncoder(), folder, **chosen)
    delete_documents(folder, [document.doc_id for document in documents[::7]])
