"""Whatever a file or an expression holds, its reader gives a value or one clean line.

Each reader gets inputs made from scratch, and good ones with bytes changed, cut out, doubled or cut
off. The suite gives each a second; for longer:

    DUPMAE_FUZZ_SECONDS=600 python -m pytest -m long tests/test_fuzz.py

What was found is kept as `SEEDS`, which are always tried.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from dupmae.engine import VectorFiles, build_index, parse_filter, parse_keys, read_corpus
from dupmae.engine.corpus import read_id_file
from dupmae.engine.export import export_index
from dupmae.engine.manifest import manifest_content, manifest_of
from dupmae.errors import DataError, DupMAEError, IndexMissingError, SealError, UsageError
from dupmae.eval.beir import read_qrels
from dupmae.eval.runs import read_run
from dupmae.indexes.npy import open_npy
from dupmae.types import Document

SECONDS = float(os.environ.get("DUPMAE_FUZZ_SECONDS", "600"))
EXAMPLES = 30
"""Inputs from scratch in the suite, a reader."""
MUTANTS = 200
"""Changed good inputs in the suite, a reader."""
DOCUMENTS = [
    Document("a", "whale ship", "sea", {"year": 1851, "of": ["x", 2.5, None, True]}),
    Document("bé", "storm \u2028 🐋"),
]

Reader = Callable[[bytes, Path], None]


def corpus(content: bytes, place: Path) -> None:
    path = place / "corpus.jsonl"
    path.write_bytes(content)
    for document in read_corpus(path):
        assert document.doc_id
        json.dumps(dict(document.metadata), allow_nan=False).encode()


def ids(content: bytes, place: Path) -> None:
    for name in ("ids.txt", "ids.jsonl"):
        (place / name).write_bytes(content)
        try:
            assert all(isinstance(doc_id, str) for doc_id in read_id_file(place / name))
        except DataError as error:
            one_line(error)


def filters(content: bytes, place: Path) -> None:
    text = content.decode("utf-8", "surrogateescape")  # as Python reads command lines
    for parse in (parse_filter, parse_keys):
        try:
            found = parse(text)
        except UsageError as error:
            one_line(error)
        else:
            assert parse is parse_keys or parse_filter(str(found)) == found


def manifest(content: bytes, place: Path) -> None:
    assert manifest_content(manifest_of(place, content)) == content


def signed_manifest(content: bytes, place: Path) -> None:
    """Give the manifest the checksum of what it holds, which hides nothing then."""
    try:
        record = json.loads(content)
        record.pop("checksum", None)
        signed = json.dumps(record).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return
    record["checksum"] = hashlib.sha256(signed).hexdigest()
    manifest(f"{json.dumps(record, indent=2)}\n".encode(), place)


def npy(content: bytes, place: Path) -> None:
    path = place / "rows.npy"
    path.write_bytes(content)
    assert len(open_npy(path, np.float32, ndim=2)) >= 0


def qrels(content: bytes, place: Path) -> None:
    path = place / "test.tsv"
    path.write_bytes(content)
    for judged in read_qrels(path).values():
        assert all(isinstance(grade, int) for grade in judged.values())


def run(content: bytes, place: Path) -> None:
    path = place / "run.trec"
    path.write_bytes(content)
    for ranked in read_run(path).values():
        scores = np.array([score for _, score in ranked], np.float32)
        assert np.all(np.diff(scores) <= 0)


def safetensors(content: bytes, place: Path) -> None:
    vectors(content, place / "v.safetensors")


def npz(content: bytes, place: Path) -> None:
    vectors(content, place / "v.npz")


def vectors(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    path.with_suffix(".jsonl").write_text('{"_id": "a"}\n{"_id": "b\\u00e9"}\n')
    for encoder in (None, FakeEncoder()):
        with closing(VectorFiles.open([path], encoder)) as files:
            found = files.vectors(DOCUMENTS)
            assert np.isfinite(found.dense).all()
            found.sparse.check()
            files.check_all_used()


READERS: dict[str, tuple[Reader, tuple[type[DupMAEError], ...]]] = {
    "corpus": (corpus, (DataError,)),
    "ids": (ids, ()),
    "filters": (filters, ()),
    "manifest": (manifest, (IndexMissingError,)),
    "signed manifest": (signed_manifest, (IndexMissingError,)),
    "npy": (npy, (IndexMissingError,)),
    "qrels": (qrels, (DataError,)),
    "run": (run, (DataError,)),
    "safetensors": (safetensors, (DataError, SealError, UsageError)),
    "npz": (npz, (DataError, SealError, UsageError)),
}
"""Readers, and the errors that bad input may raise."""

BAD_HEADERS = [
    b"\x93NUMPY\x01\x00" + bytes([len(text), 0]) + text + bytes(64)
    for text in (
        b"{'descr':(",  # NumPy reads what is no literal once more, then raises what tokenize does,
        b"{'descr':'<f4','fortran_order':False,'shape':(2L,8)}",  # or warns,
        b"{[]: 1}",  # or raises a TypeError
    )
]


def zipped(name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a ZIP file of one member."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(name, content)
    return file.getvalue()


SEEDS = {
    "npy": BAD_HEADERS,
    "npz": [
        *(zipped("dense.npy", header) for header in BAD_HEADERS),
        # The version that is needed to read it is 24.2, as the directory at the end says.
        zipped("dense.npy", b"").replace(b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\xf2"),
        zipped("den\nse.npy", b"", zipfile.ZIP_DEFLATED),
    ],
    "qrels": [b'p\r"x"\t1\n', b'q\t"' + b"x" * 140_000 + b'"\t1\n'],
}
"""By reader, what once made it fail."""

ATOMS = {
    "corpus": ['{"_id": "a", "text": "b"}', '"metadata": {"n": [1, null]}', "{", "}", ":", "NaN"],
    "filters": [
        "a", "id", "title", '"b c"', "'d'", ".", "=", "!=", "<=", ">", "in", "(", ")", ",", "and",
        "or", "not", "exists", "null", "true", "1", "-2.5e3", "\\", "not(",
    ],
    "qrels": ["q", "\t", "d", "1", "-1", "\n", "query-id\tcorpus-id\tscore\n", '"'],
    "run": ["q", " ", "Q0", "d", "1", "2.5", "nan", "1e39", "\n", "q Q0 d 1 2 t\n"],
}  # fmt: skip
"""What inputs from scratch are made of, beside any bytes."""


def one_line(error: DupMAEError) -> None:
    text = str(error)
    assert text.strip()
    assert "\n" not in text


def read(name: str, content: bytes, place: Path) -> None:
    """Assert that a reader takes some bytes or refuses them cleanly."""
    reader, refusals = READERS[name]
    try:
        reader(content, place)
    except refusals as error:
        one_line(error)


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """Make good inputs of every reader."""
    place = tmp_path_factory.mktemp("good")
    index = place / "my.index"
    build_index(DOCUMENTS, FakeEncoder(), index)
    state = (index / "MANIFEST.json").read_bytes()
    for name in ("a.safetensors", "b.npz"):
        export_index(index, place / name)
    lines = (place / "a.jsonl").read_bytes()
    judged = 'query-id\tcorpus-id\tscore\nq\ta\t1\nq\tbé\t-2\np\t"x""y"\t0\n'.encode()
    ranked = "q Q0 a 1 2.5 t\nq Q0 bé 2 2.5 t\np Q0 a 1 -1e-3 t\n".encode()
    expressions = [
        'year >= 1851 and (not of = "x" or "odd key".b in (1, -2.5, null, "é\\n"))',
        "id != 'a' and title exists and year < 1e3",
        "a.b, 'c', id",
    ]
    return {
        "corpus": [lines, gzip.compress(lines, mtime=0), b"\xef\xbb\xbf" + lines],
        "ids": [b"a\nb\r\n", lines],
        "filters": [text.encode() for text in expressions],
        "manifest": [state],
        "signed manifest": [state],
        "npy": [(index / "segments/000001/forward/dense.npy").read_bytes()],
        "qrels": [judged, gzip.compress(judged, mtime=0)],
        "run": [ranked, gzip.compress(ranked, mtime=0)],
        "safetensors": [(place / "a.safetensors").read_bytes()],
        "npz": [(place / "b.npz").read_bytes()],
    }


def mutants(sources: list[bytes], seed: int) -> Iterator[bytes]:
    """Yield good inputs with some changes, without end."""
    chance = random.Random(seed)
    while True:
        content = bytearray(chance.choice(sources))
        for _ in range(chance.choice([1, 1, 1, 2, 4, 8])):
            _change(content, chance)
        yield bytes(content)


def _change(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content) + 1)
    length = chance.choice([1, 1, 2, 8, 50])
    kind = chance.randrange(6)
    if kind == 0 and at < len(content):
        content[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        content[at : at + length] = chance.randbytes(length)
    elif kind == 2:
        del content[at : at + length]
    elif kind == 3:
        content[at:at] = content[at : at + length]
    elif kind == 4:
        other = chance.randrange(len(content) + 1)
        content[at:at] = content[other : other + length]
    else:
        pieces = [b"", b"0", b"-1", b"9" * 30, b"1e999", b"null", b"[", b"{", b'"', b"\xff", b"\0"]
        content[at : at + length] = chance.choice(pieces)


@pytest.mark.parametrize("name", SEEDS)
def test_what_was_found_is_mended(name: str, tmp_path: Path) -> None:
    for content in SEEDS[name]:
        checked(name, content, tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_good_inputs_are_read(name: str, good: dict[str, list[bytes]], tmp_path: Path) -> None:
    for content in good[name]:
        READERS[name][0](content, tmp_path)


@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=EXAMPLES, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)  # fmt: skip
@given(st.data())
def test_inputs_from_scratch_are_read_or_refused(
    name: str, tmp_path: Path, data: st.DataObject
) -> None:
    read(name, data.draw(inputs(name)), tmp_path)


def inputs(name: str) -> st.SearchStrategy[bytes]:
    """Return any bytes, any JSON, and what the reader's format is made of."""
    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["_id", "text", "title", "metadata", "x"]), inner)
        ),
        max_leaves=12,
    )
    found = st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode())
    if name in ATOMS:
        atoms = st.lists(st.sampled_from(ATOMS[name]), max_size=30)
        found |= st.tuples(st.sampled_from(["", " "]), atoms).map(
            lambda p: p[0].join(p[1]).encode()
        )
    return found


