from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_model import VOCABULARY, tiny_model, tiny_tokenizer
from torch import Tensor
from transformers import BertConfig

from dupmae.decoder import Variant
from dupmae.errors import UsageError
from dupmae.heads import HeadSettings
from dupmae.masking import (
    MaskedBatch,
    MaskingSettings,
    WordPieces,
    draws_per_text,
    mask_batch,
    random_bits,
)
from dupmae.model import DupMAE
from dupmae.objective import ObjectiveSettings, PretrainingObjective

VARIANTS: tuple[Variant, Variant] = ("code", "paper")


def make_batch(lengths: tuple[int, ...] = (14, 9, 3), seed: int = 3) -> MaskedBatch:
    pieces = WordPieces.from_tokenizer(tiny_tokenizer())
    tokens = np.random.default_rng(seed).integers(5, 60, size=(len(lengths), max(lengths)))
    width = max(lengths) + 2
    bits = random_bits(seed, 0, len(lengths), draws_per_text(width, decoder=True))
    counts = np.array(lengths)
    return mask_batch(tokens, counts, pieces, MaskingSettings(), width=width, bits_BR=bits)


def objective(*, cls_attention: bool = False, **settings: Any) -> PretrainingObjective:
    torch.manual_seed(5)
    model = tiny_model(cls_attention=cls_attention).double()
    return PretrainingObjective(model, ObjectiveSettings(**settings)).double().eval()


def slow_losses(made: PretrainingObjective, batch: MaskedBatch, variant: Variant) -> list[Tensor]:
    """Return the three losses, text by text and token by token."""
    model = made.model
    head, table = model.lm.cls.predictions, model.word_embeddings.weight
    states = model.hidden_states(batch.input_ids_BL, batch.attention_mask_BL)
    assert made.decoder is not None
    assert batch.visible_BLL is not None
    embeddings = model.lm.bert.embeddings
    cls = model.cls_state(states, batch.attention_mask_BL)
    decoded = made.decoder(cls, batch.original_ids_BL, batch.visible_BLL, embeddings)

    def logits(state: Tensor) -> Tensor:
        return head.transform(state) @ table.T + head.bias

    mlm: list[list[Tensor]] = []
    rebuilt: list[list[Tensor]] = []
    bags: list[Tensor] = []
    for b in range(len(states)):
        ids = batch.original_ids_BL[b].tolist()
        last = ids.index(3)  # [SEP]
        guessed = [i for i in range(1, last) if batch.guessed_BL[b, i]]
        mlm.append([-logits(states[b, i]).log_softmax(0)[ids[i]] for i in guessed])
        rebuilt.append([-logits(decoded[b, i]).log_softmax(0)[ids[i]] for i in range(1, last)])
        if variant == "code":
            votes = [logits(states[b, i]) for i in range(1, last + 1)]
        else:
            own = made.term_projection
            assert own is not None
            voters = [i for i in range(1, last) if i not in guessed]
            votes = [own.weight @ states[b, i] for i in voters]
        mu = torch.stack(votes).max(dim=0).values
        bag = -sum(mu.log_softmax(0)[t] for t in sorted(set(ids[1:last])))
        bags.append(bag / (last - 1) if variant == "code" else bag)
    if variant == "code":
        flat = [[loss for text in losses for loss in text] for losses in (mlm, rebuilt)]
        sums = [torch.stack(losses).mean() for losses in flat]
    else:
        sums = [
            torch.stack([torch.stack(text).sum() for text in losses]).mean()
            for losses in (mlm, rebuilt)
        ]
    return [*sums, torch.stack(bags).mean()]


