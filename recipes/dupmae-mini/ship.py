"""Save a trained model as the shipped one: half precision, with its model card.

    python recipes/dupmae-mini/ship.py MODEL DESTINATION [REPORT ...]

REPORTs are the `report.json` files of `eval`; their figures go into the card. A report of another
model is refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dupmae.card import Card
from dupmae.encoder import Encoder
from dupmae.errors import DupMAEError, SealError

DATA = """\
Training text, about 440,000 rows of which some 20,000 were drawn: SQuAD 1.1 train (CC BY-SA
4.0), Natural Questions by way of QED (CC BY-SA 3.0), MedQuAD (CC BY 4.0), PubMedQA (MIT),
SciTLDR (Apache-2.0), arXiv titles and abstracts (CC0), Wikipedia first paragraphs by way of
OTT-QA (CC BY-SA 3.0). No query and no judgement of a test collection is among them: all figures
are zero-shot."""

RECIPE = """\
Start and teacher: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0). Heads in closed form;
alignment of [CLS] with the mean-pooled teacher and of the sparse part with BM25; DupMAE
pre-training; fine-tuning on the raw sum. The configuration files and the log are in
`recipes/dupmae-mini` of the repository. Trained on two CPU cores in one afternoon: a first
encoder, honestly made, far from the end of what the recipe can give."""

LIMITS = """\
English. Documents are read to 256 tokens, queries to 256; what follows is not seen. A text's
terms are its own word pieces: no expansion is learned yet, so the sparse part finds no synonyms
(the dense part does)."""


def figures(reports: list[Path], encoder: Encoder) -> str:
    """Return a Markdown table of nDCG@10 from reports that this very model made."""
    lines = ["| nDCG@10 | sum | dense | sparse | made on |", "| --- | --- | --- | --- | --- |"]
    for path in reports:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["model_seal"] != encoder.seal:
            raise SealError(f"{path} is of model {report['model_seal']}, not {encoder.seal}")
        values = [f"{values['nDCG@10']:.4f}" for values in report["systems"].values()]
        place = f"{report['collection']} {report['split']}"
        lines.append(f"| {place} | {' | '.join(values)} | {report['date'][:10]} |")
    return "\n".join([*lines, "", "Made by `python cli.py eval --beir NAME`, weights 1 and 1."])


def main() -> None:
    """Ship the model named on the command line."""
    source, destination, *reports = map(Path, sys.argv[1:])
    Encoder.load(source).save(destination, half_precision=True)
    encoder = Encoder.load(destination)  # rounded: what figures are made with
    sections = {"Training data": DATA, "Recipe": RECIPE, "Limits": LIMITS}
    if reports:
        sections = {"Figures": figures(reports, encoder), **sections}
    card = Card(
        description="The encoder that DupMAE Search ships: 6 layers, 384 wide, for CPUs.",
        base_model="sentence-transformers/all-MiniLM-L6-v2",
        sections=sections,
    )
    encoder.save(destination, half_precision=True, card=card)
    print(f"{destination}: seal {encoder.seal}")  # noqa: T201


if __name__ == "__main__":
    try:
        main()
    except DupMAEError as error:
        sys.exit(f"Error: {error}")
