"""What both encoders promise, and each alone: one suite runs over both."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from slow_encoder import slow_encode
from tiny_model import VOCABULARY, WORDS, tiny_model, tiny_tokenizer

from dupmae import encoder as encoder_module
from dupmae import torch_encoder
from dupmae.checkpoint import save_model
from dupmae.encoder import Encoder
from dupmae.errors import CheckpointError, UsageError
from dupmae.torch_encoder import TorchEncoder
from dupmae.types import CorpusStatistics, Encoded

TOLERANCE = 1e-5
TEXTS = [
    "ba",
    "be bade fifo",
    "",
    " ".join(WORDS[:90]),
    "ba be bi ba be bi",
    "12 34",
    "zuzo [SEP] [MASK] ga 99",
    "lulu mimi nono",
    "q w e r t y",
] + [" ".join(WORDS[i : i + 3 + i % 7]) for i in range(0, 80, 5)]


@pytest.fixture(params=[Encoder, TorchEncoder], ids=["onnx", "torch"])
def kind(request: pytest.FixtureRequest) -> type[Encoder | TorchEncoder]:
    return request.param


@pytest.fixture
def tiny_encoder(
    kind: type[Encoder | TorchEncoder], tmp_path: Path
) -> Callable[..., Encoder | TorchEncoder]:
    def make(**settings: object) -> Encoder | TorchEncoder:
        save_model(tiny_model(**settings), tiny_tokenizer(), tmp_path / "made", name="tiny")
        return kind.load(tmp_path / "made")

    return make


def bags(encoded: Encoded) -> list[dict[int, float]]:
    encoded.sparse.check()
    return [dict(zip(t.tolist(), w.tolist(), strict=True)) for t, w in encoded.sparse]


def assert_same(one: Encoded, other: Encoded, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(one.dense, other.dense, rtol=0, atol=tolerance)
    for bag, other_bag in zip(bags(one), bags(other), strict=True):
        assert bag == pytest.approx(other_bag, rel=0, abs=tolerance)


def near(expected: dict[int, float]) -> Any:
    """Allow for rounding, which the norm of few and light terms magnifies in a whole row."""
    largest = max(expected.values(), default=0.0)
    return pytest.approx(expected, rel=1e-4, abs=max(TOLERANCE, 2e-6 * largest))


def assert_parity(one: Encoded, other: Encoded) -> None:
    """Assert that two runtimes mean the same: equal terms, and values within rounding."""
    np.testing.assert_array_equal(one.sparse.indptr, other.sparse.indptr)
    np.testing.assert_array_equal(one.sparse.terms, other.sparse.terms)
    np.testing.assert_allclose(one.dense, other.dense, rtol=0, atol=1e-5)
    np.testing.assert_allclose(one.sparse.weights, other.sparse.weights, rtol=0, atol=1e-4)


SETTINGS = [
    {"expansion": 0.0},
    {"expansion": 0.3},
    {"expansion": 1.0},
    {"expansion": 0.3, "normalize_query_terms": True},
    {"expansion": 0.5, "k_expansion": 3, "normalize_query_terms": True, "expand_documents": False},
    {"expansion": 1.0, "k_expansion": 1},
    {"expansion": 1.0, "k_neighbours": 4},
    {"expansion": 0.5, "k_neighbours": 9, "k_expansion": 6, "normalize_query_terms": True},
    {"expansion": 0.0, "normalize_query_terms": True, "k_query": 2},
    {"expansion": 0.3, "normalize_query_terms": True, "query_norm": 1.25},
    {"expansion": 0.0, "normalize_query_terms": True, "query_norm": 1.0},
    {"activation": "log1p2_relu", "normalize": False, "k_document": 5},
    {"k_document": 1000, "k_query": 1000},
    {"expansion": 0.0, "frequency_k1": 0.9, "frequency_length": 8.0},
    {"expansion": 0.3, "frequency_k1": 2.0, "frequency_b": 1.0, "frequency_length": 3.0},
    {"expansion": 0.0, "cls_attention": True, "corpus_idf": 1.0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("as_query", [False, True], ids=["documents", "queries"])
def test_vectors_equal_a_slow_loop_over_single_texts(tiny_encoder, settings, as_query):
    encoder, model = tiny_encoder(**settings), tiny_model(**settings)
    encoded = (encoder.encode_queries if as_query else encoder.encode_documents)(TEXTS)
    for dense, bag, text in zip(encoded.dense, bags(encoded), TEXTS, strict=True):
        expected_dense, expected_bag = slow_encode(model, text, as_query=as_query)
        np.testing.assert_allclose(dense, expected_dense, rtol=0, atol=TOLERANCE)
        assert bag == near(expected_bag)


def corpus(documents: int = 5000, seed: int = 0) -> CorpusStatistics:
    chance = np.random.default_rng(seed)
    frequency = chance.integers(0, documents, len(VOCABULARY))
    return CorpusStatistics(documents, np.where(chance.random(len(VOCABULARY)) < 0.3, 0, frequency))


@pytest.mark.parametrize(
    "settings",
    [
        {"expansion": 0.0, "corpus_idf": 1.0},
        {"expansion": 0.3, "corpus_idf": 0.5, "normalize_query_terms": True},
        {"expansion": 0.3, "corpus_idf": 1.0, "normalize_query_terms": True, "k_expansion": 5},
        {"expansion": 0.3, "corpus_idf": 1.0, "normalize_query_terms": True, "query_norm": 1.5},
    ],
    ids=str,
)
def test_queries_for_a_corpus_equal_a_slow_loop_over_single_texts(tiny_encoder, settings):
    encoder, statistics = tiny_encoder(**settings), corpus()
    model = tiny_model(**settings)
    encoded = encoder.encode_queries(TEXTS, statistics)
    anywhere = encoder.encode_queries(TEXTS)
    np.testing.assert_array_equal(encoded.dense, anywhere.dense)
    for bag, text in zip(bags(encoded), TEXTS, strict=True):
        _, expected = slow_encode(model, text, as_query=True, corpus=statistics)
        assert bag == near(expected)
    changed = sum(a != b for a, b in zip(bags(encoded), bags(anywhere), strict=True))
    assert changed > len(TEXTS) / 2


def test_a_term_weighs_more_where_it_is_rarer(tiny_encoder):
    encoder = tiny_encoder(expansion=0.0, corpus_idf=1.0)
    (usual,) = bags(encoder.encode_queries(["fifo mimi"]))
    rare = min(usual)
    weights, others = [], []
    for frequency in (1000, 100, 1):
        statistics = CorpusStatistics(1000, np.full(len(VOCABULARY), 10))
        statistics.frequency[rare] = frequency
        (bag,) = bags(encoder.encode_queries(["fifo mimi"], statistics))
        weights.append(bag.pop(rare))
        others.append(bag)
    assert weights[0] < weights[1] < weights[2]
    assert others[0].keys() == usual.keys() - {rare}
    assert others[0] == others[1] == others[2]


def test_without_the_setting_and_expansion_no_corpus_changes_a_query(tiny_encoder):
    encoder = tiny_encoder(expansion=0.0)
    assert_same(encoder.encode_queries(TEXTS, corpus()), encoder.encode_queries(TEXTS), 0)


@pytest.mark.parametrize("expansion", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("budget", [1, 50, 100_000])
def test_vectors_do_not_depend_on_the_batch_or_its_order(
    tiny_encoder, monkeypatch, expansion, budget
):
    settings = {"expansion": expansion, "frequency_k1": 0.9, "cls_attention": True}
    encoder = tiny_encoder(**settings)
    usual = [encoder.encode_documents(TEXTS), encoder.encode_queries(TEXTS)]
    for name in ("BATCH_TOKENS", "QUERY_BATCH_TOKENS"):
        monkeypatch.setattr(encoder_module, name, budget)
    monkeypatch.setattr(torch_encoder, "CPU_BATCH_TOKENS", budget)
    encoder = tiny_encoder(**settings)
    # A query's weights are above 20 here, so they are rounded more coarsely.
    tested = {encoder.encode_documents: TOLERANCE, encoder.encode_queries: 5 * TOLERANCE}
    for (encode, tolerance), before in zip(tested.items(), usual, strict=True):
        assert_same(before, encode(TEXTS), tolerance)
        backwards = encode(TEXTS[::-1])
        rows = type(before.sparse).from_rows([*backwards.sparse][::-1])
        assert_same(before, Encoded(backwards.dense[::-1].copy(), rows), tolerance)


def test_documents_may_be_tokenised_first_and_encoded_later(tiny_encoder):
    encoder = tiny_encoder()
    halves = encoder.encode_tokenised(encoder.tokenise_documents(TEXTS))
    assert_same(halves, encoder.encode_documents(TEXTS), 0)


def test_without_expansion_a_text_has_only_its_own_terms(tiny_encoder):
    encoder = tiny_encoder(expansion=0.0)
    (bag,) = bags(encoder.encode_documents(["ba be bade"]))
    assert bag
    assert set(encoder.term_texts(list(bag))) <= {"ba", "be", "##de"}


def test_queries_alone_may_be_expanded_by_the_heaviest_terms_of_the_corpus(tiny_encoder):
    usual = {"expansion": 1.0, "k_query": 1000, "k_document": 1000}
    encoder = tiny_encoder(**usual, k_expansion=4, expand_documents=False)
    (own,) = bags(tiny_encoder(**usual | {"expansion": 0.0}).encode_queries(["ba be bade"]))
    everywhere = CorpusStatistics(10, np.ones(len(VOCABULARY), np.int64))
    (document,) = bags(encoder.encode_documents(["ba be bade"]))
    (query,) = bags(encoder.encode_queries(["ba be bade"], everywhere))
    assert set(encoder.term_texts(list(document))) <= {"ba", "be", "##de"}
    added = query.keys() - own.keys()
    assert own.keys() <= query.keys()
    assert len(added) == 4
    somewhere = CorpusStatistics(10, np.ones(len(VOCABULARY), np.int64))
    lost = max(added, key=query.__getitem__)
    somewhere.frequency[lost] = 0
    (changed,) = bags(encoder.encode_queries(["ba be bade"], somewhere))
    assert lost not in changed
    assert len(changed) == len(query)
    assert added - {lost} < changed.keys()


@pytest.mark.parametrize("expansion", [0.0, 1.0])
def test_special_ids_are_never_terms(tiny_encoder, expansion):
    encoder = tiny_encoder(expansion=expansion, k_document=1000)
    specials = set(tiny_tokenizer().all_special_ids)
    for bag in bags(encoder.encode_documents(TEXTS)):
        assert not specials & bag.keys()


@pytest.mark.parametrize("text", ["", "   ", "12 34", "[MASK] [SEP]", "\ud800", "🦊"])
@pytest.mark.parametrize("expansion", [0.0, 1.0])
def test_a_text_without_ordinary_tokens_has_a_dense_vector_and_no_terms(
    tiny_encoder, text, expansion
):
    encoder = tiny_encoder(expansion=expansion)
    for encoded in (encoder.encode_documents([text]), encoder.encode_queries([text])):
        assert np.linalg.norm(encoded.dense[0]) == pytest.approx(1, abs=1e-6)
        assert bags(encoded) == [{}]


def test_lone_surrogates_leave_the_rest_of_the_text_readable(tiny_encoder):
    encoder = tiny_encoder(expansion=0.0, k_document=3)
    assert bags(encoder.encode_documents(["ba \ud800 be"]))[0].keys() == (
        bags(encoder.encode_documents(["ba ? be"]))[0].keys()
    )


def test_a_long_text_is_read_up_to_the_maximum_length(tiny_encoder):
    encoder = tiny_encoder(max_document_length=12, max_query_length=7)
    long, text = " ".join(WORDS * 20), " ".join(WORDS[:10])
    assert_same(encoder.encode_documents([long]), encoder.encode_documents([text]))
    assert_same(encoder.encode_queries([long]), encoder.encode_queries([" ".join(WORDS[:5])]))


def test_it_is_said_which_texts_go_on_behind_what_is_read(tiny_encoder):
    encoder = tiny_encoder(max_document_length=12)
    assert encoder.max_document_length == 12
    blanks = " " * (12 * 64)
    texts = [
        " ".join(WORDS[:10]),
        " ".join(WORDS[:11]),
        "",
        f"ba{blanks}",
        f"ba{blanks}be",  # cut by its characters, long before twelve tokens
        *[" ".join(WORDS)] * 100,  # more than are tokenised at once
    ]
    ids, cut = encoder.read_documents(texts)
    assert ids == encoder.tokenise_documents(texts)
    assert cut == [False, True, False, False, True, *[True] * 100]


def test_tokens_are_found_in_all_of_a_text_however_long(tiny_encoder):
    encoder = tiny_encoder(max_document_length=12)
    long = "ba be " * 20_000  # more than is tokenised at once
    texts = ["ba  be\ud800", "", long]
    some, none, many = encoder.token_spans(texts)
    assert some[:2].tolist() == [[0, 2], [4, 6]]
    assert none.shape == (0, 2)
    assert [long[a:b] for a, b in many.tolist()] == ["ba", "be"] * 20_000
    assert len(encoder.tokenise_documents(texts)[2]) == 12  # tokenising anew cuts anew


def test_characters_beyond_any_reach_are_not_tokenised(tiny_encoder):
    encoder = tiny_encoder(max_document_length=12)
    text = "ba " * 1_000_000
    assert_same(encoder.encode_documents([text]), encoder.encode_documents(["ba " * 10]))


def test_no_texts_give_no_vectors(tiny_encoder):
    encoded = tiny_encoder().encode_documents([])
    assert encoded.dense.shape == (0, 16)
    assert len(encoded.sparse) == 0


def test_all_that_comes_out_is_numpy(tiny_encoder):
    encoded = tiny_encoder().encode_queries(["ba be"])
    arrays = (encoded.dense, encoded.sparse.indptr, encoded.sparse.terms, encoded.sparse.weights)
    assert all(type(array) is np.ndarray for array in arrays)


@pytest.mark.parametrize("expansion", [0.0, 1.0])
def test_rows_of_the_model_beyond_the_tokenizer_are_no_terms(kind, tmp_path, expansion):
    model = tiny_model(k_document=1000, expansion=expansion)
    model.lm.resize_token_embeddings(256)
    model.query_term_weight = torch.nn.Parameter(torch.ones(256))
    save_model(model, tiny_tokenizer(), tmp_path / "padded", name="padded")
    encoder = kind.load(tmp_path / "padded")
    assert encoder.vocabulary_size == len(VOCABULARY)
    assert encoder.encode_documents(TEXTS).sparse.terms.max() < len(VOCABULARY)


def test_threads_may_encode_queries_and_documents_at_once(tiny_encoder):
    encoder = tiny_encoder()
    usual = encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                assert_same(encoder.encode_queries(TEXTS), usual[0])
                assert_same(encoder.encode_documents(TEXTS), usual[1])
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "tiny", name="tiny")
    return tmp_path / "tiny"


PARITY = [
    {},
    {"expansion": 0.0, "normalize": False, "k_document": 3, "activation": "log1p2_relu"},
    {"cls_attention": True, "corpus_idf": 0.7, "frequency_k1": 0.9, "expansion": 0.0},
    {"cls_attention": True, "corpus_idf": 0.7, "normalize_query_terms": True, "expansion": 0.3},
    {"normalize_query_terms": True, "query_norm": 1.25, "expansion": 0.3},
]


@pytest.mark.parametrize("settings", PARITY, ids=str)
def test_a_saved_model_loads_with_its_name_settings_seal_and_vectors(tiny_encoder, settings):
    encoder = TorchEncoder(tiny_model(**settings), tiny_tokenizer(), "tiny")
    loaded = tiny_encoder(**settings)
    assert (loaded.name, loaded.heads, loaded.seal) == ("tiny", encoder.heads, encoder.seal)
    assert (loaded.dense_dim, loaded.vocabulary_size) == (16, len(VOCABULARY))
    assert_parity(encoder.encode_documents(TEXTS), loaded.encode_documents(TEXTS))
    for statistics in (None, corpus()):
        expected = encoder.encode_queries(TEXTS, statistics)
        assert_parity(expected, loaded.encode_queries(TEXTS, statistics))


def test_corpus_idf_can_be_turned_off_at_load_and_leaves_documents_alone(kind, tmp_path):
    model = tiny_model(corpus_idf=0.7, expansion=0.0)
    save_model(model, tiny_tokenizer(), tmp_path / "idf", name="tiny")
    encoder = kind.load(tmp_path / "idf")
    without = kind.load(tmp_path / "idf", settings={"corpus_idf": 0.0})
    assert_same(without.encode_documents(TEXTS), encoder.encode_documents(TEXTS), 0)
    assert_same(without.encode_queries(TEXTS, corpus()), encoder.encode_queries(TEXTS), 1e-6)


def test_the_seal_is_that_of_a_second_load_even_after_use(kind, folder):
    used = kind.load(folder)
    used.encode_queries(TEXTS)
    assert used.seal == kind.load(folder).seal


def test_settings_given_at_load_replace_the_folders(kind, folder):
    encoder = kind.load(folder, settings={"k_document": 2, "expansion": 0.0})
    assert asdict(encoder.heads) == asdict(tiny_model().heads) | {
        "k_document": 2,
        "expansion": 0.0,
    }
    assert max(map(len, bags(encoder.encode_documents(TEXTS)))) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k_documents": 3}, "did you mean k_document"),
        ({"k_query": 0}, "k_query must be at least 1"),
        ({"dense_dim": 8}, "dense_dim is 8, but the model was made with 16"),
        ({"max_query_length": 65}, "65 tokens, but the model has 64 positions"),
        ({"activation": "none"}, "weights below 0"),
        ({"cls_attention": True}, "cls_attention is True, but the model was made with False"),
        ({"corpus_idf": 0.5}, "corpus_idf is 0.5, but the model knows no idf"),
    ],
)
def test_a_setting_that_cannot_be_served_is_refused(kind, folder, settings, message):
    with pytest.raises(UsageError, match=message):
        kind.load(folder, settings=settings)


def test_the_number_of_threads_must_be_positive(kind, folder):
    with pytest.raises(UsageError, match="threads must be at least 1"):
        kind.load(folder, threads=0)


def test_a_missing_folder_is_a_checkpoint_error(kind, tmp_path):
    with pytest.raises(CheckpointError, match="no model folder"):
        kind.load(tmp_path / "nothing")


def test_term_texts_are_the_vocabularys_entries(tiny_encoder):
    assert tiny_encoder().term_texts(np.array([5, 6, 2], dtype=np.int32)) == ["ba", "be", "[CLS]"]
    assert json.dumps(tiny_encoder().term_texts([5])) == '["ba"]'
