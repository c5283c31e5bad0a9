"""Adapting a model to a corpus: pre-training, then self-supervised fine-tuning, on its documents.

What it writes; the same call goes on where it was stopped:

    adapt.toml     every setting, defaults included; marks the folder as an adaptation's
    0-start/       the start model, with the corpus's idf in its query weights
    rows.jsonl     {"query", "text"} of the documents that are not held out
    1-pretrain/    run of `pretrain.py`
    2-finetune/    run of `finetune.py`
    model/         the adapted model

How the stages fit: stage 2 freezes the body and is taught by it, through the mean of its states,
their late interaction, and BM25. So that nothing is unlearned the body must still be nearly the
start model's: stage 1 moves the topmost layer and the MLM head alone, at a small rate, and the
heads follow in stage 2. The start model itself as a second body would take half of the time.

Source: Liu et al., RetroMAE-2 (ACL 2023), which pre-trains on the corpus that is searched; pairs
of spans and texts from the inverse cloze task (`data.cut_span`).

Left out: settings and the runs they ask for (`stages.py`), reading corpus files
(`engine/corpus.py`).
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dupmae.card import Card
from dupmae.checkpoint import LoadedModel, load_model, save_model
from dupmae.config import save_config
from dupmae.data import Row, cut_span
from dupmae.errors import CheckpointError, DataError, UsageError
from dupmae.files import replacing
from dupmae.finetune import finetune
from dupmae.folder import find_folder, read_settings, shipped_model
from dupmae.inputs import CHARACTERS_A_TOKEN
from dupmae.pretrain import pretrain
from dupmae.probe import probe_pairs
from dupmae.processes import resolve_device
from dupmae.stages import AdaptSettings, finetune_config, pretrain_config
from dupmae.state import model_seal
from dupmae.tokens import Tokens
from dupmae.types import Document

__all__ = ["AdaptSettings", "Adapted", "adapt", "make_rows", "take_in_idf"]

logger = logging.getLogger(__name__)

LEAST_ROWS = 20
"""Fewer leave less than two to be held out, and little to tell a text apart from."""
LEAST_WORDS = 8
"""Of a text: enough for a span of three words and a rest, and for a block to pre-train on."""
_OWN_NAMES = {"adapt.toml", "0-start", "rows.jsonl", "1-pretrain", "2-finetune", "model"}


@dataclass(frozen=True)
class Adapted:
    """What came of an adaptation."""

    model: Path
    """The model's folder."""
    seal: str
    start: str
    """The start model's name."""
    start_seal: str
    corpus: str
    """What the documents are called."""
    documents: int
    held_out: int
    """Documents of them that were kept for the probes."""
    pretrain_steps: int
    finetune_steps: int
    before: Mapping[str, float]
    """RR@10 of finding the held-out documents, by the start model's sum and each of its parts."""
    after: Mapping[str, float]
    """The same by the adapted model."""


def adapt(
    documents: Sequence[Document],
    model: Path | str | None,
    folder: Path,
    settings: AdaptSettings,
    *,
    corpus: str = "a corpus",
) -> Adapted:
    """Adapt a model to documents, going on in `folder` if an adaptation was stopped there.

    Args:
        documents: the corpus, or a sample of it.
        model: a model folder with all its heads; the shipped model if None.
        folder: of this adaptation alone; the module says what is written there.
        settings: all numbers.
        corpus: what messages and the model card call the documents.

    Raises:
        DataError: too few documents have enough text, or they are not those that the adaptation
            in `folder` was begun with.
        CheckpointError: the model cannot be read or lacks heads, or a checkpoint is damaged.
        UsageError: `folder` holds something else, or an adaptation of another model or with other
            settings; or the settings do not fit the model.
        TrainingError: a loss or gradient is not finite.
        KeyboardInterrupt: it was interrupted; what was done is saved.
    """
    _check_place(folder)
    start = _load_start(model)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    rows, pairs, texts = _split(documents, start, settings, corpus)
    start_seal = model_seal(start.model, start.tokenizer)
    first = second = None
    last = folder / "0-start"
    if settings.pretrain.passes:
        first = pretrain_config(settings, start, last, len(texts))
        last = folder / "1-pretrain" / "model"
    if settings.finetune.passes:
        second = finetune_config(settings, start, last, folder / "rows.jsonl", len(rows))
        last = folder / "2-finetune" / "model"

    take_in_idf(start, [document.content for document in documents])
    _keep_inputs(settings, rows, start, folder)
    before = _probe(start, pairs, settings, "before")
    if first is not None:
        pretrain(first, folder / "1-pretrain", texts=texts)
    if second is not None:
        finetune(second, folder / "2-finetune")
    end = load_model(last)
    after = _probe(end, pairs, settings, "after")
    result = Adapted(
        folder / "model",
        model_seal(end.model, end.tokenizer),
        start.name,
        start_seal,
        corpus,
        len(documents),
        len(pairs),
        first.trainer.steps if first else 0,
        second.trainer.steps if second else 0,
        before,
        after,
    )
    save_model(end.model, end.tokenizer, result.model, name=end.name, card=_card(result))
    return result


