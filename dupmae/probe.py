"""A cheap measure during training: does a query find its own text among a few hundred?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dupmae.model import DupMAE
from dupmae.represent import Representation, Vocabulary, by_length, read, represent, stack
from dupmae.tokens import Tokens


@torch.no_grad()
def probe_pairs(
    model: DupMAE, tokens: Tokens, pairs: Sequence[tuple[str, str]], batch_size: int = 32
) -> dict[str, float]:
    """Return RR@10 of finding each query's text among all of them, for the sum and each part.

    To stay cheap the sparse part is read at terms that occur in a query: what both sides expand to
    beyond these is left out. No top-k cut is made.

    Args:
        model: in evaluation mode; the sum is weighed by its settings.
        tokens: its tokenizer.
        pairs: (query, text), at least one; equal texts count as one.
        batch_size: texts encoded at a time.
    """
    places: dict[str, int] = {}
    target_B = torch.tensor(
        [places.setdefault(text, len(places)) for _, text in pairs], device=tokens.device
    )
    texts = list(places)
    query_ids = tokens.ids([query for query, _ in pairs], model.heads.max_query_length)
    text_ids = tokens.ids(texts, model.heads.max_document_length)
    vocabulary = Vocabulary.of(tokens, query_ids)
    queries = _encode(model, tokens, query_ids, vocabulary, batch_size, as_query=True)
    documents = _encode(model, tokens, text_ids, vocabulary, batch_size, as_query=False)
    dense_BN = queries.dense @ documents.dense.T
    sparse_BN = queries.sparse @ documents.sparse.T
    sum_BN = model.heads.dense_weight * dense_BN + model.heads.sparse_weight * sparse_BN
    return {
        "probe_sum": _reciprocal_rank(sum_BN, target_B),
        "probe_dense": _reciprocal_rank(dense_BN, target_B),
        "probe_sparse": _reciprocal_rank(sparse_BN, target_B),
    }


def _encode(
    model: DupMAE,
    tokens: Tokens,
    ids: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    batch_size: int,
    *,
    as_query: bool,
) -> Representation:
    chunks = by_length(list(map(len, ids)), batch_size)
    pieces = [
        represent(
            model,
            tokens,
            read(model, tokens, [ids[i] for i in chunk]),
            vocabulary,
            as_query=as_query,
        )
        for chunk in chunks
    ]
    return stack(pieces, chunks)


def _reciprocal_rank(scores_BN: Tensor, target_B: Tensor, cut: int = 10) -> float:
    """Return the mean reciprocal rank within the first `cut`; ties count against the target."""
    own_B1 = scores_BN.gather(1, target_B.unsqueeze(1))
    rank_B = (~(scores_BN < own_B1)).sum(dim=1)  # so that NaN ranks last, not first
    return float(torch.where(rank_B <= cut, 1 / rank_B, torch.zeros(())).mean())
