"""The model card: the README.md of a saved model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from dupmae.heads import HeadSettings


@dataclass(frozen=True)
class Card:
    """What a model's maker says of it; empty fields are left out of the card."""

    description: str = "A DupMAE encoder: one forward pass gives a dense and a sparse vector."
    license: str = "apache-2.0"
    base_model: str = ""
    datasets: tuple[str, ...] = ()
    language: tuple[str, ...] = ("en",)
    sections: Mapping[str, str] = field(default_factory=dict)
    """Heading → Markdown text, for instance the training recipe and measured figures."""


def render_card(card: Card, *, name: str, heads: HeadSettings, parameters: int, seal: str) -> str:
    """Return the card as Markdown with YAML front matter.

    Args:
        card: what the maker says.
        name: what users call the model.
        heads: listed one a row.
        parameters: how many numbers the model holds.
        seal: digest that an index made with the model carries.
    """
    settings = "\n".join(f"| `{key}` | {value} |" for key, value in asdict(heads).items())
    sections = "".join(f"\n## {title}\n\n{text.strip()}\n" for title, text in card.sections.items())
    return f"""---
{_front_matter(card)}---

# {name}

{card.description}

## Usage

```python
from dupmae.encoder import Encoder

encoder = Encoder.load("path/to/this/folder")
encoded = encoder.encode_documents(["Vitamin D and calcium reduced the rate of hip fractures."])
encoded.dense  # (1, {heads.dense_dim}) float32
encoded.sparse  # terms and weights; a score is the sum of both inner products
```

`BertForMaskedLM.from_pretrained` reads the folder too, without the parts in `heads.safetensors`.

## Settings

| setting | value |
| --- | --- |
{settings}

{parameters:,} parameters. Seal: `{seal}`
{sections}"""


def _front_matter(card: Card) -> str:
    """Write the YAML; JSON's strings and lists are valid YAML, so no value needs escaping."""
    entries = {
        "library_name": "dupmae",
        "pipeline_tag": "feature-extraction",
        "license": card.license,
        "base_model": card.base_model,
        "datasets": list(card.datasets),
        "language": list(card.language),
    }
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in entries.items() if value]
    return "".join(lines)
