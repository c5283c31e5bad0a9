"""The commands, run in this process on a tiny model, and what they say to bad input."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny_model import tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model
from dupmae.cli import main

CORPUS = [
    {"_id": "sea", "title": "da ba", "text": "be bi bo ba"},
    {"_id": "sky", "title": "", "text": "ka ke ki ko", "year": 2020},
    {"_id": "sun", "text": "ra re ri ro ba be"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model(expansion=0.0), tiny_tokenizer(), folder, name="tiny")
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in CORPUS))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def indexed(here: Path, corpus: Path, model: Path) -> Path:
    assert run("index", str(corpus), "--model", str(model)).exit_code == 0
    return here / "dupmae.index"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def one_line(result: Result, code: int, *words: str) -> None:
    """Assert an exit code and exactly one line on stderr that holds all the words."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_the_bare_commands_index_and_then_search_the_folder_made_last(
    indexed: Path, model: Path
) -> None:
    result = run("search", "ba be", "--model", str(model))
    assert result.exit_code == 0
    assert "1. " in result.stdout
    assert "\x1b" not in result.stdout
    assert "proven" in result.stdout
    assert indexed.is_dir()


def test_search_json_holds_the_ranking_its_parts_and_the_proof(indexed: Path, model: Path) -> None:
    result = run("search", "ba be", "-k", "2", "--json", "--model", str(model))
    answer = json.loads(result.stdout)
    assert answer["proven"] is True
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2]
    for hit in answer["hits"]:
        assert hit["score"] == hit["dense"] + hit["sparse"]
    assert answer["hits"][0]["score"] >= answer["hits"][1]["score"]
    assert {"title", "text", "metadata", "id"} <= answer["hits"][0].keys()
    first = answer["hits"][0]
    assert first["snippet"]["text"] == first["text"]
    marked = [first["text"][at["start"] : at["end"]] for at in first["snippet"]["highlights"]]
    assert marked == ["ba"]


def test_weights_given_at_query_time_weigh_the_parts(indexed: Path, model: Path) -> None:
    result = run(
        "search", "ba be", "--json", "--dense-weight", "0", "--sparse-weight", "2",
        "--model", str(model),
    )  # fmt: skip
    for hit in json.loads(result.stdout)["hits"]:
        assert hit["score"] == 2 * hit["sparse"]


def test_k_above_the_number_of_documents_returns_all(indexed: Path, model: Path) -> None:
    answer = json.loads(run("search", "ba", "-k", "99", "--json", "--model", str(model)).stdout)
    assert {hit["id"] for hit in answer["hits"]} == {"sea", "sky", "sun"}
    assert answer["bound"] is None


def test_explain_says_why_a_document_is_not_among_the_first(indexed: Path, model: Path) -> None:
    options = ["--model", str(model), "--feedback", "0"]
    hits = json.loads(run("search", "ba be", "--json", *options).stdout)["hits"]
    first, last = hits[0], hits[-1]
    taken = json.loads(run("explain", "ba be", last["id"], "-k", "1", "--json", *options).stdout)
    assert (taken["rank"], taken["k"], taken["kth_score"]) == (3, 1, first["score"])
    assert taken["gap"] == first["score"] - last["score"]
    assert "ba" in {term["term"] for term in taken["missing"]}
    assert taken["snippet"]["text"] == last["text"]
    text = run("explain", "ba be", last["id"], "-k", "1", *options).stdout
    assert last["text"] in text
    assert f"not among the first 1: {taken['gap']:.4f} below rank 1" in text
    assert "not among" not in run("explain", "ba be", last["id"], "-k", "3", *options).stdout


