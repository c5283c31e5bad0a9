from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path

import pytest

from dupmae.engine.corpus import corpus_hash, count_documents, read_corpus, read_id_file
from dupmae.errors import DataError
from dupmae.types import Document

TWO_LINES = b'{"_id": "a", "text": "first"}\n{"_id": "b", "text": "second", "title": "T"}\n'
TWO_DOCUMENTS = [Document("a", "first"), Document("b", "second", "T")]


def written(folder: Path, content: bytes) -> Path:
    path = folder / "corpus.jsonl"
    path.write_bytes(content)
    return path


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_corpus(path))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_documents_come_in_the_order_of_their_lines(tmp_path: Path) -> None:
    assert list(read_corpus(written(tmp_path, TWO_LINES))) == TWO_DOCUMENTS


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbf" + TWO_LINES, id="byte order mark"),
        pytest.param(TWO_LINES.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(b"\n  \n" + TWO_LINES.replace(b"\n", b"\n\r\n\n"), id="blank lines"),
        pytest.param(TWO_LINES.rstrip(), id="no last line end"),
        pytest.param(gzip.compress(TWO_LINES), id="gzip"),
        pytest.param(gzip.compress(b"\xef\xbb\xbf") + gzip.compress(TWO_LINES), id="gzip members"),
        pytest.param(TWO_LINES.replace(b'"first"', b'"first", "title": null'), id="null title"),
    ],
)
def test_the_same_documents_in_another_dress(tmp_path: Path, content: bytes) -> None:
    assert list(read_corpus(written(tmp_path, content))) == TWO_DOCUMENTS


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(gzip.compress(TWO_LINES),))
    writer.start()
    assert list(read_corpus(pipe)) == TWO_DOCUMENTS
    writer.join()


def test_keys_of_their_own_join_the_metadata(tmp_path: Path) -> None:
    line = b'{"_id": "a", "text": "t", "url": "u", "year": 1, "metadata": {"year": 2, "n": [null]}}'
    (document,) = read_corpus(written(tmp_path, line))
    assert document.metadata == {"url": "u", "year": 2, "n": [None]}


@pytest.mark.parametrize(
    ("metadata", "kept"), [("null", {}), ("{}", {}), ('"note"', {"metadata": "note"})]
)
def test_metadata_that_is_no_object_is_kept_under_its_name(
    tmp_path: Path, metadata: str, kept: dict[str, str]
) -> None:
    line = f'{{"_id": "a", "text": "t", "metadata": {metadata}}}'
    (document,) = read_corpus(written(tmp_path, line.encode()))
    assert document.metadata == kept


def test_empty_text_is_a_document(tmp_path: Path) -> None:
    (document,) = read_corpus(written(tmp_path, b'{"_id": "a", "text": ""}'))
    assert document == Document("a", "")


def test_a_line_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    text = "sea and shore " * 750_000
    path = written(tmp_path, json.dumps({"_id": "a", "text": text}).encode() + b"\n" + TWO_LINES)
    documents = list(read_corpus(path))
    assert (documents[0].text == text, len(documents)) == (True, 3)


