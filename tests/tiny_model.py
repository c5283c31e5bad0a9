"""A two-layer model over a vocabulary of 200 words, with weights from a fixed seed."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertTokenizerFast

from dupmae.heads import HeadSettings
from dupmae.model import DupMAE

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"{first}{second}" for first in "bdfghklmnprstvz" for second in "aeiouy"]
PIECES = [f"##{word}" for word in WORDS]
VOCABULARY = (SPECIALS + WORDS + PIECES + list("abcdefghijklmnopqrstuvwxyz"))[:200]


def tiny_tokenizer() -> BertTokenizerFast:
    """Return a BERT tokenizer whose words are "ba", "be", … and their continuations."""
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return BertTokenizerFast(tokenizer_object=backend)


def tiny_model(**settings: object) -> DupMAE:
    """Return a model in evaluation mode; every head has weights that matter.

    Args:
        settings: fields of `HeadSettings` other than the defaults for this size.
    """
    small: dict[str, object] = {
        "dense_dim": 16,
        "max_document_length": 40,
        "max_query_length": 24,
        "k_document": 30,
        "k_query": 20,
    }
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,  # large, so that logits differ from term to term
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = DupMAE.from_config(config, HeadSettings(**(small | settings)))  # type: ignore[arg-type]
        for name, parameter in model.named_parameters():
            if name.startswith("query_") or name.endswith("bias"):
                torch.nn.init.uniform_(parameter, -0.5, 1.0)
            elif name.startswith("cls_attention."):
                torch.nn.init.normal_(parameter, std=0.05)
            elif name == "training_idf":
                torch.nn.init.uniform_(parameter, 0.1, 8.0)
            elif name == "term_neighbours":
                parameter.data.random_(len(VOCABULARY))
    return model.eval()
