from __future__ import annotations

import pytest
import torch
from tiny_model import tiny_model
from torch import Tensor

from dupmae.decoder import EnhancedDecoder, Variant

IDS = torch.tensor([[2, 10, 11, 12, 13, 14, 3], [2, 20, 21, 3, 0, 0, 0]])
LENGTHS = (7, 4)
VARIANTS: tuple[Variant, Variant] = ("code", "paper")


def visibility() -> Tensor:
    """Return a hand-made (2, 7, 7) visibility: every second token, never the own, no padding."""
    visible = torch.zeros(2, 7, 7, dtype=torch.bool)
    for text, length in enumerate(LENGTHS):
        for row in range(length):
            for column in range(length):
                visible[text, row, column] = column == 0 or (row + column) % 2 == 1
        visible[text, range(length), range(length)] = False
    return visible


def decoder(variant: Variant = "code") -> tuple[EnhancedDecoder, torch.nn.Module, Tensor]:
    """Return a decoder in fp64 with the tiny model's embeddings and a batch's [CLS] states."""
    body = tiny_model().lm.bert.double()
    torch.manual_seed(1)
    made = EnhancedDecoder(body.config, variant).double().eval()
    return made, body.embeddings, torch.randn(2, 32, dtype=torch.float64)


@pytest.mark.parametrize("variant", VARIANTS)
def test_decoder_equals_a_slow_loop_over_texts_rows_and_heads(variant: Variant) -> None:
    made, embed, cls = decoder(variant)
    got = made(cls, IDS, visibility(), embed)
    for text, length in enumerate(LENGTHS):
        for row in range(length):
            expected = slow_row(made, embed, cls[text], IDS[text, :length], row, variant)
            assert torch.allclose(got[text, row], expected, rtol=0, atol=1e-10)


def slow_row(made, embed, h, ids, row, variant) -> Tensor:
    """Equations 2 to 5 for one row of one text."""
    layer, table = made.layer, embed.position_embeddings.weight
    word, kind = embed.word_embeddings.weight, embed.token_type_embeddings.weight[0]
    context = [h] + [embed.LayerNorm(word[ids[i]] + table[i] + kind) for i in range(1, len(ids))]
    query = h + table[row]
    if variant == "code":
        query = embed.LayerNorm(query + kind)
    parts = layer.attention.self
    q, size = parts.query(query), 32 // 4
    seen = [i for i in range(len(ids)) if i != row and (i == 0 or (row + i) % 2 == 1)] or [0]
    mixed = []
    for head in range(4):
        span = slice(head * size, (head + 1) * size)
        scores = torch.stack([q[span] @ parts.key(context[i])[span] for i in seen]) / size**0.5
        weights = scores.softmax(0)
        mixed.append(
            sum(w * parts.value(context[i])[span] for w, i in zip(weights, seen, strict=True))
        )
    attended = layer.attention.output.dense(torch.cat(mixed)) + query
    attended = layer.attention.output.LayerNorm(attended)
    inner = torch.nn.functional.gelu(layer.intermediate.dense(attended))
    return layer.output.LayerNorm(layer.output.dense(inner) + attended)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_row_does_not_depend_on_the_token_it_must_rebuild(variant: Variant) -> None:
    made, embed, cls = decoder(variant)
    before = made(cls, IDS, visibility(), embed)
    changed = IDS.clone()
    changed[0, 2] = 30
    after = made(cls, changed, visibility(), embed)
    assert torch.equal(before[0, 2], after[0, 2])
    assert not torch.allclose(before[0, 3], after[0, 3])
    assert torch.equal(before[1], after[1])


def test_rows_that_see_nothing_give_finite_states_and_gradients() -> None:
    made, embed, cls = decoder()
    cls.requires_grad_()
    states = made(cls, IDS, torch.zeros(2, 7, 7, dtype=torch.bool), embed)
    states.sum().backward()
    assert torch.isfinite(states).all()
    assert torch.isfinite(cls.grad).all()


def test_visibility_is_left_as_it_was_given() -> None:
    made, embed, cls = decoder()
    hidden = torch.zeros(2, 7, 7, dtype=torch.bool)
    made(cls, IDS, hidden, embed)
    assert not hidden.any()


def test_new_decoders_have_bert_s_initial_weights() -> None:
    made, _, _ = decoder()
    linear = [m for m in made.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linear) == 6
    for module in linear:
        assert module.weight.std().item() == pytest.approx(0.3, rel=0.1)  # tiny_model's range
        assert not module.bias.any()