@pytest.mark.parametrize("name", READERS)
def test_changed_inputs_are_read_or_refused(
    name: str, good: dict[str, list[bytes]], tmp_path: Path
) -> None:
    for _, content in zip(range(MUTANTS), mutants(good[name], seed=1), strict=False):
        checked(name, content, tmp_path)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_reader_for_long(name: str, good: dict[str, list[bytes]], tmp_path: Path) -> None:
    tried = dict.fromkeys(("changed", "from scratch"), 0)
    end = time.monotonic() + SECONDS / 2
    for content in mutants(good[name], time.time_ns()):
        checked(name, content, tmp_path)
        tried["changed"] += 1
        if time.monotonic() > end:
            break
    end = time.monotonic() + SECONDS / 2
    while time.monotonic() < end:  # in runs: hypothesis asks of each that time does not end it
        tried["from scratch"] += EXAMPLES

        @seed(time.time_ns())
        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=HealthCheck)
        @given(inputs(name))
        def scratch(content: bytes) -> None:
            checked(name, content, tmp_path)

        scratch()
    sys.stdout.write(f"{name}: {tried} in {SECONDS:g} s\n")


def checked(name: str, content: bytes, place: Path) -> None:
    """Read, and on a failure show the bytes, which then belong in `SEEDS`."""
    try:
        read(name, content, place)
    except Exception as error:
        raise AssertionError(f"{name}: {content!r} raises {error!r}") from error
