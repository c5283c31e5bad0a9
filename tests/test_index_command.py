"""`index`: what it reads, what it refuses, and what it leaves when it is stopped."""

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
from pathlib import Path

import numpy as np
import pytest
from command_line import CORPUS, one_line, run
from tiny_model import tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model


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