def make_rows(documents: Sequence[Document], length: int, seed: int) -> dict[int, Row]:
    """Make of each document with enough text a row that asks for it: a document's number → row.

    The query is the title, where no other document has the same; else a random span, which is
    cut out of the text. A text is cut to about what is read of it, so that spans come from there.

    Args:
        documents: in the order in which spans are drawn.
        length: tokens that will be read of a document.
        seed: of the spans.
    """
    chance = torch.Generator().manual_seed(seed)
    titles = [" ".join(document.title.split()) for document in documents]
    shared = Counter(title.casefold() for title in titles)
    rows = {}
    for number, (document, title) in enumerate(zip(documents, titles, strict=True)):
        # English has some four tokens to three words.
        words = document.text[: length * CHARACTERS_A_TOKEN].split()[: length * 3 // 4]
        if len(words) >= LEAST_WORDS:
            row = Row(title, " ".join(words))
            is_own = title and shared[title.casefold()] == 1
            rows[number] = row if is_own else cut_span(row, chance)
    return rows


@torch.no_grad()
def take_in_idf(loaded: LoadedModel, texts: Sequence[str]) -> None:
    """Move a corpus's idf from where it is counted at search time into the query weights.

    A model with `corpus_idf` weighs a query's terms by (idf in the searched corpus ÷ idf in its
    training text). Training knows no such factor, so what it learned of the corpus's idf would
    count twice. With the factor in the weights and the corpus's idf as training idf the factor
    is 1 in this corpus for all terms that it holds: training ranks as search does, and search
    scores as it did before.

    Args:
        loaded: changed in place; left alone without `corpus_idf`.
        texts: all documents of the corpus.
    """
    model, tokens = loaded.model, Tokens(loaded.tokenizer)
    if model.training_idf is None:
        return
    size, length = tokens.vocabulary_size, model.heads.max_document_length
    frequency_V, terms_V = torch.zeros(size), torch.arange(size)
    for start in range(0, len(texts), 1000):
        chunk = [text[: length * CHARACTERS_A_TOKEN] for text in texts[start : start + 1000]]
        for ids in tokens.ids(chunk, length):
            frequency_V[torch.tensor(ids).unique()] += 1
    old_V = model.corpus_factors(terms_V, frequency_V, len(texts))
    # The idf of which `corpus_factors` makes 1 where a corpus is like it.
    model.training_idf[:size] = torch.log(len(texts) / frequency_V.clamp(0.5, len(texts) - 0.5))
    new_V = model.corpus_factors(terms_V, frequency_V, len(texts))
    assert old_V is not None
    assert new_V is not None
    # new_V is 1 but for terms of nearly all or of no texts.
    model.query_term_weight[:size] *= old_V / new_V


def _check_place(folder: Path) -> None:
    """Raise UsageError unless this is the only process and the folder new, empty or our own."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("adapt runs in one process; start it without torchrun")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; an adaptation is written into a folder")
    # What a killed run left half-written begins with a dot.
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    others = sorted(names - _OWN_NAMES) or sorted(names if "adapt.toml" not in names else ())
    if others:
        raise UsageError(
            f"{folder} holds {others[0]}, which is no part of an adaptation; name another folder"
        )


def _load_start(model: Path | str | None) -> LoadedModel:
    folder = find_folder(shipped_model() if model is None else model)
    if read_settings(folder)[1] is None:
        raise CheckpointError(
            f"{folder} is a bare encoder without retrieval heads (no dupmae.json); make it a "
            "retriever with finetune first, then adapt that"
        )
    loaded = load_model(folder)
    if loaded.missing:
        raise CheckpointError(f"{folder} lacks {', '.join(loaded.missing)}; adapt a whole model")
    return loaded


def _split(
    documents: Sequence[Document], start: LoadedModel, settings: AdaptSettings, corpus: str
) -> tuple[list[Row], list[tuple[str, str]], list[str]]:
    """Return rows to train on, pairs to probe with, and the texts of all that is not held out."""
    length = min(settings.finetune.document_length, start.model.heads.max_document_length)
    rows = make_rows(documents, length, settings.seed)
    if len(rows) < LEAST_ROWS:
        raise DataError(
            f"{corpus} has {len(rows)} documents with {LEAST_WORDS} words of text or more, "
            f"adapting needs at least {LEAST_ROWS}"
        )
    order = np.random.default_rng(settings.seed).permutation(list(rows)).tolist()
    held_out = set(order[: min(settings.held_out, len(rows) // 10)])
    pairs = [(row.query, row.text) for number, row in rows.items() if number in held_out]
    kept = [row for number, row in rows.items() if number not in held_out]
    texts = [doc.content for number, doc in enumerate(documents) if number not in held_out]
    return kept, pairs, texts


def _keep_inputs(
    settings: AdaptSettings, rows: Sequence[Row], start: LoadedModel, folder: Path
) -> None:
    """Write what the stages start from; what is there already must be the same.

    That the settings are the same the runs see to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "adapt.toml").exists():
        save_config(settings, folder / "adapt.toml")
    lines = (json.dumps({"query": row.query, "text": row.text}) + "\n" for row in rows)
    content, path = "".join(lines).encode(), folder / "rows.jsonl"
    if not path.exists():
        with replacing(path) as file:
            file.write(content)
    elif path.read_bytes() != content:
        raise DataError(
            f"the adaptation in {folder} was begun with other documents, or another seed, held_out "
            "or finetune.document_length; give it the same to go on, or name another folder"
        )
    model = folder / "0-start"
    if not model.exists():
        save_model(start.model, start.tokenizer, model, name=start.name)
        return
    begun = load_model(model)
    if model_seal(begun.model, begun.tokenizer) != model_seal(start.model, start.tokenizer):
        raise UsageError(
            f"the adaptation in {folder} was begun with another model than {start.name} as it is "
            "now; give it the same to go on, or name another folder"
        )


