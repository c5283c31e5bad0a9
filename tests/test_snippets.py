from __future__ import annotations

import math
import random
from pathlib import Path

import click
import pytest
from examples import examples
from fakes import FakeEncoder, WordReader
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny_model, tiny_tokenizer

from dupmae.commands.display import Display
from dupmae.commands.snippets import snippet_lines
from dupmae.encoder import Encoder
from dupmae.engine import (
    Chunk,
    Highlight,
    SearchEngine,
    Snippet,
    build_index,
    explain,
    snippet,
    snippets,
)
from dupmae.errors import DataError, UsageError
from dupmae.torch_encoder import TorchEncoder
from dupmae.types import Document

FILLER = "One word after another says nothing here. "
DOCUMENTS = [
    Document("far", FILLER * 9 + "A whale met the ship at sea. " + FILLER * 9, "whale"),
    Document("spread", FILLER * 9 + "ship sea " + FILLER * 9 + "whale whale"),
    Document("title only", FILLER * 9, "the whale"),
    Document("blanks", " \n " + "ship " * 3, ""),
    Document("one word", "x" * 900),
    Document("empty", ""),
]
"""The fake encoder's terms are words between blanks, so "sea." is one and "sea" another."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snippets") / "my.index"
    build_index(DOCUMENTS, FakeEncoder(), folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path):
    with SearchEngine.open(folder, FakeEncoder()) as engine:
        yield engine


def marked(found: Snippet) -> list[str]:
    return [found.text[match.start : match.end] for match in found.highlights]


def test_the_passage_is_where_the_terms_stand_and_starts_at_its_sentence(
    engine: SearchEngine,
) -> None:
    found = snippet(engine, "whale ship sea.", "far", 60)
    assert found.text == "A whale met the ship at sea. One word after another says"
    assert (found.before, found.after) == (True, True)
    assert marked(found) == ["whale", "ship", "sea."]


def test_a_highlight_weighs_what_explain_says_of_its_term(engine: SearchEngine) -> None:
    found = snippet(engine, "whale whale ship", "far")
    parts = {term.text: term.product for term in explain(engine, "whale whale ship", "far").terms}
    for match, word in zip(found.highlights, marked(found), strict=True):
        assert match.weight == parts[f"term{FakeEncoder().term(word)}"]
    # The word stands in the title as well, so twice: log(1 + 2) each, and once for "ship".
    assert [match.weight for match in found.highlights] == [
        pytest.approx(math.log(3) ** 2, rel=1e-6),
        pytest.approx(math.log(2) ** 2, rel=1e-6),
    ]


def test_distinct_terms_count_and_not_how_often_they_occur(engine: SearchEngine) -> None:
    found = snippet(engine, "whale ship sea", "spread", 30)
    # log(3)·log(2) at the end, were it not for 2·log(2)² before it.
    assert marked(found) == ["ship", "sea"]
    assert len(found.text) <= 30
    assert marked(snippet(engine, "whale ship", "spread", 30)) == ["whale", "whale"]


@pytest.mark.parametrize("query", ["unheard", "", "whale"])
def test_the_beginning_is_shown_where_nothing_of_the_text_matches(
    engine: SearchEngine, query: str
) -> None:
    found = snippet(engine, query, "title only", 50)
    assert found == Snippet("One word after another says nothing here. One word", (), False, True)


def test_blanks_before_the_text_do_not_shift_what_is_marked(engine: SearchEngine) -> None:
    found = snippet(engine, "ship", "blanks")
    assert found.text == "ship ship ship"
    assert marked(found) == ["ship"] * 3
    assert (found.before, found.after) == (False, False)


def test_words_longer_than_a_snippet_are_cut(engine: SearchEngine) -> None:
    assert snippet(engine, "ship", "one word", 20) == Snippet("x" * 20, (), False, True)
    assert snippet(engine, "x" * 900, "one word", 20) == Snippet("x" * 20, (), False, True)


def test_an_empty_text_has_an_empty_snippet(engine: SearchEngine) -> None:
    assert snippet(engine, "whale", "empty") == Snippet("", (), False, False)


@pytest.mark.parametrize("feedback", [0.0, 0.5])
def test_an_answer_is_not_encoded_again_and_shows_the_same(
    folder: Path, feedback: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SearchEngine.open(folder, FakeEncoder(), feedback=feedback) as other:
        result = other.search("whale sea", len(DOCUMENTS))
        ids = [hit.doc_id for hit in result.hits]
        anew = [snippet(other, "whale sea", doc_id) for doc_id in ids]
        monkeypatch.setattr(other.encoder, "encode_queries", None)
        assert snippets(other, result, ids) == anew


@pytest.mark.parametrize("where", [None, 'id != "far"'])
def test_an_explanations_query_is_not_encoded_again_either(
    folder: Path, where: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SearchEngine.open(folder, FakeEncoder(), feedback=0.5) as other:
        anew = snippet(other, "whale sea", "spread", where=where)
        explained = explain(other, "whale sea", "spread", where=where)
        monkeypatch.setattr(other.encoder, "encode_queries", None)
        assert snippet(other, explained, "spread", where=where) == anew


def test_feedback_learns_from_what_matches_the_filter(tmp_path: Path) -> None:
    documents = [
        Document("a", "whale ship", metadata={"n": 1}),
        Document("b", "whale storm", metadata={"n": 2}),
        Document("c", "storm ship", metadata={"n": 1}),
    ]
    build_index(documents, FakeEncoder(), tmp_path / "i")
    with SearchEngine.open(tmp_path / "i", FakeEncoder(), feedback=1.0) as engine:
        result = engine.search("whale", 2, where="n = 1")
        (of_answer,) = snippets(engine, result, ["c"])
        assert snippet(engine, "whale", "c", where="n = 1") == of_answer
        assert snippet(engine, "whale", "c") != of_answer
        with pytest.raises(DataError, match="'b'"):
            snippet(engine, "whale", "b", where="n = 1")


def test_an_encoder_that_cannot_locate_terms_gives_the_beginning(folder: Path) -> None:
    class Plain:
        def __init__(self) -> None:
            for name in (*["name", "seal", "dense_dim", "vocabulary_size"], "encode_queries"):
                setattr(self, name, getattr(FakeEncoder(), name))

    with SearchEngine.open(folder, Plain()) as engine:
        found = snippet(engine, "whale", "far", 40)
    assert found == Snippet("One word after another says nothing", (), False, True)


def test_an_unknown_document_and_a_length_below_one_are_errors(engine: SearchEngine) -> None:
    with pytest.raises(DataError, match="nowhere"):
        snippet(engine, "whale", "nowhere")
    with pytest.raises(UsageError, match="found 0"):
        snippet(engine, "whale", "far", 0)


def numbered(words: int, places: dict[int, str], stop: str = "") -> str:
    """Return a text of words that are all different but for some, with a stop behind each fifth."""
    row = [places.get(n, f"n{n:02}") + (stop if n % 5 == 4 else "") for n in range(words)]
    return " ".join(row)


SPLIT = {
    "sentences": numbered(60, {3: "whale", 41: "whale", 43: "ship", 56: "ship"}, "."),
    "no sentence": numbered(60, {11: "ship", 37: "storm", 38: "whale", 39: "ship"}),
    "one passage": numbered(9, {2: "storm"}, "."),
    "nothing": numbered(50, {}),
}


def reader() -> WordReader:
    return WordReader(16, vocabulary_size=100_000)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("split") / "my.index"
    documents = [Document(doc_id, text, "whale") for doc_id, text in SPLIT.items()]
    build_index(documents, reader(), folder, chunk=Chunk(12, 3))
    with SearchEngine.open(folder, reader()) as engine:
        yield engine


@pytest.mark.parametrize("query", ["whale ship", "storm n48 ship", "n02", "unheard of"])
@pytest.mark.parametrize("length", [20, 60, 200])
def test_of_a_split_document_the_passage_that_scores_is_marked_or_begun_with(
    split: SearchEngine, query: str, length: int
) -> None:
    result = split.search(query)
    ids = [hit.doc_id for hit in result.hits]
    assert any(hit.passage.number > 1 for hit in result.hits)
    for hit, found in zip(result.hits, snippets(split, result, ids, length), strict=True):
        place = SPLIT[hit.doc_id].index(found.text)
        products = {term.text: term.product for term in explain(split, query, hit.doc_id).terms}
        for match, word in zip(found.highlights, marked(found), strict=True):
            assert word.rstrip(".") in query.split()
            assert match.weight == products[f"term{reader().term(word)}"]
            assert hit.passage.start <= place + match.start
            assert place + match.end <= hit.passage.end
        if not found.highlights:
            assert place == hit.passage.start
        assert len(found.text) <= length
        assert snippet(split, query, hit.doc_id, length) == found


def test_what_stands_in_another_passage_does_not_draw_the_snippet(split: SearchEngine) -> None:
    hit = split.search("storm whale ship", dense_weight=0.0).hits[0]
    found = snippet(split, "storm whale ship", hit.doc_id, 40)
    assert (hit.doc_id, marked(found)) == ("no sentence", ["storm", "whale", "ship"])
    assert (found.before, found.after) == (True, True)


@settings(max_examples=examples(80), deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["ba", "be.", "bibo", "Ba-be", "…", "ka", "ke\n", "ki? ", "zzz", "é", "\u3000"]
        ),
        max_size=60,
    ).map(" ".join),
    st.sampled_from(["ba be bi", "bo ka", "zz e"]),
    st.integers(1, 60),
)
def test_any_passage_is_a_piece_of_the_text_with_the_best_terms(
    tiny: SearchEngine, text: str, query: str, length: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        document = Document("d", text, "ba")
        encoded = tiny.encoder.encode_documents([document.content])
        patch.setattr(tiny.view.documents, "get", lambda ordinals: [document])
        patch.setattr(tiny.view, "sparse_row", lambda ordinal: encoded.sparse.row(0))
        found = snippet(tiny, query, "d", length)
    assert found.text in text
    assert len(found.text) <= length
    ends = [0] + [end for match in found.highlights for end in (match.start, match.end)]
    assert ends == sorted(ends)
    assert ends[-1] <= len(found.text)
    asked = {"ba be bi": {"ba", "be", "bi"}, "bo ka": {"bo", "ka"}, "zz e": {"zz", "e"}}[query]
    for match, word in zip(found.highlights, marked(found), strict=True):
        assert match.weight > 0
        assert any(term in word.lower().replace("é", "e") for term in asked)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("tiny")
    TorchEncoder(tiny_model(expansion=0.0), tiny_tokenizer(), "tiny").save(folder / "model")
    encoder = Encoder.load(folder / "model")
    build_index([Document("d", "Boda, Bo-da and bo. " + "zzz " * 50)], encoder, folder / "index")
    with SearchEngine.open(folder / "index", encoder) as engine:
        yield engine


def test_the_pieces_of_a_word_are_one_highlight_and_words_of_their_own_are_not(
    tiny: SearchEngine,
) -> None:
    # "boda" is read as "bo" and "##da", "bo-da" as "bo", "-" and "da".
    found = snippet(tiny, "boda da", "d")
    assert marked(found) == ["Boda", "Bo", "da", "bo"]
    parts = {term.text: term.product for term in explain(tiny, "boda da", "d").terms}
    weights = [match.weight for match in found.highlights]
    assert weights == pytest.approx(
        [parts["bo"] + parts["##da"], parts["bo"], parts["da"], parts["bo"]]
    )


def test_torch_and_onnx_locate_the_same_terms_as_they_read(
    tiny: SearchEngine, tmp_path: Path
) -> None:
    texts = ["", "ba\ud800be", "Ünïcode bé 🐋 " * 40, "ba " * 400, "x" * 9000, DOCUMENTS[0].content]
    other = TorchEncoder(tiny_model(expansion=0.0), tiny_tokenizer(), "tiny")
    special = set(tiny_tokenizer().all_special_ids)
    for encoder in (tiny.encoder, other):
        read = encoder.tokenise_documents(texts)
        for ids, spans in zip(read, encoder.locate_terms(texts), strict=True):
            assert spans.terms.tolist() == [token for token in ids if token not in special]
            pieces = encoder.term_texts(spans.terms.tolist())
            lengths = (spans.ends - spans.starts).tolist()
            assert lengths == [len(piece.removeprefix("##")) for piece in pieces]
    # Locating leaves the tokenizer as it cuts texts for encoding.
    assert len(tiny.encoder.tokenise_documents(["ba " * 400])[0]) == 40


def test_looking_for_the_terms_asked_for_alone_marks_the_same(
    tmp_path: Path, tiny: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(3)
    words = ["ba", "Be", "bo", "boda", "ki", "e", "bé", "bo-da", "la\nly", "zzz"]
    # The encoder reads 40 tokens: of some documents all, of others less.
    texts = [" ".join(chance.choices(words, k=k)) for k in (3, 12, 30, 60, 90)]
    build_index(
        [Document(f"d{n}", text, "ba") for n, text in enumerate(texts)],
        tiny.encoder,
        tmp_path / "index",
    )
    locate, asked = tiny.encoder.locate_terms, []

    def locate_all(contents, wanted):  # type: ignore[no-untyped-def]
        asked.extend(wanted)
        return locate(contents)

    with SearchEngine.open(tmp_path / "index", tiny.encoder) as engine:
        ids = [f"d{n}" for n in range(len(texts))]
        found = [snippets(engine, query, ids, 60) for query in ("boda ki", "ly e")]
        monkeypatch.setattr(tiny.encoder, "locate_terms", locate_all)
        assert found == [snippets(engine, query, ids, 60) for query in ("boda ki", "ly e")]
    assert [terms is None for terms in asked] == [False, False, True, True, True] * 2


def test_commands_show_matches_in_bold_and_what_is_left_out() -> None:
    found = Snippet(
        "a big\nwhale swims", (Highlight(2, 5, 1.0), Highlight(6, 11, 5.1)), True, False
    )
    whale = click.style("whale", fg="yellow", bold=True)
    coloured = Display(width=None, has_colours=True)
    assert snippet_lines(found, coloured, "  ") == [f"  … a big {whale} swims"]
    assert snippet_lines(found, Display(width=10), "") == ["… a big", "whale", "swims"]
