"""`docs/index-format.md` tells the truth."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import numpy as np
from fakes import FakeEncoder

from dupmae.engine import build_index, read_manifest
from dupmae.engine.manifest import FORMAT_VERSION
from dupmae.types import Document

PAGE = (Path(__file__).parents[1] / "docs" / "index-format.md").read_text(encoding="utf-8")
DOCUMENTS = [
    Document("sun", "Skin makes vitamin D in sunlight."),
    Document("bone", "Calcium and vitamin D keep bones strong."),
    Document("sea", "Waves.", metadata={"depth": 11.5, "seen": None, "tags": ["a", 1, True]}),
]
NEW = Document("bone", "Bones need calcium.")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return found


def built(tmp_path: Path) -> Path:
    folder = tmp_path / "my.index"
    build_index(DOCUMENTS, FakeEncoder(), folder)
    build_index([NEW], FakeEncoder(), folder)
    return folder


def test_the_example_is_what_is_written(tmp_path: Path) -> None:
    folder = built(tmp_path)
    example, real = json.loads(block("json")), json.loads((folder / "MANIFEST.json").read_text())
    assert list(example) == list(real)
    for name in ("generation", "encoder_name", "encoder_seal", "dense_dim", "format_version"):
        assert example[name] == real[name]
    for one, two in zip(example["segments"], real["segments"], strict=True):
        assert list(one) == list(two)
        assert [one[k] for k in ("name", "documents", "deleted", "deletes")] == [
            two[k] for k in ("name", "documents", "deleted", "deletes")
        ]
    assert example["segments"][0]["files"][0] in real["segments"][0]["files"]
    assert example["canaries"]["runtime"] == real["canaries"]["runtime"]
    assert example["canaries"]["texts"][0] in real["canaries"]["texts"]
    assert example["segments"][1]["corpus_hash"] == real["segments"][1]["corpus_hash"]


def test_the_bytes_of_the_deletes_are_what_is_written(tmp_path: Path) -> None:
    dump = re.findall(r"^[0-9a-f]{8}: ((?:[0-9a-f]{4} ?)+)", PAGE, flags=re.MULTILINE)
    expected = bytes.fromhex("".join(dump).replace(" ", ""))
    assert (built(tmp_path) / "deletes/000002-000001.npy").read_bytes() == expected


def test_the_program_reads_the_documents_in_order(tmp_path: Path) -> None:
    scope: dict = {}
    exec(compile(block("python"), "index-format.md", "exec"), scope)
    found = dict(scope["read"](built(tmp_path)))
    assert list(found) == ["sun", "sea", "bone"]
    expected = FakeEncoder().encode_documents(
        [d.content for d in (DOCUMENTS[0], DOCUMENTS[2], NEW)]
    )
    assert np.array_equal(list(found.values()), expected.dense)


def test_every_file_and_its_version_are_described(tmp_path: Path) -> None:
    folder = built(tmp_path)
    assert f"# The index folder, format {FORMAT_VERSION}\n" in PAGE
    for file in read_manifest(folder).files:
        if "/tantivy/" not in file.path:
            assert f"`{Path(file.path).name}`" in PAGE or Path(file.path).name in PAGE


def test_metadata_is_json_with_its_types(tmp_path: Path) -> None:
    rows = sqlite3.connect(built(tmp_path) / "segments/000001/documents.sqlite")
    ((application,),) = rows.execute("PRAGMA application_id")
    ((metadata,),) = rows.execute("SELECT metadata FROM documents WHERE doc_id = 'sea'")
    rows.close()
    assert f"0x{application:X}" in PAGE
    assert json.loads(metadata) == DOCUMENTS[2].metadata


def test_numbers_are_little_endian(tmp_path: Path) -> None:
    for path in built(tmp_path).rglob("*.npy"):
        assert np.load(path, mmap_mode="r").dtype.str[0] in "<|"  # one byte has no order