def test_where_restricts_search_and_explain_to_what_matches(indexed: Path, model: Path) -> None:
    where = ["--where", "year = 2020 or id = 'sun'", "--feedback", "0", "--model", str(model)]
    answer = json.loads(run("search", "ba be", "--json", *where).stdout)
    everything = json.loads(run("search", "ba be", "--json", *where[2:]).stdout)
    kept = [hit for hit in everything["hits"] if hit["id"] != "sea"]
    assert answer["hits"] == [hit | {"rank": rank} for rank, hit in enumerate(kept, start=1)]
    assert (answer["documents"], everything["documents"]) == (2, 3)
    text = run("search", "ba be", "-k", "1", *where).stdout
    assert "proven: none of the other 1 documents that match scores more" in text
    taken = json.loads(run("explain", "ba be", "sky", "--json", *where).stdout)
    assert (taken["rank"], taken["documents"]) == (2, 2)
    one_line(run("explain", "ba be", "sea", *where), 1, "sea", "does not match")
    nothing = run("search", "ba be", "--where", "year = 1", "--model", str(model))
    assert nothing.stdout == "proven: there are no more than 0 documents that match\n"


def test_facets_count_the_values_of_what_matches(here: Path, model: Path) -> None:
    lines = [
        {"_id": f"d{n}", "text": "ba be", "n": n, "of": ["x", str(n % 2)], "odd key": None}
        for n in range(13)
    ]
    Path("c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run("index", "c.jsonl", "--model", str(model)).exit_code == 0
    search = ["search", "ba", "-k", "1", "--model", str(model), "--facets", 'of,n,"odd key",no']
    assert run(*search).stdout.splitlines()[-4:] == [
        'of: "x" (13), "0" (7), "1" (6)',
        f"n: {', '.join(f'{n} (1)' for n in range(10))}, 3 more",
        '"odd key": null (13)',
        "no: no values",
    ]
    answer = json.loads(run(*search, "--where", "n > 11", "--json").stdout)
    assert answer["facets"] == {
        "of": [{"value": "0", "documents": 1}, {"value": "x", "documents": 1}],
        "n": [{"value": 12, "documents": 1}],
        '"odd key"': [{"value": None, "documents": 1}],
        "no": [],
    }
    one_line(run(*search[:-1], "of,"), 2, "character 4", "a key")


def test_pages_join_to_the_whole_ranking(indexed: Path, model: Path) -> None:
    def search(*options: str) -> Result:
        return run("search", "ba be", "--model", str(model), *options)

    pages = [
        json.loads(search("-k", "2", "--offset", offset, "--json").stdout)["hits"]
        for offset in ("0", "2", "4")
    ]
    assert [len(page) for page in pages] == [2, 1, 0]
    assert list(chain.from_iterable(pages)) == json.loads(search("--json").stdout)["hits"]
    text = search("-k", "1", "--offset", "1").stdout
    assert text.startswith("  2. ")
    assert "none of the other 1 documents scores more" in text
    assert "all documents" in search("-k", "1", "--offset", "2").stdout
    assert search("--offset", "3").stdout == "proven: there are no more than 3 documents\n"
    one_line(search("--offset", "-1"), 2, "-1")


@pytest.mark.parametrize("command", [["search", "ba"], ["explain", "ba", "sea"], ["delete"]])
def test_a_wrong_filter_is_exit_2_and_says_where(indexed: Path, command: list[str]) -> None:
    # It is said before a model is loaded.
    one_line(run(*command, "--where", "year ~ 2020"), 2, "character 6", "expected =")


def test_delete_takes_a_filter_in_place_of_ids(indexed: Path) -> None:
    one_line(run("delete", "sea", "--where", "year exists"), 2, "--where without ids")
    one_line(
        run("delete", "--missing-ok", "--where", "year exists"), 2, "--missing-ok is about ids"
    )
    assert "deleted 1 documents" in run("delete", "--where", "year exists").stderr
    assert "deleted 0 documents" in run("delete", "--where", "year exists").stderr


def test_explain_adds_up_to_the_score_that_search_gave(indexed: Path, model: Path) -> None:
    hit = json.loads(run("search", "ba be", "--json", "--model", str(model)).stdout)["hits"][0]
    taken = json.loads(run("explain", "ba be", hit["id"], "--json", "--model", str(model)).stdout)
    assert taken["rank"] == 1
    assert taken["score"] == hit["score"]
    products = sum(term["product"] for term in taken["terms"])
    assert taken["dense"] + products == pytest.approx(taken["score"], rel=1e-12)
    text = run("explain", "ba be", hit["id"], "--model", str(model))
    assert f"{hit['id']}: rank 1 of 3" in text.stdout


def test_metadata_comes_back(indexed: Path, model: Path) -> None:
    hits = json.loads(run("search", "ka ke", "--json", "--model", str(model)).stdout)["hits"]
    (sky,) = [hit for hit in hits if hit["id"] == "sky"]
    assert sky["metadata"] == {"year": 2020}


@pytest.mark.parametrize("query", ["the", "🦜🦜", "ba " * 10_000, "\x00", "[MASK] [PAD]"])
def test_odd_queries_are_answered(indexed: Path, model: Path, query: str) -> None:
    answer = json.loads(run("search", query, "--json", "--model", str(model)).stdout)
    assert len(answer["hits"]) == 3
    assert answer["proven"]


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_query_is_a_usage_error(indexed: Path, model: Path, query: str) -> None:
    one_line(run("search", query, "--model", str(model)), 2, "query is empty")


@pytest.mark.parametrize("k", ["0", "-3"])
def test_k_below_one_is_a_usage_error(indexed: Path, model: Path, k: str) -> None:
    one_line(run("search", "ba", "-k", k, "--model", str(model)), 2, k)


def test_no_index_is_exit_3(here: Path, model: Path) -> None:
    one_line(run("search", "ba", "--model", str(model)), 3, "dupmae.index")


def test_a_half_deleted_index_is_exit_3(indexed: Path, model: Path) -> None:
    weights = next(indexed.glob("segments/*/forward/weights.npy"))
    weights.unlink()
    one_line(run("search", "ba", "--model", str(model)), 3, "weights.npy")


def test_a_newer_format_is_exit_3(indexed: Path, model: Path) -> None:
    manifest = json.loads((indexed / "MANIFEST.json").read_text())
    manifest["format_version"] = 99
    (indexed / "MANIFEST.json").write_text(json.dumps(manifest))
    one_line(run("search", "ba", "--model", str(model)), 3, "99")


def test_another_encoder_is_exit_4(indexed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save_model(tiny_model(expansion=0.0, k_document=3), tiny_tokenizer(), other, name="other")
    one_line(run("search", "ba", "--model", str(other)), 4, "tiny", "other")


def test_an_unknown_document_is_exit_1(indexed: Path, model: Path) -> None:
    one_line(run("explain", "ba", "moon", "--model", str(model)), 1, "moon")


def test_a_missing_model_is_exit_1(indexed: Path) -> None:
    one_line(run("search", "ba", "--model", "no/such/folder"), 1, "no/such/folder")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ("line 2", "JSON")),
        ("[1]", ("line 2",)),
        ('{"text": "ba"}', ("line 2", "_id")),
        ('{"_id": "x"}', ("line 2", "text")),
        ('{"_id": "sea", "text": "ba"}', ("sea",)),
        ('{"_id": "x", "text": null}', ("line 2", "text", "null")),
        ('{"_id": "x", "text": 7}', ("line 2", "text", "number")),
        ('{"_id": 7, "text": "ba"}', ("line 2", "_id")),
        ('{"_id": "", "text": "ba"}', ("line 2", "_id")),
    ],
)
def test_a_bad_corpus_line_is_named_and_leaves_the_index_as_it_was(
    indexed: Path, model: Path, line: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    before = (indexed / "MANIFEST.json").read_bytes()
    bad = tmp_path / "bad.jsonl"
    bad.write_text(f"{json.dumps(CORPUS[0])}\n{line}\n")
    one_line(run("index", str(bad), "--replace", "--model", str(model)), 1, *words)
    assert (indexed / "MANIFEST.json").read_bytes() == before
    assert run("search", "ba", "--model", str(model)).exit_code == 0
    assert len(list(indexed.glob("segments/*"))) == 1


@pytest.mark.parametrize("kind", ["empty", "folder", "missing", "cut gzip", "latin-1"])
def test_a_corpus_that_is_none_is_named(here: Path, model: Path, kind: str) -> None:
    path = here / "bad"
    content = {
        "empty": b"",
        "cut gzip": gzip.compress(json.dumps(CORPUS[0]).encode() * 50)[:-12],
        "latin-1": b'{"_id": "x", "text": "\xe9"}\n',
    }
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(content[kind])
    one_line(run("index", str(path), "--model", str(model)), 1, "bad")
    assert not (here / "dupmae.index" / "MANIFEST.json").exists()


@pytest.mark.parametrize("form", ["bom", "crlf", "gzip", "blank lines", "10 MB"])
def test_corpora_in_odd_forms_are_read(here: Path, model: Path, form: str) -> None:
    lines = [json.dumps(line) for line in CORPUS]
    if form == "10 MB":
        lines[0] = json.dumps({"_id": "sea", "text": "ba be " * 1_700_000})
    data = "\n".join(lines).encode() + b"\n"
    changed = {
        "bom": b"\xef\xbb\xbf" + data,
        "crlf": data.replace(b"\n", b"\r\n"),
        "gzip": gzip.compress(data),
        "blank lines": data.replace(b"\n", b"\n\n"),
    }
    (here / "corpus").write_bytes(changed.get(form, data))
    result = run("index", "corpus", "--json", "--model", str(model))
    assert json.loads(result.stdout)["documents"] == 3


def test_index_adds_to_an_index_and_replaces_it_if_asked(
    indexed: Path, here: Path, model: Path
) -> None:
    new = here / "new.jsonl"
    new.write_text('{"_id": "sea", "text": "be"}\n{"_id": "new", "text": "ba"}\n')
    command = ["index", str(new), "--json", "--model", str(model)]
    assert json.loads(run(*command).stdout)["documents"] == 4
    assert json.loads(run(*command, "--replace").stdout)["documents"] == 2


def test_index_wants_a_corpus_or_the_demo(here: Path) -> None:
    one_line(run("index"), 2, "--demo")


def test_a_full_disk_leaves_the_old_index(indexed: Path, tmp_path: Path, model: Path) -> None:
    before = (indexed / "MANIFEST.json").read_bytes()
    big = tmp_path / "big.jsonl"
    with big.open("w") as file:
        for number in range(60):
            file.write(json.dumps({"_id": str(number), "text": "ba be " * 5_000}) + "\n")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that write fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    done = subprocess.run(
        [sys.executable, "-m", "dupmae", "index", str(big), "--replace", "--model", str(model)],
        capture_output=True, text=True, cwd=indexed.parent, preexec_fn=limit, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "the same command goes on after 60 documents" in done.stderr
    assert (indexed / "MANIFEST.json").read_bytes() == before
    assert run("search", "ba", "--model", str(model)).exit_code == 0


def test_ctrl_c_while_indexing_ends_cleanly_with_130(here: Path, model: Path) -> None:
    fifo = here / "corpus"
    os.mkfifo(fifo)  # never ends, so the build is certainly under way
    process = subprocess.Popen(
        [sys.executable, "-m", "dupmae", "index", str(fifo), "--model", str(model)],
        stderr=subprocess.PIPE, text=True, cwd=here,
        # A suite that a shell runs in the background inherits that ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    with fifo.open("w") as corpus:
        corpus.write(json.dumps(CORPUS[0]) + "\n")
        corpus.flush()
        while not (here / "dupmae.index").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert not (here / "dupmae.index" / "MANIFEST.json").exists()


def test_ctrl_c_keeps_what_is_encoded_and_the_same_command_goes_on(
    here: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fifo = here / "corpus"
    lines = [json.dumps({"_id": str(number), "text": "ba be"}) + "\n" for number in range(700)]
    command = ["index", "corpus", "--model", str(model)]
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "dupmae", *command], stderr=subprocess.PIPE, text=True, cwd=here,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    journal = here / "dupmae.index" / "JOURNAL.jsonl"
    with fifo.open("w") as corpus:
        corpus.writelines(lines[:600])
        corpus.flush()
        while not journal.exists() or len(journal.read_text().splitlines()) < 2:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines() == [
        "stopped after 512 documents; the same command goes on from there",
        "interrupted",
    ]
    fifo.unlink()
    fifo.write_text("".join(lines))
    assert "dupmae.index holds 700 documents" in run(*command).stderr
    assert "going on after 512 documents that are encoded already" in caplog.messages


def test_truncated_documents_are_counted_aloud(here: Path, tmp_path: Path) -> None:
    save_model(
        tiny_model(expansion=0.0, max_document_length=8), tiny_tokenizer(), here / "short", name="s"
    )
    corpus = here / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(line) + "\n" for line in CORPUS))
    result = run("index", "corpus.jsonl", "--model", "short")
    assert (result.exit_code, "longer than" in result.stderr) == (0, False)
    corpus.write_text(corpus.read_text() + json.dumps({"_id": "long", "text": "ba " * 9}) + "\n")
    result = run("index", "corpus.jsonl", "--model", "short", "--json")
    assert "1 of 4 documents are longer than the 8 tokens that are read; --chunk" in result.stderr
    assert json.loads(result.stdout)["truncated"] == 1
    assert json.loads(run("info", "--json").stdout)["truncated"] == 1
    assert re.search(r"^truncated +1$", run("info").stdout, re.MULTILINE)
    run("delete", "long")
    assert json.loads(run("info", "--json").stdout)["truncated"] == 0


def test_a_split_document_is_found_by_its_best_passage(here: Path, model: Path) -> None:
    long = {"_id": "long", "title": "da", "text": "ba be. " * 9 + "ka ke ki ko. " + "ba be. " * 9}
    corpus = here / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(line) + "\n" for line in [*CORPUS, long]))
    built = run("index", "corpus.jsonl", "--model", str(model), "--chunk", "12", "--overlap", "0")
    assert re.search(r"holds 4 documents in \d+ passages", built.stderr)
    asked = ("ka ke ki ko", "--model", str(model), "--feedback", "0")
    hits = json.loads(run("search", *asked, "--json").stdout)["hits"]
    (hit,) = (hit for hit in hits if hit["id"] == "long")
    passage = hit["passage"]
    assert "ka ke ki ko." in passage["text"]
    assert long["text"][passage["start"] : passage["end"]] == passage["text"]
    assert f"long  passage {passage['number']} (characters {passage['start']} to" in (
        run("search", *asked).stdout
    )
    query, *options = asked
    taken = json.loads(run("explain", query, "long", *options, "--json").stdout)
    assert (taken["passage"], taken["score"]) == (passage, hit["score"])
    assert f"by its passage {passage['number']}" in run("explain", query, "long", *options).stdout
    said = json.loads(run("info", "--json").stdout)
    assert said["chunk"] == {"tokens": 12, "overlap": 0}
    assert f"{said['passages']}, of up to 12 tokens that overlap by 0" in run("info").stdout
    again = run("index", "corpus.jsonl", "--model", str(model), "--chunk", "13")
    assert again.exit_code == 2
    assert "holds passages of 12 tokens that overlap by 0, not passages of 13" in again.stderr


