"""The network: a BERT body with its MLM head, and the three heads that make it a retriever.

Shapes: B batch, L tokens, D hidden, P dense dimensions (d'), V vocabulary or a part of it.
Left out: the enhanced decoder (`decoder.py`), which exists in pre-training only, and all that
turns texts into ids or tensors into records (`encoder.py`).

A document is dense(x) = W_cls·h and sparse(x) = f·act(μ), μ the maximum of the MLM logits over
the tokens that are neither [CLS] nor [SEP] nor padding, f what the frequency of a term in the text
adds (`term_factors`). A query is encoded alike, without f; then each term is weighted by u ∈ R^V
and the whole vector, its norm taken off, by a gain read off [CLS]. Both are on the query side of
an inner product, so the score stays ⟨q, d⟩ and its proofs hold.

Source: Liu et al., RetroMAE-2 (ACL 2023), equations 6 to 12; u is the inference-free query of
OpenSearch (arXiv 2411.04403), here a factor beside the model's own weight. A maximum cannot count:
f is BM25's part that does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM

from dupmae.cls_attention import ClsAttention
from dupmae.heads import CORPUS_PRIOR, LEAST_IDF, USUAL_TERMS, Activation, HeadSettings

NEVER = -1e4
"""A logit that no maximum picks and that stays finite in half precision."""


def activate(logits: Tensor, activation: Activation) -> Tensor:
    """Turn max-pooled logits into term weights (same shape)."""
    if activation == "none":
        return logits
    weights = torch.log1p(functional.relu(logits))
    return torch.log1p(weights) if activation == "log1p2_relu" else weights


def term_factors(counts: Tensor, lengths: Tensor, heads: HeadSettings) -> Tensor:
    """Return what a document's term weights are multiplied by, of the shape of `counts`.

    That is `document_expansion` for a term that does not occur, and for one that does BM25's
    f = c·(k1 + 1) / (c + k1·(1 − b + b·length / usual length)), which is 1 if k1 = 0.

    Args:
        counts: how often each term occurs in the document, float.
        lengths: ordinary tokens of the document; broadcast against `counts`.
        heads: the settings.
    """
    k1, b = heads.frequency_k1, heads.frequency_b
    norm = k1 * (1 - b + b * lengths / heads.frequency_length)
    factors = counts * (k1 + 1) / (counts + norm)
    return torch.where(counts > 0, factors, heads.document_expansion)


def expand_query(weights: Tensor, counts: Tensor, heads: HeadSettings) -> Tensor:
    """Weigh each query's own terms and its heaviest others against each other (B, V).

    Args:
        weights: at least 0; of equal ones the first is the heavier.
        counts: how often each term occurs in each query.
        heads: the settings.
    """
    is_own = counts > 0
    own, others = weights.masked_fill(~is_own, 0.0), weights.masked_fill(is_own, 0.0)
    order = others.argsort(dim=1, descending=True, stable=True)
    others = others.scatter(1, order[:, heads.k_expansion :], 0.0)
    if heads.normalize_query_terms:
        own, others = functional.normalize(own, dim=1), functional.normalize(others, dim=1)
    both = own + heads.expansion * others
    if heads.normalize_query_terms and heads.query_norm != 2:
        p = heads.query_norm
        norm_B1 = own.norm(p, dim=1, keepdim=True)
        # Where no term is the query's own the norm says nothing.
        factor_B1 = USUAL_TERMS ** (1 / p - 1 / 2) / norm_B1.clamp(min=1e-12)
        both = both * torch.where(norm_B1 > 0, factor_B1, 1.0)
    return both


class DupMAE(nn.Module):
    """A BERT-shaped encoder with DupMAE's two representations."""

    def __init__(self, lm: BertForMaskedLM, heads: HeadSettings) -> None:
        super().__init__()
        config = lm.config
        self.heads = heads
        self.lm = lm
        self.cls_projection = nn.Linear(config.hidden_size, heads.dense_dim, bias=False)
        self.query_term_weight = nn.Parameter(torch.ones(config.vocab_size))
        self.query_log_gain = nn.Linear(config.hidden_size, 1)
        self.cls_attention = ClsAttention(config) if heads.cls_attention else None
        self.training_idf: nn.Parameter | None = None
        if heads.corpus_idf:
            self.training_idf = nn.Parameter(torch.ones(config.vocab_size), requires_grad=False)
        self.term_neighbours: nn.Parameter | None = None
        if heads.k_neighbours:
            # Until it is set a term's only neighbour is itself.
            narrow = torch.int16 if config.vocab_size <= 2**15 else torch.int32
            table_VK = torch.arange(config.vocab_size, dtype=narrow).unsqueeze(1)
            table_VK = table_VK.repeat(1, heads.k_neighbours)
            self.term_neighbours = nn.Parameter(table_VK, requires_grad=False)
        nn.init.normal_(self.cls_projection.weight, std=config.initializer_range)
        if heads.dense_dim == config.hidden_size:
            nn.init.eye_(self.cls_projection.weight)
        nn.init.zeros_(self.query_log_gain.weight)
        nn.init.zeros_(self.query_log_gain.bias)

    @classmethod
    def from_config(cls, config: BertConfig, heads: HeadSettings) -> DupMAE:
        """Make a model with random weights."""
        return cls(BertForMaskedLM(config), heads)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The (V, D) embeddings, tied to the MLM head."""
        embeddings = self.lm.get_input_embeddings()
        assert isinstance(embeddings, nn.Embedding)
        return embeddings

    def hidden_states(self, input_ids_BL: Tensor, attention_mask_BL: Tensor) -> Tensor:
        """Return the last layer's states (B, L, D)."""
        output = self.lm.bert(input_ids=input_ids_BL, attention_mask=attention_mask_BL)
        states: Tensor = output.last_hidden_state
        return states

    def cls_state(self, hidden_BLD: Tensor, attention_mask_BL: Tensor) -> Tensor:
        """Return h (B, D), the state of [CLS] that dense vectors, gains and decoders start from."""
        if self.cls_attention is None:
            return hidden_BLD[:, 0]
        state_BD: Tensor = self.cls_attention(hidden_BLD, attention_mask_BL)
        return state_BD

    def dense(self, cls_BD: Tensor) -> Tensor:
        """Project [CLS] states to dense vectors (B, P)."""
        dense_BP: Tensor = self.cls_projection(cls_BD)
        return functional.normalize(dense_BP, dim=-1) if self.heads.normalize else dense_BP

    def transform(self, hidden: Tensor) -> Tensor:
        """Apply the MLM head up to, but without, its vocabulary projection (same shape)."""
        transformed: Tensor = self.lm.cls.predictions.transform(hidden)
        return transformed

    def vocabulary_head(self, terms_V: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the projection's weight (V, D) and bias (V,), whole or of the given terms."""
        decoder = self.lm.get_output_embeddings()
        weight_VD, bias_V = decoder.weight, decoder.bias
        if terms_V is None:
            return weight_VD, bias_V
        return weight_VD[terms_V], bias_V[terms_V]

    def max_pool(
        self, hidden_BLD: Tensor, voting_BL: Tensor, terms_V: Tensor | None = None
    ) -> Tensor:
        """Return μ (B, V): the maximum logit of each term over the voting tokens.

        For training: it holds (B, L, V) logits; `encoder.py` has the one that does not.

        Args:
            hidden_BLD: last-layer states.
            voting_BL: bool, the tokens that take part; a text without any gets `NEVER`.
            terms_V: ids of the wanted columns, all if None.
        """
        weight_VD, bias_V = self.vocabulary_head(terms_V)
        logits_BLV = self.transform(hidden_BLD) @ weight_VD.T
        logits_BLV = logits_BLV.masked_fill(~voting_BL.unsqueeze(-1), NEVER)
        return logits_BLV.amax(dim=1) + bias_V

    def may_expand(self, input_ids_BL: Tensor, voting_BL: Tensor, terms_V: Tensor) -> Tensor:
        """Return which terms (B, V) a text may get that are not its own: neighbours of these.

        Args:
            input_ids_BL: the texts' tokens.
            voting_BL: bool, those that take part.
            terms_V: ids of the columns.
        """
        size = len(self.word_embeddings.weight)
        if self.term_neighbours is None:
            return torch.ones_like(terms_V, dtype=torch.bool).expand(len(input_ids_BL), -1)
        neighbours_BLK = self.term_neighbours[input_ids_BL].long()
        # A token that does not vote brings nothing but itself, which is no term.
        neighbours_BLK = torch.where(
            voting_BL.unsqueeze(-1), neighbours_BLK, input_ids_BL.unsqueeze(-1)
        )
        near_BV = torch.zeros(len(input_ids_BL), size, dtype=torch.bool, device=terms_V.device)
        return near_BV.scatter(1, neighbours_BLK.flatten(1), True)[:, terms_V]

    def weigh_query(
        self,
        weights_BV: Tensor,
        counts_BV: Tensor,
        cls_BD: Tensor,
        terms_V: Tensor | None,
    ) -> Tensor:
        """Turn activated weights of queries into query weights (same shape).

        Which terms expand a query, and with `normalize_query_terms` its norm, is decided by the
        given columns, so these must hold all terms of the queries.

        Args:
            weights_BV: activated weights.
            counts_BV: how often each term occurs in each query.
            cls_BD: states of [CLS].
            terms_V: ids of the columns, all if None.
        """
        term_weight_V = (
            self.query_term_weight if terms_V is None else self.query_term_weight[terms_V]
        )
        weighted_BV = weights_BV * functional.relu(term_weight_V)
        weighted_BV = expand_query(weighted_BV, counts_BV, self.heads)
        return weighted_BV * torch.exp(self.query_log_gain(cls_BD))

    def corpus_factors(self, terms_V: Tensor, frequency_V: Tensor, documents: int) -> Tensor | None:
        """Return what turns training idf into the corpus's, (V,); None if the model does not.

        Args:
            terms_V: term ids.
            frequency_V: documents of the corpus that hold each of them.
            documents: the corpus's size. A small one is counted together with `CORPUS_PRIOR`
                documents like those of training, so its idf is never a matter of chance.
        """
        if self.training_idf is None:
            return None
        idf_V = self.training_idf[terms_V]
        # Such that an empty corpus has training's idf: inverse_frequency(expected, prior) = idf.
        expected_V = (CORPUS_PRIOR + 1) * torch.exp(-idf_V) - 0.5
        corpus_idf_V = inverse_frequency(frequency_V + expected_V, documents + CORPUS_PRIOR)
        # A term of almost every text has an idf near 0, in which a ratio would say nothing.
        return (corpus_idf_V / idf_V.clamp(min=LEAST_IDF)) ** self.heads.corpus_idf


def inverse_frequency(frequency: Tensor, documents: float) -> Tensor:
    """Return BM25's idf, ln(1 + (N − n + ½) / (n + ½)), which is above 0 (Lucene's form)."""
    return torch.log1p((documents - frequency + 0.5) / (frequency + 0.5))
