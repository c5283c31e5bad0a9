"""Token ids → what the network says of each text, by torch, on a CPU or an accelerator.

Left out: tokens before it (`base_encoder.py`), term weights after it (`reader.py`). The other way
to do the same is `runtime.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dupmae.model import DupMAE
from dupmae.packed import Layout, places, read_body
from dupmae.pooling import pool_given, pool_vocabulary
from dupmae.readings import Batch, Reading, Terms

LANES = 2
"""Batches that an accelerator has at a time: while it computes one, the next is sent and what came
of the last one is weighed."""


class TorchNetwork:
    """A model in evaluation mode: a `Network`.

    On a GPU each batch has a CUDA stream of its own, and goes there and back by one copy each from
    and to pinned memory, so that up to `LANES` threads keep it busy.
    """

    def __init__(
        self,
        model: DupMAE,
        vocabulary_size: int,
        special_ids: Collection[int],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Take a model over, in float32, on its device.

        Args:
            model: not changed.
            vocabulary_size: of its tokenizer.
            special_ids: never terms.
            dtype: of the body and of the products behind it; sums over terms and what a dense
                vector is projected by stay in float32.
        """
        head_VD, bias_V = model.vocabulary_head()
        neighbours_VK = model.term_neighbours
        self._terms = Terms(
            vocabulary_size,
            special_ids,
            bias_V.detach().float().cpu().numpy(),
            None if neighbours_VK is None else neighbours_VK.cpu().numpy(),
        )
        self._heads = model
        self._model = model if dtype == torch.float32 else copy.deepcopy(model).to(dtype)
        self._device = head_VD.device
        self._streams: SimpleQueue[torch.cuda.Stream] = SimpleQueue()
        if self._device.type == "cuda":
            for _ in range(LANES):
                self._streams.put(torch.cuda.Stream(self._device))
            torch.cuda.synchronize(self._device)  # weights were converted in another stream

    @torch.inference_mode()
    def read(self, ids: Sequence[Sequence[int]], *, expands: bool = False) -> list[Reading]:
        """Read one batch; `Network.read` says what the arguments are."""
        batch = self._terms.batch(ids, expands=expands)
        with self._lane():
            dense_BP, log_gain_B1, logits = self._fetch(*self._run(batch))
        return self._terms.readings(batch, dense_BP, log_gain_B1[:, 0], logits)

    def _run(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return dense vectors (B, P), gains (B, 1), and logits without bias (B, N) or (B, V)."""
        lengths_B = batch.lengths_B.astype(np.int64)
        wanted_BN = batch.padded_terms() if batch.wanted is not None else np.zeros((0, 0), np.int64)
        tokens_T, columns_T, slots_T, votes_T, wanted = self._send(
            batch.tokens_T, *places(lengths_B), batch.votes_T, wanted_BN
        )
        layout = Layout((len(lengths_B), int(lengths_B.max())), columns_T, slots_T)
        hidden_TD = read_body(self._model.lm.bert, tokens_T, layout)
        states_BLD = layout.pad(self._model.transform(hidden_TD))
        votes_BL = layout.pad(votes_T[:, None]).squeeze(2).bool()
        cls_BD = self._model.cls_state(layout.pad(hidden_TD), layout.mask).float()
        head_VD, _ = self._model.vocabulary_head()
        if batch.wanted is None:
            logits = pool_vocabulary(states_BLD, votes_BL, head_VD[: self._terms.size])
        else:
            logits = pool_given(states_BLD, votes_BL, head_VD, wanted.view(wanted_BN.shape))
        return self._heads.cls_projection(cls_BD), self._heads.query_log_gain(cls_BD), logits

    def _send(self, *arrays: NDArray[Any]) -> tuple[Tensor, ...]:
        """Bring arrays of whole numbers to the device, as one."""
        flat = [np.ravel(np.asarray(array, np.int64)) for array in arrays]
        together = torch.from_numpy(np.concatenate(flat))
        if self._device.type == "cuda":
            together = together.pin_memory()
        together = together.to(self._device, non_blocking=True)
        return torch.split(together, [len(array) for array in flat])

    def _fetch(self, *found: Tensor) -> list[NDArray[Any]]:
        """Bring matrices of equally many rows back, as one."""
        together = torch.cat([each.float() for each in found], dim=1)
        if self._device.type == "cuda":
            pinned = torch.empty(together.shape, dtype=together.dtype, pin_memory=True)
            together = pinned.copy_(together, non_blocking=True)
            torch.cuda.current_stream(self._device).synchronize()
        ends = np.cumsum([each.shape[1] for each in found])[:-1]
        return np.split(together.cpu().numpy(), ends, axis=1)

    @contextmanager
    def _lane(self) -> Iterator[None]:
        """Wait for a stream that no other batch has."""
        if self._device.type != "cuda":
            yield
            return
        stream = self._streams.get()
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            self._streams.put(stream)
