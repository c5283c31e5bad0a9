from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_model import tiny_model, tiny_tokenizer
from tokenizers import normalizers

from dupmae.heads import HeadSettings
from dupmae.state import model_seal

SEAL = model_seal(tiny_model(), tiny_tokenizer())


def test_the_seal_is_a_sha256_of_the_same_model_made_twice():
    assert len(SEAL) == 64
    assert model_seal(tiny_model(), tiny_tokenizer()) == SEAL


@pytest.mark.parametrize("name", [name for name, _ in tiny_model().named_parameters()])
def test_any_weight_changes_the_seal(name):
    model = tiny_model()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[-1] += 1e-3
    assert model_seal(model, tiny_tokenizer()) != SEAL


CHANGED = {
    "normalize": False,
    "activation": "log1p2_relu",
    "cls_attention": True,
    "expansion": 0.5,
    "expand_documents": False,
    "k_expansion": 21,
    "k_neighbours": 3,
    "frequency_k1": 0.9,
    "frequency_b": 0.5,
    "frequency_length": 99.0,
    "corpus_idf": 0.5,
    "normalize_query_terms": True,
    "query_norm": 1.5,
    "k_document": 31,
    "k_query": 21,
    "max_document_length": 41,
    "max_query_length": 25,
}


@pytest.mark.parametrize("setting", CHANGED)
def test_a_setting_that_decides_vectors_changes_the_seal(setting):
    model = tiny_model()
    model.heads = replace(model.heads, **{setting: CHANGED[setting]})
    assert model_seal(model, tiny_tokenizer()) != SEAL


OF_THE_ENGINE = {"dense_weight": 0.25, "sparse_weight": 0.25, "feedback": 0.25, "borrowed_terms": 9}


def test_every_setting_either_decides_vectors_or_is_of_the_engine():
    settings = set(HeadSettings.__dataclass_fields__)
    assert settings == {*CHANGED, "dense_dim", *OF_THE_ENGINE}


@pytest.mark.parametrize("setting", OF_THE_ENGINE)
def test_settings_of_the_engine_leave_the_seal_alone(setting):
    model = tiny_model(**{setting: OF_THE_ENGINE[setting]})
    assert model_seal(model, tiny_tokenizer()) == SEAL


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_attention_heads", 2), ("layer_norm_eps", 1e-5), ("hidden_act", "relu")],
)
def test_an_architecture_of_equal_shapes_changes_the_seal(key, value):
    model = tiny_model()
    setattr(model.lm.config, key, value)
    assert model_seal(model, tiny_tokenizer()) != SEAL


def test_another_tokenizer_changes_the_seal():
    cased, larger = tiny_tokenizer(), tiny_tokenizer()
    cased.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    larger.add_tokens(["zuvy"])
    assert len({SEAL, *(model_seal(tiny_model(), t) for t in (cased, larger))}) == 3


def test_use_of_the_tokenizer_leaves_the_seal_alone():
    tokenizer = tiny_tokenizer()
    tokenizer(["ba be bi", "ba"], truncation=True, max_length=3, padding=True)
    assert model_seal(tiny_model(), tokenizer) == SEAL


def test_the_seal_of_a_type_is_that_of_weights_rounded_to_it():
    rounded = tiny_model()
    rounded.half().float()
    half = model_seal(tiny_model(), tiny_tokenizer(), dtype=torch.float16)
    assert half == model_seal(rounded, tiny_tokenizer())
    assert half != SEAL
