"""Documents are encoded on devices, such as the GPUs of a machine, by one process each.

This process reads, tokenises and writes; the others only encode, so that none waits for Python's
work on what another does. Queries are encoded here, by an encoder in float32 on the processor: they
are few, and an index is opened by whoever has the same seal.

A process ends by itself when this one does, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dupmae.base_encoder import BaseEncoder
from dupmae.errors import DupMAEError, UsageError
from dupmae.hardware import processors
from dupmae.processes import resolve_device
from dupmae.torch_encoder import Precision, TorchEncoder
from dupmae.types import CorpusStatistics, Encoded, Int32, SparseVectors

DOCUMENTS_AT_ONCE = 4096
"""Of each GPU in a block: enough for full batches of like lengths, some 10 MB of vectors."""
CPU_DOCUMENTS_AT_ONCE = 512
"""The same of a processor, which a block of that many keeps busy for half a minute."""


class _Job(NamedTuple):
    """What a process is told to be."""

    folder: str | None
    device: str
    precision: Precision | None
    threads: int
    settings: Mapping[str, object]


class _Loaded(NamedTuple):
    """What it says once it is."""

    runtime: str
    seal: str


class DeviceEncoder(BaseEncoder):
    """An encoder whose documents are encoded elsewhere. Close it, or use it in a `with`.

    Its vectors of documents are those of `TorchEncoder` on that device with that precision, in
    whatever order and on whichever of the devices they were made.
    """

    def __init__(
        self,
        queries: BaseEncoder,
        folder: Path | str | None,
        devices: Sequence[str],
        *,
        precision: Precision | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Start the processes and wait until each has its model.

        Args:
            queries: encodes queries, and is taken over; of the same folder and settings.
            folder: what `queries` was loaded from.
            devices: torch's names; "cuda" is every GPU, "auto" these or else the processor. The
                same may be named twice.
            precision: bfloat16 on a GPU and float32 on the processor, if None.
            settings: of `HeadSettings`, as for `Encoder.load`.

        Raises:
            UsageError: there is no such device here.
            CheckpointError: the folder is missing or damaged.
        """
        super().__init__(queries.name, queries.heads, queries._tokenizer, queries._special_ids)
        self._queries = queries
        self._turn = threading.Lock()  # one question to a process at a time
        names = [device for name in devices for device in _expand(name)]
        threads = max(1, processors() // len(names))
        folder = None if folder is None else str(folder)
        jobs = [_Job(folder, name, precision, threads, dict(settings or {})) for name in names]
        on_cpu = set(names) == {"cpu"}
        self.documents_at_once = len(names) * (
            CPU_DOCUMENTS_AT_ONCE if on_cpu else DOCUMENTS_AT_ONCE
        )
        """A good `block_size` of `build_index`."""
        self._processes: list[_Process] = []
        try:
            for job in jobs:
                self._processes.append(_Process(job))
            self._device_runtimes = [process.loaded(self.seal) for process in self._processes]
        except BaseException:
            self.close()
            raise

    @property
    def seal(self) -> str:
        """Hex digest of all that decides the vectors."""
        return self._queries.seal

    @property
    def runtime(self) -> str:
        """What runs the model: for queries, and for documents."""
        runtimes = " and ".join(sorted(set(self._device_runtimes)))
        return f"{self._queries.runtime}; documents: {runtimes}"

    def encode_tokenised(self, ids: Sequence[Sequence[int]]) -> Encoded:
        """Do the second half: encode what `tokenise_documents` returned, in its order.

        Raises:
            DupMAEError: a process ended, or found no memory.
        """
        # Each gets as many long texts as short ones.
        order = np.argsort([-len(text) for text in ids], kind="stable")
        shares = [order[start :: len(self._processes)] for start in range(len(self._processes))]
        pairs = [pair for pair in zip(self._processes, shares, strict=True) if len(pair[1])]
        with self._turn:
            try:
                for process, share in pairs:
                    process.ask([ids[place] for place in share])
                parts = [(share, process.answer()) for process, share in pairs]
            except BaseException:
                self.close()  # what others may still answer would be taken for the next texts
                raise
        return _in_order(parts, len(ids), self.dense_dim)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.end()

    def __enter__(self) -> DeviceEncoder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _encode_queries(
        self, ids: Sequence[Sequence[int]], corpus: CorpusStatistics | None
    ) -> Encoded:
        return self._queries._encode_queries(ids, corpus)


class _Process:
    """One device's process, and the line to it."""

    def __init__(self, job: _Job) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
        self._device = job.device
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, job), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is seen here

    def loaded(self, seal: str) -> str:
        """Wait until the model is loaded; return what runs it."""
        found = self._received()
        assert isinstance(found, _Loaded)
        if found.seal != seal:
            raise DupMAEError(
                f"the model changed while it was loaded: its seal was {seal[:12]}, on "
                f"{self._device} it is {found.seal[:12]}; try again"
            )
        return found.runtime

    def ask(self, ids: Sequence[Sequence[int]]) -> None:
        """Give it texts to encode."""
        lengths = np.array([len(text) for text in ids], dtype=np.int64)
        flat = np.concatenate([np.asarray(text, np.int32) for text in ids])
        try:
            self._line.send((flat, lengths))
        except OSError:
            raise self._gone() from None

    def answer(self) -> Encoded:
        """Wait for the vectors of what it was asked for."""
        encoded = self._received()
        assert isinstance(encoded, Encoded)
        return encoded

    def end(self) -> None:
        """Let it end; one that is at work is stopped."""
        self._line.close()
        self._process.terminate()
        self._process.join()

    def _received(self) -> object:
        try:
            found = self._line.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        if isinstance(found, BaseException):
            raise found
        return found

    def _gone(self) -> DupMAEError:
        self._process.join(1)
        return DupMAEError(
            f"the process that encodes on {self._device} ended with exit code "
            f"{self._process.exitcode}; what was encoded before is kept, the same command goes on"
        )


