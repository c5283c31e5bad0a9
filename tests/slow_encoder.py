"""One text's vectors by the definition, term by term, from Hugging Face's own logits."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from tiny_model import VOCABULARY, tiny_tokenizer

from dupmae.model import DupMAE
from dupmae.types import CorpusStatistics

TOKENIZER = tiny_tokenizer()
SPECIAL_IDS = set(TOKENIZER.all_special_ids)


def slow_factors(idf: list[float], corpus: CorpusStatistics, power: float) -> list[float]:
    """Return (idf in the corpus, counted with 1000 texts of training ÷ idf in training)^power."""
    factors = []
    for training, frequency in zip(idf, corpus.frequency.tolist(), strict=True):
        counted = frequency + 1001 * math.exp(-training) - 0.5
        here = math.log(1 + (corpus.documents + 1000 - counted + 0.5) / (counted + 0.5))
        factors.append((here / max(training, 0.05)) ** power)
    return factors


@torch.no_grad()
def slow_encode(
    model: DupMAE, text: str, *, as_query: bool, corpus: CorpusStatistics | None = None
) -> tuple[list[float], dict]:
    """Encode one text by the definition, from Hugging Face's own logits, term by term."""
    tokenizer, heads = TOKENIZER, model.heads
    length = heads.max_query_length if as_query else heads.max_document_length
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: length - 2]
    ids = [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
    output = model.lm(input_ids=torch.tensor([ids]), output_hidden_states=True)
    cls = model.cls_state(output.hidden_states[-1], torch.ones(1, len(ids)))[0]
    dense = (model.cls_projection.weight @ cls).tolist()
    if heads.normalize:
        norm = math.sqrt(sum(x * x for x in dense))
        dense = [x / norm for x in dense]
    weights: dict[int, float] = {}
    logits = output.logits[0].tolist()
    votes = [place for place, t in enumerate(ids) if t not in SPECIAL_IDS]
    neighbours = model.term_neighbours.tolist() if heads.k_neighbours else []
    for term in set(range(len(VOCABULARY))) - SPECIAL_IDS:
        logit = max((logits[place][term] for place in votes), default=-1.0)
        weight = math.log1p(max(0.0, logit))
        if heads.activation == "log1p2_relu":
            weight = math.log1p(weight)
        weights[term] = weight
        if heads.k_neighbours and term not in ids:
            weights[term] *= any(term in neighbours[ids[place]] for place in votes)
        if not as_query:
            weights[term] *= slow_factor(model, term, ids, len(votes))
    if as_query:
        weights = slow_query(model, weights, ids, corpus)
        gain = math.exp(float(model.query_log_gain(cls)))
        weights = {term: w * gain for term, w in weights.items()}
    k = heads.k_query if as_query else heads.k_document
    # Of a document those stay that may add most to a score.
    worth = {t: w * (1.0 if as_query else query_factor(model, t)) for t, w in weights.items()}
    weights = {term: weight for term, weight in weights.items() if weight > 0}
    best = sorted(weights, key=lambda term: (-worth[term], term))[:k]
    return dense, {term: weights[term] for term in best}


def query_factor(model: DupMAE, term: int) -> float:
    return max(0.0, float(model.query_term_weight[term]))


def slow_factor(model: DupMAE, term: int, ids: list[int], votes: int) -> float:
    """Return what a document's weight is multiplied by."""
    heads, count = model.heads, ids.count(term)
    if not count:
        return heads.expansion * heads.expand_documents
    k1, b = heads.frequency_k1, heads.frequency_b
    return count * (k1 + 1) / (count + k1 * (1 - b + b * votes / heads.frequency_length))


def slow_query(
    model: DupMAE, weights: dict[int, float], ids: list[int], corpus: CorpusStatistics | None
) -> dict[int, float]:
    heads, factors = model.heads, model.query_term_weight.tolist()
    weights = {term: w * max(0.0, factors[term]) for term, w in weights.items()}
    if corpus is not None:
        rarity = slow_factors(model.training_idf.tolist(), corpus, heads.corpus_idf)
        held = {term for term in weights if corpus.frequency[term] or term in ids}
        weights = {term: w * rarity[term] * (term in held) for term, w in weights.items()}
    own = {term: w for term, w in weights.items() if term in ids}
    others = sorted(weights.keys() - own.keys(), key=lambda term: (-weights[term], term))
    expanding = {term: weights[term] for term in others[: heads.k_expansion]}
    if heads.normalize_query_terms:
        own, expanding = slow_unit(own), slow_unit(expanding)
    both = own | {term: w * heads.expansion for term, w in expanding.items()}
    if heads.normalize_query_terms and any(own.values()):
        both = {term: w / slow_length(own.values(), heads.query_norm) for term, w in both.items()}
    return both


def slow_length(weights: Iterable[float], p: float) -> float:
    """Return the ℓp norm of weights of ℓ2 norm 1, over that of ten equal ones."""
    equal = [1 / math.sqrt(10)] * 10
    norms = [sum(w**p for w in each) ** (1 / p) for each in (list(weights), equal)]
    return norms[0] / norms[1]


def slow_unit(weights: dict[int, float]) -> dict[int, float]:
    norm = math.sqrt(sum(w * w for w in weights.values())) or 1.0
    return {term: w / norm for term, w in weights.items()}
