"""Processes that encode documents: the same vectors in the same order, and no process left over."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import WORDS, tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model
from dupmae.cli import main
from dupmae.device_encoder import DeviceEncoder, _in_order
from dupmae.encoder import Encoder
from dupmae.engine import SearchEngine, build_index
from dupmae.errors import DupMAEError, UsageError
from dupmae.torch_encoder import TorchEncoder
from dupmae.types import Document, Encoded, SparseVectors

TEXTS = [" ".join(WORDS[i : i + 1 + i % 11]) for i in range(40)] + [""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model(expansion=0.3), tiny_tokenizer(), path, name="tiny")
    return path


@pytest.fixture(scope="module")
def pair(folder: Path) -> Iterator[DeviceEncoder]:
    with DeviceEncoder(Encoder.load(folder), folder, ["cpu", "cpu"]) as encoder:
        yield encoder


def assert_close(found: Encoded, expected: Encoded, tolerance: float = 1e-5) -> None:
    np.testing.assert_array_equal(found.sparse.indptr, expected.sparse.indptr)
    np.testing.assert_array_equal(found.sparse.terms, expected.sparse.terms)
    np.testing.assert_allclose(found.sparse.weights, expected.sparse.weights, atol=tolerance)
    np.testing.assert_allclose(found.dense, expected.dense, atol=tolerance)


@pytest.mark.slow
def test_two_processes_give_one_encoders_vectors_in_order(pair, folder):
    alone = TorchEncoder.load(folder)
    assert_close(pair.encode_documents(TEXTS), alone.encode_documents(TEXTS))
    assert_close(pair.encode_documents(TEXTS[:1]), alone.encode_documents(TEXTS[:1]))
    assert len(pair.encode_documents([])) == 0
    assert pair.runtime == f"{Encoder.load(folder).runtime}; documents: {alone.runtime}"


@pytest.mark.slow
def test_queries_are_those_of_the_encoder_that_was_given(pair, folder):
    usual = Encoder.load(folder)
    assert_close(pair.encode_queries(TEXTS), usual.encode_queries(TEXTS), 0)
    assert (pair.name, pair.seal, pair.heads) == (usual.name, usual.seal, usual.heads)


@pytest.mark.slow
def test_an_index_made_by_devices_is_searched_without_them(pair, folder, tmp_path):
    documents = [Document(str(number), text) for number, text in enumerate(TEXTS)]
    build_index(documents, pair, tmp_path / "index", block_size=8)
    usual = Encoder.load(folder)
    build_index(documents, usual, tmp_path / "usual")
    answers = []
    for name in ("index", "usual"):
        with SearchEngine.open(tmp_path / name, usual) as engine:
            hits = engine.search("ba be fifo mimi", k=5).hits
            answers.append([(hit.doc_id, pytest.approx(hit.score, rel=1e-4)) for hit in hits])
    assert [doc_id for doc_id, _ in answers[0]] == [doc_id for doc_id, _ in answers[1]]
    assert answers[0] == [(doc_id, score.expected) for doc_id, score in answers[1]]


@pytest.mark.slow
def test_a_process_that_ends_is_named_and_the_others_end_too(folder):
    with DeviceEncoder(Encoder.load(folder), folder, ["cpu", "cpu"]) as encoder:
        ids = [process._process.pid for process in encoder._processes]
        os.kill(ids[1], signal.SIGKILL)
        with pytest.raises(DupMAEError, match=r"encodes on cpu ended with exit code -9; what was"):
            encoder.encode_documents(TEXTS)
        assert not any(process._process.is_alive() for process in encoder._processes)
        with pytest.raises(DupMAEError, match="ended with exit code"):
            encoder.encode_documents(TEXTS)


@pytest.mark.slow
def test_what_a_process_cannot_load_is_said_here_and_none_is_left(folder):
    usual, before = Encoder.load(folder), multiprocessing.active_children()
    with pytest.raises(UsageError, match="device 'cuda:77' cannot be used"):
        DeviceEncoder(usual, folder, ["cpu", "cuda:77"])
    assert set(multiprocessing.active_children()) <= set(before)


@pytest.mark.slow
def test_another_model_in_the_folder_is_refused(folder, tmp_path):
    usual = Encoder.load(folder)
    save_model(tiny_model(expansion=0.0), tiny_tokenizer(), tmp_path / "other", name="tiny")
    with pytest.raises(DupMAEError, match=f"its seal was {usual.seal[:12]}, on cpu it is"):
        DeviceEncoder(usual, tmp_path / "other", ["cpu"])


@pytest.mark.slow
def test_processes_end_when_their_parent_is_killed(folder):
    code = (
        "import sys, time\n"
        "from dupmae.encoder import Encoder\n"
        "from dupmae.device_encoder import DeviceEncoder\n"
        "if __name__ == '__main__':\n"
        "    encoder = DeviceEncoder(Encoder.load(sys.argv[1]), sys.argv[1], ['cpu', 'cpu'])\n"
        "    print(*(each._process.pid for each in encoder._processes), flush=True)\n"
        "    time.sleep(600)\n"
    )
    script = folder.parent / "parent.py"
    script.write_text(code)
    with subprocess.Popen(
        [sys.executable, script, folder], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        ids = [int(word) for word in parent.stdout.readline().split()]
        assert len(ids) == 2
        parent.kill()
    deadline = time.monotonic() + 60
    while any(_lives(pid) for pid in ids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"_id": str(n), "text": text or "ba"}) for n, text in enumerate(TEXTS)]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_the_command_encodes_on_the_named_devices(folder, corpus, tmp_path):
    index = tmp_path / "index"
    command = ["index", str(corpus), "--index", str(index), "--model", str(folder)]
    before = multiprocessing.active_children()
    done = CliRunner().invoke(main, [*command, "--device", "cpu,auto", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["documents"] == len(TEXTS)
    manifest = (index / "MANIFEST.json").read_text()
    assert "; documents: torch " in manifest
    assert set(multiprocessing.active_children()) <= set(before)


@given(st.lists(st.integers(0, 2), max_size=20))
def test_vectors_return_to_the_places_of_their_texts(owners: list[int]) -> None:
    texts = [(np.arange(n % 4, dtype=np.int32), np.full(n % 4, n + 1, np.float32))
             for n in range(len(owners))]  # fmt: skip
    dense = np.arange(2 * len(owners), dtype=np.float32).reshape(-1, 2)
    parts = []
    for owner in (2, 0, 1):
        share = np.flatnonzero(np.array(owners, dtype=int) == owner)[::-1]
        rows = SparseVectors.from_rows([texts[place] for place in share])
        parts.append((share, Encoded(dense[share], rows)))
    joined = _in_order(parts, len(owners), 2)
    assert_close(joined, Encoded(dense, SparseVectors.from_rows(texts)), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", ","], "--device names no device"),
        (["--precision", "bfloat16"], "--precision is that of --device"),
        (["--device", "cpu", "--vectors", "x.npz"], "nothing to do for --device"),
    ],
)
def test_options_without_effect_are_refused(corpus, tmp_path, options, message):
    command = ["index", str(corpus), "--index", str(tmp_path / "index"), *options]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "index").exists()