def test_reading_is_lazy(tmp_path: Path) -> None:
    documents = read_corpus(written(tmp_path, TWO_LINES + b"broken"))
    assert next(documents) == TWO_DOCUMENTS[0]
    documents.close()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "not JSON"),
        (b"_id,text", "not JSON"),
        (b'{"_id": "c", "text": "t"} {"_id": "d", "text": "t"}', "not JSON: Extra data"),
        (b'["c", "t"]', 'expected an object with "_id" and "text", found a list'),
        (b'"c"', "found a string"),
        (b"3", "found a number"),
        (b"null", "found null"),
        (b"true", "found true or false"),
        (b"{}", 'no "_id"; found no keys'),
        (b'{"id": "c", "text": "t"}', 'no "_id"; found "id", "text"'),
        (b'{"_id": "c", "contents": "t"}', 'no "text"; found "_id", "contents"'),
        (b'{"_id": "", "text": "t"}', '"_id" is empty'),
        (b'{"_id": 7, "text": "t"}', '"_id" must be a string, found a number; write it in quotes:'),
        (b'{"_id": null, "text": "t"}', '"_id" must be a string, found null'),
        (b'{"_id": true, "text": "t"}', '"_id" must be a string, found true or false'),
        (b'{"_id": "c", "text": null}', '"text" must be a string, found null'),
        (b'{"_id": "c", "text": 1.5}', '"text" must be a string, found a number'),
        (b'{"_id": "c", "text": ["t"]}', '"text" must be a string, found a list'),
        (b'{"_id": "c", "text": "t", "title": 1}', '"title" must be a string, found a number'),
        (b'{"_id": "c", "text": "\xff"}', "not UTF-8 (byte 23 of the line)"),
        (b'{"_id": "c", "text": "caf\xe9"}', "not UTF-8"),
        (b'{"_id": "c", "text": "t", "n": NaN}', "NaN is not a JSON value"),
        (b'{"_id": "c", "text": "t", "n": -Infinity}', "-Infinity is not a JSON value"),
        (b'{"_id": "c", "text": "t", "n": 1e999}', "too large for JSON"),
        (b'{"_id": "c", "text": "t", "n": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"_id": "c", "text": "\\ud800"}', "half of a surrogate pair"),
        (b'{"_id": "\\udfff", "text": "t"}', "half of a surrogate pair"),
        (b'{"_id": "c", "text": "t", "n": {"\\ud800": 1}}', "half of a surrogate pair"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong(
    tmp_path: Path, line: bytes, complaint: str
) -> None:
    message = error_of(written(tmp_path, TWO_LINES + b"\n" + line + b"\n"))
    assert ", line 4: " in message
    assert complaint in message


def test_utf_16_is_not_utf_8(tmp_path: Path) -> None:
    path = written(tmp_path, TWO_LINES.decode().encode("utf-16"))
    assert "line 1: not UTF-8" in error_of(path)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_a_file_without_documents_is_an_error(tmp_path: Path, content: bytes) -> None:
    assert "holds no documents" in error_of(written(tmp_path, content))


def test_a_gzip_file_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    content = gzip.compress(TWO_LINES + os.urandom(4000).hex().encode())
    assert "damaged gzip file" in error_of(written(tmp_path, content[:-2000]))


def test_a_gzip_file_with_a_changed_byte_is_an_error(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(TWO_LINES))
    content[-6] ^= 1  # in the checksum
    assert "damaged gzip file after line 2" in error_of(written(tmp_path, bytes(content)))


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    assert "is a folder" in error_of(tmp_path)
    assert "no corpus file at" in error_of(tmp_path / "absent.jsonl")


def test_the_hash_changes_with_every_field_and_with_the_order() -> None:
    base = Document("a", "text", "title", {"n": 1})
    variants = [
        [base],
        [Document("b", "text", "title", {"n": 1})],
        [Document("a", "other", "title", {"n": 1})],
        [Document("a", "text", "", {"n": 1})],
        [Document("a", "text", "title", {"n": 2})],
        [base, Document("b", "x")],
        [Document("b", "x"), base],
        [],
    ]
    hashes = {corpus_hash(documents) for documents in variants}
    assert len(hashes) == len(variants)


def test_the_hash_does_not_see_the_order_of_metadata_or_the_spelling_of_the_file(
    tmp_path: Path,
) -> None:
    first = written(tmp_path, '{"_id": "a", "text": "é", "x": 1, "y": 2}'.encode())
    expected = corpus_hash(read_corpus(first))
    second = written(tmp_path, b'{"y": 2, "x": 1, "text": "\\u00e9", "_id": "a"}\r\n')
    assert corpus_hash(read_corpus(second)) == expected


def test_documents_are_counted_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"_id": "a"}\n\nnot JSON\n')
    assert count_documents(path) == 2


def test_a_pipe_is_not_counted_as_that_would_use_it_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert count_documents(tmp_path / "pipe") is None


def test_ids_are_lines_as_they_are_or_the_id_of_each_json_line(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b" a b \r\n\n{\n\xc3\xbc")
    assert list(read_id_file(tmp_path / "ids.txt")) == [" a b ", "{", "ü"]
    (tmp_path / "ids.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "a", "text": 5}\n'))
    assert list(read_id_file(tmp_path / "ids.jsonl.gz")) == ["a"]
    (tmp_path / "latin").write_bytes(b"a\n\xfc\n")
    with pytest.raises(DataError, match=r"latin, line 2: not UTF-8 \(byte 1"):
        list(read_id_file(tmp_path / "latin"))
