"""Closed-form starts for heads that a checkpoint lacks: ridge regressions and counts, no steps.

A sentence encoder such as all-MiniLM-L6-v2 has no MLM head and speaks through the mean of its
states. Here its MLM transform is fitted so that a token's state predicts the token, W_cls so that
[CLS] predicts a teacher's vector, and the query's term weights are set to idf.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dupmae.errors import UsageError
from dupmae.model import DupMAE, activate
from dupmae.teachers import DenseTeacher, LexicalTeacher
from dupmae.tokens import Tokens

logger = logging.getLogger(__name__)

RIDGE = 1e-2
"""Ridge penalty as a fraction of the mean squared feature."""
OWN_LOGIT = 5.0
"""Median logit of a token's own term once the MLM head is fitted."""
LINEAR_REGION = 8.0
"""At this offset GELU is the identity to 1e-3 for inputs of unit variance."""


@torch.no_grad()
def fit_mlm_head(
    model: DupMAE,
    tokens: Tokens,
    texts: Sequence[str],
    max_length: int,
    sharpness: float = 8.0,
) -> None:
    """Fit the MLM transform so that each token's last state points at its own embedding.

    The targets are the centred word embeddings; the map's output is made orthogonal to their
    mean, so that no term is favoured. The transform's GELU is passed in its linear region and
    its LayerNorm sets the scale.

    Args:
        model: changed in place; the MLM head is tied to the word embeddings.
        tokens: the tokenizer.
        texts: a few hundred texts, about 50,000 tokens.
        max_length: tokens read of a text.
        sharpness: median of a token's own logit before the bias. The common bias then makes it
            `OWN_LOGIT`; the softmax does not feel that, the activation does. At 8 and 5 on
            all-MiniLM-L6-v2 99 % of a text's own terms and 5 % of all others are active.
    """
    states, ids = _token_states(model, tokens, texts, max_length)
    embeddings = model.word_embeddings.weight
    centre = embeddings.mean(0)
    weight, bias = _ridge(states, embeddings[ids] - centre)
    direction = functional.normalize(centre, dim=0)
    weight, bias = (
        weight - (weight @ direction).outer(direction),
        bias - bias @ direction * direction,
    )
    predicted = states @ weight + bias
    scale = 1 / predicted.std(dim=1).median()

    head = model.lm.cls.predictions
    head.transform.dense.weight.copy_((weight * scale).T)
    head.transform.dense.bias.copy_(bias * scale + LINEAR_REGION)
    head.transform.LayerNorm.weight.fill_(1.0)
    head.transform.LayerNorm.bias.zero_()
    own = (model.transform(states) * embeddings[ids]).sum(dim=1).median()
    head.transform.LayerNorm.weight.fill_(float(sharpness / own))
    head.bias.fill_(OWN_LOGIT - sharpness)
    own = (model.transform(states) * embeddings[ids]).sum(dim=1) + head.bias[ids]
    low, middle, high = own.quantile(own.new_tensor([0.02, 0.5, 0.98])).tolist()
    logger.info("MLM head fitted: own logits %.2f (2 %%: %.2f, 98 %%: %.2f)", middle, low, high)


@torch.no_grad()
def fit_cls_projection(
    model: DupMAE, tokens: Tokens, texts: Sequence[str], max_length: int, teacher: DenseTeacher
) -> None:
    """Fit W_cls so that [CLS] predicts the teacher's vector, of the same length, of a text."""
    targets = teacher.encode(texts, max_length)
    states = []
    for start in range(0, len(texts), 32):
        inputs = tokens.batch(tokens.ids(texts[start : start + 32], max_length))
        states.append(model.cls_state(model.hidden_states(*inputs), inputs[1]))
    weight, _ = _ridge(torch.cat(states), targets, intercept=False)
    model.cls_projection.weight.copy_(weight.T)
    fit = functional.cosine_similarity(torch.cat(states) @ weight, targets).mean()
    logger.info("W_cls fitted: mean cosine with the teacher %.3f", fit)


@torch.no_grad()
def set_query_weights(model: DupMAE, lexical: LexicalTeacher, gain: float) -> None:
    """Set the query's term weights to idf, the largest 1, and the gain to a constant.

    Args:
        model: changed in place; its MLM head is fitted.
        lexical: holds idf; a model with `corpus_idf` remembers it.
        gain: scale of the sparse part, above 0, for a query vector of length 1 and documents
            whose terms weigh 1 before their frequency counts.
    """
    # Some models pad their vocabulary with rows without a text; those keep a weight of 1.
    size = len(lexical.idf)
    model.query_term_weight[:size] = lexical.idf / lexical.idf.max()
    if model.training_idf is not None:
        model.training_idf[:size] = lexical.idf
    model.query_log_gain.weight.zero_()
    own_weight = float(activate(torch.tensor(OWN_LOGIT), model.heads.activation))
    model.query_log_gain.bias.fill_(math.log(gain / own_weight))


@torch.no_grad()
def set_neighbours(model: DupMAE, tokens: Tokens) -> None:
    """Let each term bring those whose centred word embeddings are nearest to its own, by cosine.

    Raises:
        UsageError: if the vocabulary is too small for that.
    """
    if model.term_neighbours is None:
        return
    size, k = tokens.vocabulary_size, model.heads.k_neighbours
    is_term = tokens.ordinary(torch.arange(size, device=tokens.device))
    if is_term.sum() <= k:
        raise UsageError(
            f"k_neighbours must be less than the {int(is_term.sum())} terms, found {k}"
        )
    embeddings = model.word_embeddings.weight[:size]
    directions = functional.normalize(embeddings - embeddings[is_term].mean(0), dim=1)
    for terms in torch.nonzero(is_term)[:, 0].split(1024):
        cosines = directions[terms] @ directions.T
        cosines[:, ~is_term] = -torch.inf
        cosines[torch.arange(len(terms)), terms] = -torch.inf
        model.term_neighbours[terms] = cosines.topk(k, dim=1).indices.to(
            model.term_neighbours.dtype
        )


def _token_states(
    model: DupMAE, tokens: Tokens, texts: Sequence[str], max_length: int
) -> tuple[Tensor, Tensor]:
    """Return last states (n, D) and ids (n,) of all ordinary tokens of the texts."""
    states, ids = [], []
    for start in range(0, len(texts), 32):
        chunk = tokens.ids(texts[start : start + 32], max_length)
        input_ids_BL, mask_BL = tokens.batch(chunk)
        ordinary_BL = tokens.ordinary(input_ids_BL)
        states.append(model.hidden_states(input_ids_BL, mask_BL)[ordinary_BL])
        ids.append(input_ids_BL[ordinary_BL])
    return torch.cat(states), torch.cat(ids)


def _ridge(features: Tensor, targets: Tensor, intercept: bool = True) -> tuple[Tensor, Tensor]:
    """Return weight (D, P) and bias (P,) of the ridge regression of targets on features."""
    x, y = features.double(), targets.double()
    x_mean = x.mean(0) if intercept else torch.zeros_like(x[0])
    y_mean = y.mean(0) if intercept else torch.zeros_like(y[0])
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x
    penalty = (
        RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    )
    weight = torch.linalg.solve(gram + penalty, x.T @ y)
    return weight.float(), (y_mean - x_mean @ weight).float()
