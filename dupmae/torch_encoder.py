"""Texts → dense and sparse vectors, both from one forward pass of a model folder.

A text's vectors do not depend on the texts beside it, on their order or on padding, up to the
rounding of float32 sums: 1e-5 on dense values and term weights is tested. (A term whose weight
lies within that of the last one kept may be kept in one batch and cut in another.)

Every token that is not special votes in the max-pool, as in training. A text without one (empty,
or nothing but unknown words) has a dense vector and no terms. No tensor leaves this module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dupmae.base_encoder import BaseEncoder
from dupmae.card import Card
from dupmae.checkpoint import load_model, save_model
from dupmae.config import load_config
from dupmae.errors import UsageError
from dupmae.folder import shipped_model
from dupmae.hardware import describe_cpu
from dupmae.heads import HeadSettings, check_servable
from dupmae.inputs import batches
from dupmae.model import DupMAE, activate, term_factors
from dupmae.pooling import pool_terms, pool_vocabulary
from dupmae.processes import resolve_device
from dupmae.state import model_seal
from dupmae.term_weights import top_terms
from dupmae.tokens import Tokens
from dupmae.types import (
    CorpusStatistics,
    Encoded,
    Float32,
    Int32,
    SparseVectors,
)

CPU_BATCH_TOKENS = 1024
"""Padding included; larger batches leave the caches and gain a CPU nothing."""
DEVICE_BATCH_TOKENS = 32768
"""The same on an accelerator."""
_Row = tuple[Int32, Float32]


class TorchEncoder(BaseEncoder):
    """A model with its tokenizer, ready to encode; see the module for what it promises.

    It takes the model over: moves it to `device` and puts it in evaluation mode.
    """

    def __init__(
        self,
        model: DupMAE,
        tokenizer: PreTrainedTokenizerFast,
        name: str,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        check_servable(
            model.heads,
            dense_dim=model.cls_projection.out_features,
            positions=model.lm.config.max_position_embeddings,
            cls_attention=model.cls_attention is not None,
            knows_idf=model.training_idf is not None,
        )
        super().__init__(name, model.heads, tokenizer.backend_tokenizer, tokenizer.all_special_ids)
        self._device = resolve_device(str(device))
        self._model = model.eval().to(self._device)
        self._whole_tokenizer = tokenizer
        self._tokens = Tokens(tokenizer, self._device)
        self._is_term_V = self._tokens.ordinary(
            torch.arange(self.vocabulary_size, device=self._device)
        )
        self._seal = ""

    @classmethod
    def load(
        cls,
        folder: Path | str | None = None,
        *,
        device: str = "cpu",
        threads: int | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> TorchEncoder:
        """Load a model folder.

        Args:
            folder: a folder or a name on the Hugging Face hub; the shipped `dupmae-mini` if None.
            device: torch's name of a device, or "auto": a GPU if there is one.
            threads: CPU threads of this whole process; torch's own choice if None.
            settings: fields of `HeadSettings` to use instead of the folder's, such as
                `{"k_document": 128}`.

        Raises:
            CheckpointError: the folder is missing or damaged.
            UsageError: a setting, the device or the number of threads is out of range.
        """
        if threads is not None:
            if threads < 1:
                raise UsageError(f"threads must be at least 1, found {threads}")
            torch.set_num_threads(threads)
        loaded = load_model(shipped_model() if folder is None else folder)
        if settings:
            heads = loaded.model.heads
            loaded.model.heads = load_config(None, HeadSettings, asdict(heads) | dict(settings))
        return cls(loaded.model, loaded.tokenizer, loaded.name, device=device)

    @property
    def runtime(self) -> str:
        """What runs the model: the library's version, the precision, the processor."""
        precision = str(next(self._model.parameters()).dtype).removeprefix("torch.")
        device = self._device
        on = describe_cpu() if device.type == "cpu" else device.type
        if device.type == "cuda":
            on = torch.cuda.get_device_name(device)
        return f"torch {torch.__version__} {precision} on {on}"

    @property
    def seal(self) -> str:
        """Hex digest of all that decides the vectors, computed when first asked for."""
        if not self._seal:
            self._seal = model_seal(self._model, self._whole_tokenizer)
        return self._seal

    def encode_tokenised(self, ids: Sequence[Sequence[int]]) -> Encoded:
        """Do the second half: encode what `tokenise_documents` returned, in its order."""
        return self._encode(ids, as_query=False)

    def _encode_queries(
        self, ids: Sequence[Sequence[int]], corpus: CorpusStatistics | None
    ) -> Encoded:
        return self._encode(ids, as_query=True, corpus=corpus)

    def save(
        self, folder: Path | str, *, half_precision: bool = False, card: Card | None = None
    ) -> None:
        """Write a model folder that `load` reads.

        Args:
            folder: made, with its parents; a model folder already there is replaced.
            half_precision: store 16-bit floats; the rounded model has another seal.
            card: what the README says besides usage and settings.
        """
        dtype = torch.float16 if half_precision else torch.float32
        save_model(
            self._model, self._whole_tokenizer, Path(folder), name=self.name, dtype=dtype, card=card
        )

    @torch.inference_mode()
    def _encode(
        self,
        ids: Sequence[Sequence[int]],
        *,
        as_query: bool,
        corpus: CorpusStatistics | None = None,
    ) -> Encoded:
        heads = self.heads
        dense = np.zeros((len(ids), self.dense_dim), dtype=np.float32)
        rows: list[_Row] = [(np.zeros(0, np.int32), np.zeros(0, np.float32))] * len(ids)
        budget = CPU_BATCH_TOKENS if self._device.type == "cpu" else DEVICE_BATCH_TOKENS
        for batch in batches([len(text_ids) for text_ids in ids], budget):
            batch_ids = [ids[position] for position in batch]
            input_ids_BL, mask_BL = self._tokens.batch(batch_ids)
            hidden_BLD = self._model.hidden_states(input_ids_BL, mask_BL)
            cls_BD = self._model.cls_state(hidden_BLD, mask_BL)
            dense[batch] = self._model.dense(cls_BD).cpu().numpy()
            voting_BL = self._tokens.ordinary(input_ids_BL)
            expands = heads.expands(as_query=as_query)
            pooled = self._sparse(batch_ids, hidden_BLD, voting_BL, expands=expands)
            for place, (terms, weights, counts) in pooled:
                if as_query:
                    weights = self._weigh_query(terms, weights, counts, cls_BD[place], corpus)
                else:
                    # Not counts.sum(), which lacks the text's terms of a logit of 0 or less.
                    length = voting_BL[place].sum()
                    weights = weights * term_factors(counts, length, heads)
                k = heads.k_query if as_query else heads.k_document
                row = top_terms(terms.int().cpu().numpy(), weights.cpu().numpy(), k)
                rows[batch[place]] = row
        return Encoded(dense, SparseVectors.from_rows(rows))

    def _sparse(
        self,
        ids: Sequence[Sequence[int]],
        hidden_BLD: Tensor,
        voting_BL: Tensor,
        *,
        expands: bool,
    ) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
        """Yield place and (terms, activated weights, counts) of each text that has votes.

        Counts are float, the number of times that each term occurs in the text.
        """
        states_TD = self._model.transform(hidden_BLD[voting_BL])
        lengths = voting_BL.sum(dim=1).tolist()
        places = [place for place, length in enumerate(lengths) if length]
        own = [self._own_terms(ids[place]) for place in places]
        own_terms = [terms for terms, _ in own]
        wanted = self._with_neighbours(own_terms) if expands else own_terms
        pooled = self._pool(states_TD, [lengths[place] for place in places], wanted)
        for place, (own_N, count_N), (terms, logits) in zip(places, own, pooled, strict=True):
            counts = count_N
            if terms is not own_N:
                counts = torch.zeros_like(logits)
                where = torch.searchsorted(terms, own_N).clamp(max=max(0, len(terms) - 1))
                found = terms[where] == own_N if len(terms) else torch.zeros_like(own_N).bool()
                counts[where[found]] = count_N[found]
            yield place, (terms, activate(logits, self.heads.activation), counts)

    def _weigh_query(
        self,
        terms: Tensor,
        weights: Tensor,
        counts: Tensor,
        cls_D: Tensor,
        corpus: CorpusStatistics | None,
    ) -> Tensor:
        factors = None
        if corpus is not None:
            frequency = torch.from_numpy(corpus.frequency[terms.cpu().numpy()]).to(terms.device)
            factors = self._model.corpus_factors(terms, frequency, corpus.documents)
            # What no document has can expand nothing, and would take another term's place.
            weights = torch.where((counts > 0) | (frequency > 0), weights, 0.0)
        weighed: Tensor = self._model.weigh_query(
            weights.unsqueeze(0), counts.unsqueeze(0), cls_D.unsqueeze(0), terms, factors
        )[0]
        return weighed

    def _own_terms(self, text_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the distinct terms (N,) of a text, increasing, and their counts (N,), float."""
        ordinary = [token for token in text_ids if token not in self._special_ids]
        terms, counts = torch.tensor(ordinary, device=self._device).unique(return_counts=True)
        return terms, counts.float()

    def _with_neighbours(self, own: Sequence[Tensor]) -> list[Tensor] | None:
        """Return each text's terms and those that they may bring; None if that may be any."""
        neighbours_VK = self._model.term_neighbours
        if neighbours_VK is None:
            return None
        wanted = []
        for own_N in own:
            terms = torch.cat([own_N, neighbours_VK[own_N].flatten().long()]).unique()
            wanted.append(terms[self._is_term_V[terms]])
        return wanted

    def _pool(
        self, states_TD: Tensor, lengths: Sequence[int], wanted: Sequence[Tensor] | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield terms of each text, strictly increasing, with their max-pooled logits.

        These are the given ones, or else all of a logit above 0.
        """
        head_VD, bias_V = self._model.vocabulary_head()
        if not lengths:
            return
        if wanted is not None:
            for states_LD, terms_N in zip(states_TD.split(list(lengths)), wanted, strict=True):
                yield terms_N, pool_terms(states_LD, terms_N, head_VD, bias_V)
            return
        size = self.vocabulary_size  # some models pad their vocabulary with rows without a text
        for logits_V in pool_vocabulary(states_TD, lengths, head_VD[:size], bias_V[:size]):
            # Every activation makes 0 of the rest: most of the vocabulary ends here.
            terms_N = torch.nonzero((logits_V > 0) & self._is_term_V).squeeze(1)
            yield terms_N, logits_V[terms_N]
