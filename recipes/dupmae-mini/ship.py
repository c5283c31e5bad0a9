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
from dupmae.errors import DupMAEError, SealError
from dupmae.torch_encoder import TorchEncoder

DATA = """\
Some 20,000 texts, spread evenly over seven files of about 440,000 rows, from which means, idf and
two linear maps were computed: SQuAD 1.1 train (CC BY-SA 4.0), Natural Questions by way of QED (CC
BY-SA 3.0), MedQuAD (CC BY 4.0), PubMedQA (MIT), SciTLDR (Apache-2.0), arXiv abstracts (CC0),
Wikipedia first paragraphs by way of OTT-QA (CC BY-SA 3.0). No query and no judgement of a test
collection is among them: all figures are zero-shot."""

RECIPE = """\
The body is that of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), unchanged. Its heads are
made in closed form, without a gradient step: [CLS] attends evenly to all tokens, which is the mean
pooling that the body was trained for; the MLM head is a ridge regression of each token's own
embedding on its last state, and also says which other terms join a query; query term weights are
idf, lighter in long queries, and document weights know term frequency as BM25 does.
`recipes/dupmae-mini` of the repository makes it in two minutes; `docs/encoder.md` there says what
training was tried and did not help yet."""

SYSTEMS = ("hybrid", "no-feedback", "dense", "sparse")
"""Of a report, in the order of the card's columns."""

LIMITS = """\
English. Documents are read to 512 tokens, queries to 256; what follows is not seen. A document's
terms are its own word pieces, the 192 that matter most. In an index it takes over up to 32 of its
nearest documents, so that its score depends on these too (`index --no-borrow` leaves that out). A
query gets up to 32 more, which are related by how words are used, opposites among them
("increase", "decrease")."""


def figures(reports: list[Path], encoder: TorchEncoder) -> str:
    """Return a Markdown table of nDCG@10 from reports that this very model made."""
    lines = [
        "| nDCG@10 | sum with feedback | sum | dense | sparse | made on |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for path in reports:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["model_seal"] != encoder.seal:
            raise SealError(f"{path} is of model {report['model_seal']}, not {encoder.seal}")
        systems = (report["systems"][name] for name in SYSTEMS)
        values = [f"{measures['nDCG@10']:.4f}" for measures in systems]
        place = f"{report['collection']} {report['split']}"
        lines.append(f"| {place} | {' | '.join(values)} | {report['date'][:10]} |")
    return "\n".join([*lines, "", "Made by `python cli.py eval --beir NAME`, weights 1 and 1."])


def main() -> None:
    """Ship the model named on the command line."""
    source, destination, *reports = map(Path, sys.argv[1:])
    TorchEncoder.load(source).save(destination, half_precision=True)
    encoder = TorchEncoder.load(destination)  # rounded: what figures are made with
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