def _work(line: Connection, job: _Job) -> None:
    """Encode what comes over a line until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business, which ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        encoder = _load(job)
        line.send(_Loaded(encoder.runtime, encoder.seal))
        while True:
            flat, lengths = line.recv()
            texts: Any = np.split(flat, np.cumsum(lengths)[:-1])  # arrays serve as sequences
            line.send(encoder.encode_tokenised(texts))
    except (EOFError, OSError):
        pass  # nobody is there any more
    except DupMAEError as error:
        line.send(error)
    except (RuntimeError, MemoryError) as error:  # of torch, mostly for want of memory
        first = (str(error).splitlines() or ["no memory is left"])[0]
        line.send(DupMAEError(f"encoding on {job.device} failed: {first}"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _load(job: _Job) -> TorchEncoder:
    on_cpu = resolve_device(job.device).type == "cpu"
    return TorchEncoder.load(
        job.folder,
        device=job.device,
        precision=job.precision or ("float32" if on_cpu else "bfloat16"),
        threads=job.threads if on_cpu else None,
        settings=job.settings,
    )


def _expand(name: str) -> list[str]:
    """Return the devices that a name stands for."""
    count = torch.cuda.device_count() if name in ("auto", "cuda") else 0
    if count:
        return [f"cuda:{number}" for number in range(count)]
    if name == "cuda":
        raise UsageError("device 'cuda' cannot be used: torch finds no GPU here")
    return ["cpu" if name == "auto" else name]


def _in_order(
    parts: Sequence[tuple[NDArray[np.intp], Encoded]], count: int, dense_dim: int
) -> Encoded:
    """Put the vectors of texts back in the places that they came from."""
    dense = np.zeros((count, dense_dim), dtype=np.float32)
    none = (np.zeros(0, np.int32), np.zeros(0, np.float32))
    rows: list[tuple[Int32, NDArray[np.float32]]] = [none] * count
    for share, encoded in parts:
        dense[share] = encoded.dense
        for place, row in zip(share, encoded.sparse, strict=True):
            rows[place] = row
    return Encoded(dense, SparseVectors.from_rows(rows))
