"""Facts about finding and reading collections in BEIR layout."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from dupmae.errors import DataError, UsageError
from dupmae.eval.beir import (
    Collection,
    cache_folder,
    default_split,
    find_collection,
    load_beir,
    read_qrels,
    tuning_split,
)
from dupmae.eval.catalogue import open_collection, parts_of

QUERIES = {"q1": "red fox", "q2": "blue whale", "q3": "never judged"}
QRELS = "query-id\tcorpus-id\tscore\nq2\td2\t2\nq1\td1\t1\nq1\td2\t0\n"


def make_collection(folder: Path, qrels: str = QRELS, split: str = "test") -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "a fox"}\n')
    lines = [json.dumps({"_id": query_id, "text": text}) for query_id, text in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "qrels" / f"{split}.tsv").write_text(qrels)
    return folder


@pytest.fixture(autouse=True)
def _no_places_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DUPMAE_DATA", raising=False)
    monkeypatch.setenv("DUPMAE_CACHE", str(tmp_path / "cache"))


def test_only_judged_queries_are_asked_in_the_order_of_the_query_file(tmp_path: Path) -> None:
    collection = load_beir(make_collection(tmp_path / "small"))
    assert collection == Collection(
        name="small",
        split="test",
        queries={"q1": "red fox", "q2": "blue whale"},
        qrels={"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}},
        corpus_path=tmp_path / "small" / "corpus.jsonl",
    )
    assert list(collection.queries) == list(collection.qrels) == ["q1", "q2"]


def test_a_collection_of_queries_without_judgements_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same query ids"):
        Collection("x", "test", {"q1": "a"}, {}, tmp_path)


def test_gzipped_files_are_read(tmp_path: Path) -> None:
    folder = make_collection(tmp_path / "small")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        plain = folder / name
        plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    collection = load_beir(folder)
    assert collection.queries["q1"] == "red fox"
    assert collection.corpus_path.name == "corpus.jsonl.gz"


def test_a_damaged_gzip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv.gz"
    path.write_bytes(gzip.compress(QRELS.encode())[:-12])
    with pytest.raises(DataError, match=r"test\.tsv\.gz is a damaged gzip file after line"):
        read_qrels(path)


@pytest.mark.parametrize(
    "text",
    [
        QRELS,
        QRELS.split("\n", 1)[1],  # no header
        QRELS.replace("\n", "\r\n"),
        "\ufeff" + QRELS,
        QRELS + "q1\td1\t1\n",  # the same line once more
        QRELS.replace("\n", "\n\n"),
    ],
)
def test_judgements_are_the_same_however_the_file_was_saved(tmp_path: Path, text: str) -> None:
    path = tmp_path / "test.tsv"
    path.write_bytes(text.encode())
    assert read_qrels(path) == {"q2": {"d2": 2}, "q1": {"d1": 1, "d2": 0}}


def test_quoted_ids_and_negative_grades_are_read_as_beir_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text('q1\t"<dbpedia:""Heroes"">"\t1\nq1\td2\t-1\n')
    assert read_qrels(path) == {"q1": {'<dbpedia:"Heroes">': 1, "d2": -1}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1\td1", r"line 2: expected query-id, corpus-id and score .* found 2 fields: q1 \| d1"),
        ("q1 0 d1 1", "line 2: expected query-id, corpus-id and score separated by tabs"),
        ("q1\td1\trelevant", "line 2: the score must be an integer, found 'relevant'"),
        ("q1\td1\t1.5", "line 2: the score must be an integer, found '1.5'"),
        ("q1\t \t1", "line 2: expected query-id, corpus-id and score"),
        ("q0\td0\t2", "line 2: judges document 'd0' for query 'q0' as 2, an earlier line as 1"),
    ],
)
def test_a_malformed_judgement_is_named_by_file_and_line(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "test.tsv"
    path.write_text(f"q0\td0\t1\n{line}\n")
    with pytest.raises(DataError, match=r"test\.tsv, " + message):
        read_qrels(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no judgements"),
        (b"query-id\tcorpus-id\tscore\n", "holds no judgements"),
        (b"q\td\t1\nq\t\xff\t1\n", r"line 2: not UTF-8 \(byte 3 of the line\)"),
    ],
)
def test_a_file_without_readable_judgements_is_an_error(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "test.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_qrels(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 4: not JSON"),
        ("[" * 100_000, "line 4: not JSON"),
        ('["q4"]', 'line 4: expected an object with the strings "_id" and "text"'),
        ('{"_id": 4, "text": "x"}', 'line 4: expected an object with the strings "_id"'),
        ('{"_id": "q4"}', 'line 4: expected an object with the strings "_id"'),
        ('{"_id": "q1", "text": "x"}', "line 4: query id 'q1' repeats"),
    ],
)
def test_a_malformed_query_is_named_by_file_and_line(
    tmp_path: Path, line: str, message: str
) -> None:
    folder = make_collection(tmp_path / "small")
    with (folder / "queries.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(DataError, match=r"queries\.jsonl, " + message):
        load_beir(folder)


def test_a_judged_query_needs_a_text(tmp_path: Path) -> None:
    folder = make_collection(tmp_path / "a", QRELS + "q9\td1\t1\n")
    with pytest.raises(DataError, match=r"judges query 'q9', which queries\.jsonl does not hold"):
        load_beir(folder)
    folder = make_collection(tmp_path / "b", QRELS + "q9\td1\t1\n")
    with (folder / "queries.jsonl").open("a") as stream:
        stream.write('{"_id": "q9", "text": " "}\n')
    with pytest.raises(DataError, match="query 'q9' is judged but its text is empty"):
        load_beir(folder)


def test_msmarco_is_judged_on_dev_and_all_others_on_test(tmp_path: Path) -> None:
    assert (default_split("msmarco"), default_split("scifact")) == ("dev", "test")
    folder = make_collection(tmp_path / "msmarco", split="dev")
    assert load_beir(folder).split == "dev"


def test_a_missing_split_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    folder = make_collection(tmp_path / "small", split="dev")
    (folder / "qrels" / "train.tsv.gz").write_bytes(gzip.compress(QRELS.encode()))
    with pytest.raises(DataError, match=r"no judgements qrels/test\.tsv; .* are: dev, train"):
        load_beir(folder)
    assert load_beir(folder, "train").split == "train"


def test_a_folder_that_lacks_a_file_or_is_made_of_parts_says_so(tmp_path: Path) -> None:
    folder = make_collection(tmp_path / "small")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(DataError, match=r"small has no queries\.jsonl; a BEIR folder holds"):
        load_beir(folder)
    make_collection(tmp_path / "cqadupstack" / "android")
    make_collection(tmp_path / "cqadupstack" / "unix")
    with pytest.raises(DataError, match=r"parts \(android, unix\).* as cqadupstack/android"):
        load_beir(tmp_path / "cqadupstack")


def test_collections_are_looked_for_in_given_folders_then_the_variable_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUPMAE_DATA", f"{tmp_path / 'none'}:{tmp_path / 'env'}")
    assert cache_folder() == tmp_path / "cache" / "beir"
    assert find_collection("small", [tmp_path / "given"]) is None
    for place in (cache_folder(), tmp_path / "env", tmp_path / "given"):
        folder = make_collection(place / "small")
        assert find_collection("small", [tmp_path / "given"]) == folder
    direct = make_collection(tmp_path / "elsewhere" / "mine")
    assert find_collection("mine", [direct]) == direct


def test_a_part_of_a_collection_goes_by_its_whole_name(tmp_path: Path) -> None:
    make_collection(tmp_path / "cqadupstack" / "android")
    assert open_collection("cqadupstack/android", data_dirs=[tmp_path]).name == (
        "cqadupstack/android"
    )


def test_the_demo_has_no_other_split_than_test() -> None:
    with pytest.raises(UsageError, match="split test only, not 'dev'"):
        open_collection("demo", split="dev")


@pytest.mark.parametrize(
    ("name", "split", "queries", "judgements"),
    [
        ("scifact", "test", 300, 339),
        ("nfcorpus", "test", 323, 12_334),
        ("cranfield", "test", 225, 1_837),
        ("squad", "dev", 10_570, 10_570),
    ],
)
def test_real_collections_have_their_known_counts(
    shared_dir: Path, name: str, split: str, queries: int, judgements: int
) -> None:
    collection = open_collection(name, split=split, data_dirs=[shared_dir / "beir"])
    assert len(collection.queries) == queries
    assert sum(map(len, collection.qrels.values())) == judgements
    assert collection.corpus_path.is_file()


def test_settings_are_chosen_on_dev_or_train_never_on_what_is_evaluated(tmp_path: Path) -> None:
    folder = make_collection(tmp_path / "small", qrels="q1\td1\t1\n")
    assert tuning_split(load_beir(folder)) is None
    (folder / "qrels/train.tsv").write_text("q1\td1\t1\nq3\td1\t1\n")
    found = tuning_split(load_beir(folder))
    assert found is not None
    assert (found.split, found.qrels) == ("train", {"q3": {"d1": 1}})  # q1 is evaluated
    (folder / "qrels/dev.tsv").write_text("q2\td1\t1\n")
    found = tuning_split(load_beir(folder))
    assert found is not None
    assert (found.split, list(found.queries)) == ("dev", ["q2"])
    assert tuning_split(load_beir(folder, "dev")) == load_beir(folder, "train")


def test_only_some_of_many_queries_are_tuned_on_and_the_seed_says_which(tmp_path: Path) -> None:
    folder = make_collection(tmp_path / "small", qrels="q1\td1\t1\n")
    names = [f"t{number}" for number in range(1500)]
    with (folder / "queries.jsonl").open("a") as queries:
        queries.writelines(json.dumps({"_id": name, "text": name}) + "\n" for name in names)
    (folder / "qrels/train.tsv").write_text("".join(f"{name}\td1\t1\n" for name in names))
    first, second, other = (tuning_split(load_beir(folder), seed=seed) for seed in (0, 0, 1))
    assert first is not None
    assert len(first.queries) == 1000
    assert first == second != other


def test_only_cqadupstack_stands_for_its_parts(tmp_path: Path) -> None:
    for part in ("unix", "android"):
        make_collection(tmp_path / "cqadupstack" / part)
    assert parts_of("cqadupstack", [tmp_path]) == ["cqadupstack/android", "cqadupstack/unix"]
    assert parts_of("cqadupstack/unix", [tmp_path]) == ["cqadupstack/unix"]
    assert parts_of("scifact", [tmp_path]) == ["scifact"]


def test_the_path_of_a_folder_is_a_collection_called_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_collection(tmp_path / "there" / "mine")
    monkeypatch.chdir(tmp_path)
    for name in (str(folder), "there/mine"):
        assert open_collection(name).name == "mine"
    assert open_collection("cqadupstack/mine", data_dirs=[_parted(tmp_path)]).name == (
        "cqadupstack/mine"
    )


def _parted(folder: Path) -> Path:
    make_collection(folder / "data" / "cqadupstack" / "mine")
    return folder / "data"


def test_judgements_are_counted_by_what_may_surprise(tmp_path: Path) -> None:
    qrels = "q1\td1\t2\nq1\td1\t2\nq1\tgone\t1\nq2\td1\t-1\nq2\tlost\t0\n"
    collection = load_beir(make_collection(tmp_path / "small", qrels=qrels))
    assert collection.judgements({"d1"}) == {
        "judged": 4,
        "relevant": 2,
        "graded_above_1": 1,
        "negative": 1,
        "repeated": 1,
        "of_unknown_documents": 2,
        "queries_without_relevant": 1,
    }