@pytest.mark.parametrize("cls_attention", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_equal_a_slow_loop_written_from_the_paper(
    variant: Variant, cls_attention: bool
) -> None:
    made, batch = objective(variant=variant, cls_attention=cls_attention), make_batch()
    losses = made(batch)
    mlm, cls, bag = slow_losses(made, batch, variant)
    weight = {"code": 0.1, "paper": 1.0}[variant]
    expected = {"loss": mlm + cls + weight * bag, "mlm": mlm, "cls": cls, "bag": bag}
    assert list(losses) == list(expected)
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_that_pretraining_trains_gets_a_gradient(variant: Variant) -> None:
    made = objective(variant=variant, cls_attention=True)
    made(make_batch())["loss"].backward()
    untouched = {name for name, p in made.named_parameters() if p.grad is None}
    assert untouched == {
        "model.cls_projection.weight",
        "model.query_term_weight",
        "model.query_log_gain.weight",
        "model.query_log_gain.bias",
    }


def test_retromae_is_dupmae_without_the_bag_of_words() -> None:
    batch = make_batch()
    whole, retromae = objective()(batch), objective(bow_weight=0.0)(batch)
    assert list(retromae) == ["loss", "mlm", "cls"]
    torch.testing.assert_close(retromae["mlm"], whole["mlm"])
    torch.testing.assert_close(retromae["loss"], whole["mlm"] + whole["cls"])


def test_without_a_decoder_only_ordinary_tokens_are_trained() -> None:
    batch = make_batch()
    whole, ordinary = objective(), objective(decoder="none")
    assert ordinary.decoder is None
    losses = ordinary(batch)
    assert list(losses) == ["loss", "mlm", "bag"]
    torch.testing.assert_close(losses["bag"], whole(batch)["bag"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_drop_your_decoder_predicts_the_bag_of_words_from_cls_alone(variant: Variant) -> None:
    made, batch = objective(decoder="bow", variant=variant), make_batch()
    cls = made.model.hidden_states(batch.input_ids_BL, batch.attention_mask_BL)[:, 0]
    head = made.model.lm.cls.predictions
    scores = head.decoder(head.transform(cls)).log_softmax(dim=-1)
    expected = 0.0
    for b, ids in enumerate(batch.original_ids_BL.tolist()):
        text = ids[1 : ids.index(3)]
        scale = len(text) if variant == "code" else 1
        expected -= scores[b, list(set(text))].sum().item() / scale / len(scores)
    assert made(batch)["cls"].item() == pytest.approx(expected, rel=1e-10)
    assert made.decoder is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_vocabulary_sample_that_holds_every_id_changes_nothing(variant: Variant) -> None:
    batch = make_batch()
    full = objective(variant=variant)(batch)
    sampled = objective(variant=variant, vocabulary_sample=100 * len(VOCABULARY))
    for name, value in sampled(batch, torch.Generator().manual_seed(0)).items():
        torch.testing.assert_close(value, full[name])


def test_a_small_vocabulary_sample_lowers_the_softmax_s_competition() -> None:
    batch = make_batch()
    full, sampled = objective()(batch), objective(vocabulary_sample=1)(batch)
    for name in ("mlm", "cls", "bag"):
        assert sampled[name] < full[name]


def test_a_batch_in_which_no_word_fits_the_budget_has_finite_losses() -> None:
    batch = make_batch((1, 1))
    batch.guessed_BL.zero_()
    for variant in VARIANTS:
        losses = objective(variant=variant)(batch)
        assert losses["mlm"].item() == 0
        assert all(torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_do_not_depend_on_padding(variant: Variant) -> None:
    made, batch = objective(variant=variant, vocabulary_sample=0), make_batch((6, 6))
    wide = make_batch((6, 6, 20))
    padding = wide.original_ids_BL.shape[1] - batch.original_ids_BL.shape[1]

    def pad(tensor: Tensor, value: int = 0) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, padding), value=value)

    assert batch.visible_BLL is not None
    padded = MaskedBatch(
        pad(batch.input_ids_BL),
        pad(batch.original_ids_BL),
        pad(batch.attention_mask_BL),
        pad(batch.guessed_BL),
        pad(batch.ordinary_BL),
        torch.nn.functional.pad(batch.visible_BLL, (0, padding, 0, padding)),
    )
    for name, value in made(batch).items():
        torch.testing.assert_close(made(padded)[name], value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "both"}, "objective.variant must be one of code, paper, found 'both'"),
        ({"decoder": "large"}, "objective.decoder must be one of enhanced, bow, none"),
        ({"bow_weight": -1.0}, "objective.bow_weight must not be negative"),
        ({"vocabulary_sample": -1}, "objective.vocabulary_sample must not be negative"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ObjectiveSettings(**settings)


# The numbers of the authors' own code. Their names and ours: lm.* is model.lm.*, and c_head.*
# is decoder.layer.*.


def golden(folder: Path) -> tuple[PretrainingObjective, MaskedBatch, dict[str, Any]]:
    tensors = load_file(folder / "dupmae_golden_a.safetensors")
    facts = json.loads((folder / "dupmae_golden_a.json").read_text())
    model = DupMAE.from_config(BertConfig(**facts["config"]), HeadSettings())
    made = PretrainingObjective(model, ObjectiveSettings(bow_weight=facts["bow_loss_weight"]))
    weights = {
        ours(name.removeprefix("weights.")): tensor
        for name, tensor in tensors.items()
        if name.startswith("weights.")
    }
    missing, unexpected = made.load_state_dict(weights, strict=False)
    assert not unexpected
    retrieval = ("model.query", "model.cls_projection", "model.lm.cls.predictions.decoder")
    assert all(name.startswith(retrieval) for name in missing)
    batch = MaskedBatch(
        tensors["batch.encoder_input_ids"],
        tensors["batch.decoder_input_ids"],
        tensors["batch.encoder_attention_mask"],
        tensors["batch.encoder_labels"] != -100,
        tensors["batch.decoder_labels"] != -100,
        tensors["batch.decoder_attention_mask"].bool(),
    )
    return made.eval(), batch, {**facts, "tensors": tensors}


def ours(name: str) -> str:
    return f"model.{name}" if name.startswith("lm.") else name.replace("c_head", "decoder.layer")


def test_losses_outputs_and_gradients_are_those_of_the_authors_code(shared_dir: Path) -> None:
    made, batch, facts = golden(shared_dir / "golden")
    losses = made(batch)
    named = {"mlm": "encoder_mlm", "cls": "decoder_mlm", "bag": "bow", "loss": "total"}
    for name, theirs in named.items():
        assert losses[name].item() == pytest.approx(facts["losses"][theirs], rel=1e-5)

    states = made.model.hidden_states(batch.input_ids_BL, batch.attention_mask_BL)
    expected = facts["tensors"]
    torch.testing.assert_close(states[:, 0], expected["expected.cls"], rtol=1e-5, atol=1e-6)
    voting = batch.attention_mask_BL.bool()
    voting[:, 0] = False
    pooled = made.model.max_pool(states, voting)
    # A logit near 0 is rounded as those that it is the sum of are, and by each processor otherwise.
    torch.testing.assert_close(pooled, expected["expected.ot_embedding"], rtol=1e-5, atol=3e-6)

    losses["loss"].backward()
    parameters = dict(made.named_parameters())
    for name, norm in facts["grad_norms"].items():
        got = parameters[ours(name)].grad.norm().item()
        # A key's bias has no gradient but rounding: softmax does not feel it.
        assert got == pytest.approx(norm, rel=1e-4, abs=1e-6), name


def test_the_golden_batch_s_bags_and_labels_are_what_this_code_derives(shared_dir: Path) -> None:
    _, batch, facts = golden(shared_dir / "golden")
    tensors = facts["tensors"]
    lengths = batch.attention_mask_BL.sum(dim=1).numpy()
    tokens = tensors["batch.decoder_input_ids"].numpy()[:, 1:]
    pieces = WordPieces(1, 2, 0, 3, np.zeros(211, dtype=bool))
    bits = random_bits(0, 0, 3, draws_per_text(12, decoder=True))
    derived = mask_batch(tokens, lengths - 2, pieces, MaskingSettings(), width=12, bits_BR=bits)
    assert torch.equal(derived.original_ids_BL, tensors["batch.decoder_input_ids"])
    assert torch.equal(derived.attention_mask_BL, tensors["batch.encoder_attention_mask"])
    assert torch.equal(derived.ordinary_BL, batch.ordinary_BL)
    weights = torch.zeros(3, 211)
    for row, ids in enumerate(tensors["batch.decoder_labels"].tolist()):
        text = [token for token in ids if token != -100]
        weights[row, text] = 1 / len(text)
    torch.testing.assert_close(weights, tensors["batch.bag_word_weight"])