def _probe(
    loaded: LoadedModel, pairs: Sequence[tuple[str, str]], settings: AdaptSettings, when: str
) -> dict[str, float]:
    device = resolve_device(settings.device)
    model = loaded.model.to(device)
    measures = probe_pairs(model, Tokens(loaded.tokenizer, device), pairs)
    rounded = {name.removeprefix("probe_"): round(value, 6) for name, value in measures.items()}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in rounded.items())
    logger.info("RR@10 of %d held-out documents %s: %s", len(pairs), when, shown)
    return rounded


def _card(result: Adapted) -> Card:
    measures = "; ".join(
        f"{part} {value:.3f} → {result.after[part]:.3f}" for part, value in result.before.items()
    )
    text = f"""\
Adapted to {result.corpus}, {result.documents:,} documents, from {result.start}, whose seal is
`{result.start_seal}`. {result.pretrain_steps} steps of DupMAE pre-training,
{result.finetune_steps} of self-supervised fine-tuning; no query and no judgement was used.

RR@10 of finding {result.held_out:,} documents that were held out, before → after: {measures}.
"""
    return Card(
        description=f"The DupMAE encoder {result.start}, adapted to {result.corpus}.",
        license="",  # who owns the texts decides
        base_model=result.start,
        sections={"Adaptation": text},
    )