def test_overlap_without_passages_is_refused(here: Path, corpus: Path) -> None:
    result = run("index", str(corpus), "--overlap", "3")
    assert (result.exit_code, "give --chunk too" in result.stderr) == (2, True)


def test_info_says_what_the_index_holds(indexed: Path) -> None:
    found = json.loads(run("info", "--json").stdout)
    manifest = json.loads((indexed / "MANIFEST.json").read_text())
    assert {key: found[key] for key in ("documents", "deleted", "generation", "encoder")} == {
        "documents": 3,
        "deleted": 0,
        "generation": 1,
        "encoder": "tiny",
    }
    assert found["seal"] == manifest["encoder_seal"]
    assert found["bytes"] == sum(p.stat().st_size for p in indexed.rglob("segments/**/*.*"))
    assert [segment["name"] for segment in found["segments"]] == ["000001"]
    text = run("info").stdout
    assert re.search(r"^documents +3$", text, re.MULTILINE)
    assert re.search(r"^segment 000001 +3 documents, 0 of them deleted", text, re.MULTILINE)


def test_verify_names_damage_and_ends_with_3(indexed: Path) -> None:
    assert run("verify", "--deep").stdout == "dupmae.index: nothing is wrong\n"
    path = next(indexed.glob("segments/*/forward/weights.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    one_line(run("verify"), 3, "forward/weights.npy has changed")


def test_delete_takes_ids_and_a_file_of_ids(indexed: Path, here: Path, model: Path) -> None:
    one_line(run("delete"), 2, "--ids")
    one_line(run("delete", "sea", "soa"), 1, "soa", "nothing is deleted")
    (here / "ids").write_bytes(b"sky\r\n\nsoa\n")
    (here / "ids.jsonl").write_text('{"_id": "sun"}\n')
    assert "deleted 1 documents" in run("delete", "--ids", "ids", "--missing-ok").stderr
    assert run("delete", "--ids", "ids.jsonl").exit_code == 0
    hits = json.loads(run("search", "ba", "--json", "--model", str(model)).stdout)["hits"]
    assert [hit["id"] for hit in hits] == ["sea"]
    assert run("compact").exit_code == 0
    assert json.loads(run("info", "--json").stdout)["deleted"] == 0
    one_line(run("delete", "--ids", "absent"), 1, "absent")


def test_a_snapshot_is_restored(indexed: Path, model: Path) -> None:
    query = ["search", "ba be", "--json", "--model", str(model)]
    before = run(*query).stdout
    assert run("snapshot", "my.tar").exit_code == 0
    one_line(run("snapshot", "my.tar"), 2, "my.tar is there already")
    one_line(run("restore", "my.tar"), 2, "holds an index")
    assert run("restore", "my.tar", "--index", "again").exit_code == 0
    assert run(*query, "--index", "again").stdout == before


def test_an_exported_index_is_made_again_without_a_model(
    indexed: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = ["search", "ba be", "--json", "--model", str(model)]
    before = run(*query).stdout
    result = run("export", "out.safetensors")
    assert result.exit_code == 0, result.stderr
    one_line(run("export", "out.npz"), 2, "out.jsonl", "there already")
    with monkeypatch.context() as patch:
        patch.setattr("dupmae.commands.index.load_encoder", lambda *_: pytest.fail("a model"))
        again = ["index", "out.jsonl", "--vectors", "out.safetensors", "--index", "again"]
        assert run(*again).exit_code == 0
    assert run(*query, "--index", "again").stdout == before


def test_vectors_that_name_no_encoder_need_a_model(here: Path, corpus: Path, model: Path) -> None:
    arrays = {
        "dense": np.ones((3, 16), np.float32),
        "indptr": np.array([0, 1, 1, 2]),
        "terms": np.array([7, 9]),
        "weights": np.ones(2, np.float32),
    }
    np.savez(here / "corpus.npz", **arrays)  # the corpus file itself names the rows' documents
    command = ["index", str(corpus), "--vectors", str(here / "corpus.npz")]
    one_line(run(*command), 2, "corpus.npz", "--model")
    result = run(*command, "--model", str(model))
    assert result.exit_code == 0, result.stderr
    hits = json.loads(run("search", "ba", "--json", "--model", str(model)).stdout)["hits"]
    assert len(hits) == 3


@pytest.mark.parametrize(
    "command",
    [[], *([name] for name in main.commands)],
    ids=lambda command: " ".join(command) or "dupmae",
)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys\n"
        "from dupmae.cli import main\n"
        f"main({[*command, '--help']!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'faiss', 'tantivy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_eval_measures_a_collection_found_under_data(here: Path, model: Path, corpus: Path) -> None:
    folder = here / "data" / "toy"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_bytes(corpus.read_bytes())
    (folder / "queries.jsonl").write_text('{"_id": "sea", "text": "ba be"}\n')
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nsea\tsun\t1\nsea\tsea\t1\n"
    )
    arguments = ["eval", "--beir", "toy", "--data", "data", "--json", "--model", str(model)]
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert list(report)[:6] == ["collection", "split", "systems", "proven", "model", "index"]
    assert list(report["systems"]) == ["hybrid", "dense", "sparse"]
    assert set(report["systems"]["hybrid"]) == {"nDCG@10", "R@100", "RR@10", "AP"}
    assert report["proven"] == 1.0
    assert report["dropped_self_hits"]["hybrid"] == 1
    created = json.loads((here / "runs/eval/toy/index/MANIFEST.json").read_text())["created"]
    lines = (here / "runs/eval/toy/hybrid.trec").read_text().splitlines()
    assert [line.split()[2] for line in lines].count("sea") == 0

    assert run(*arguments).exit_code == 0
    again = json.loads((here / "runs/eval/toy/index/MANIFEST.json").read_text())["created"]
    assert again == created, "an index of the same corpus and encoder is used again"

    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "new", "text": "ba"}\n')
    assert json.loads(run(*arguments).stdout)["documents"] == 4


def test_the_models_feedback_is_used_unless_another_is_given(
    here: Path, corpus: Path, tmp_path: Path
) -> None:
    moving = tmp_path / "moving"
    save_model(tiny_model(feedback=0.5), tiny_tokenizer(), moving, name="moving")
    chosen = ["--model", str(moving)]
    assert run("index", str(corpus), *chosen).exit_code == 0
    own, given, none = (
        json.loads(run("search", "ba be", "--json", *chosen, *more).stdout)["hits"]
        for more in ((), ("--feedback", "0.5"), ("--feedback", "0"))
    )
    assert own == given != none
    explained = json.loads(run("explain", "ba be", own[0]["id"], "--json", *chosen).stdout)
    assert (explained["feedback"], explained["score"]) == (0.5, own[0]["score"])

    folder = here / "data" / "toy"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_bytes(corpus.read_bytes())
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "ba be"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tsun\t1\n")
    result = run("eval", "--beir", "toy", "--data", "data", "--json", *chosen)
    weights = json.loads(result.stdout)["weights"]
    assert {name: weight["feedback"] for name, weight in weights.items()} == {
        "hybrid": 0.5,
        "dense": 0.0,
        "sparse": 0.0,
        "no-feedback": 0.0,
    }
    for system, hits in (("hybrid", own), ("no-feedback", none)):
        lines = (here / f"runs/eval/toy/{system}.trec").read_text().splitlines()
        assert [line.split()[2] for line in lines] == [hit["id"] for hit in hits]
        assert [float(line.split()[4]) for line in lines] == [hit["score"] for hit in hits]


def test_an_unknown_collection_is_one_line(
    here: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUPMAE_CACHE", str(here / "cache"))
    one_line(run("eval", "--beir", "nonesuch", "--model", str(model)), 1, "nonesuch")


def test_pretrain_without_a_corpus_takes_the_demo_texts_and_says_so(
    here: Path, model: Path
) -> None:
    result = run(
        "pretrain", "--start", str(model), "--steps", "2",
        "--set", "corpus.max_length=24", "--set", "trainer.batch_size=4", "--set", "probe_texts=4",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "built-in demo corpus" in result.stderr
    assert (here / "runs/pretrain/model/model.safetensors").exists()
    log = [json.loads(line) for line in Path("runs/pretrain/log.jsonl").read_text().splitlines()]
    assert {"loss", "mlm", "cls", "bag", "sequences_per_s"} <= log[1].keys()


def test_finetune_takes_rows_and_a_start_model(here: Path, model: Path) -> None:
    rows = [
        {"query": f"ba {word}", "text": f"{word} be bi bo"} for word in ("ka", "ke", "ki", "ko")
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run(
        "finetune", "rows.jsonl", "--start", str(model), "--steps", "2",
        "--set", "data.held_out=1", "--set", "trainer.batch_size=2",
        "--set", "data.document_length=24", "--set", "data.query_length=24",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert run("index", "corpus.jsonl", "--model", "runs/finetune/model").exit_code == 1
    log = [json.loads(line) for line in Path("runs/finetune/log.jsonl").read_text().splitlines()]
    assert {"loss", "contrastive_sum"} <= log[1].keys()


def test_an_unknown_setting_names_the_nearest(here: Path, model: Path) -> None:
    one_line(run("pretrain", "--start", str(model), "--set", "trainer.step=3"), 2, "trainer.steps")
    one_line(run("finetune", "--set", "loss"), 2, "KEY=VALUE")


def test_a_missing_training_file_is_named(here: Path, model: Path) -> None:
    one_line(run("pretrain", "no.jsonl", "--start", str(model)), 1, "no.jsonl")
    lengths = ["--set", "data.document_length=24", "--set", "data.query_length=24"]
    one_line(run("finetune", "no.jsonl", "--start", str(model), *lengths), 1, "no.jsonl")
