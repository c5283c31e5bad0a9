"""The two stages of an adaptation: their settings, and the training runs that these ask for.

Left out: the adaptation itself (`adapt.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dupmae.batch import DataSettings
from dupmae.checkpoint import LoadedModel
from dupmae.errors import UsageError
from dupmae.finetune import FinetuneConfig
from dupmae.finetune import StartSettings as FinetuneStart
from dupmae.objective import ObjectiveSettings
from dupmae.packing import CorpusSettings
from dupmae.pretrain import PretrainConfig
from dupmae.pretrain import StartSettings as PretrainStart
from dupmae.retrieval_loss import LossSettings
from dupmae.trainer import TrainerSettings


@dataclass(frozen=True)
class PretrainStage:
    """Stage 1: DupMAE pre-training of the upper layers."""

    passes: float = 1.0
    """Steps are so many times the documents ÷ batch_size; 0 leaves the stage out."""
    max_steps: int = 120
    """Steps at most; of 32 sequences, 8 minutes where 8 sequences take a second."""
    batch_size: int = 32
    """Sequences a step."""
    learning_rate: float = 2e-5
    """Peak rate."""
    layers: int = 1
    """Uppermost layers that are trained."""
    max_length: int = 128
    """Tokens of a sequence, or as many as the model reads if these are fewer."""
    vocabulary_sample: int = 4000
    """Random ids in the softmax besides the batch's own; 0: the whole vocabulary, slower."""

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise UsageError(f"pretrain.layers must be at least 1, found {self.layers}")


@dataclass(frozen=True)
class FinetuneStage:
    """Stage 2: the heads, on a frozen body."""

    passes: float = 3.0
    """Steps are so many times the rows ÷ batch_size; 0 leaves the stage out."""
    max_steps: int = 400
    """Steps at most; of 32 rows, 16 minutes where 13 rows take a second."""
    batch_size: int = 32
    """Rows a step."""
    learning_rate: float = 1e-4
    """Peak rate."""
    span_queries: float = 0.5
    """Share of drawn rows whose query is a new random span of the text."""
    block: int = 8
    """Like rows that are drawn together, as each other's hard negatives."""
    query_length: int = 64
    """Tokens read of a query, or as many as the model reads if these are fewer."""
    document_length: int = 192
    """The same of a document."""
    temperature: float = 0.05
    """Scores are divided by it in every softmax."""
    contrastive: float = 0.5
    """Weight of telling the own text from the batch's others by the sum."""
    contrastive_parts: float = 0.1
    """The same by each part alone."""
    self_distillation: float = 0.1
    """Weight of each part's KL to the sum."""
    teacher_sum: float = 1.0
    """Weight of the KL to the body's scores and BM25's. This and `alignment` are for models whose
    [CLS] attends to all states; the mean of states says nothing of another's dense vectors."""
    alignment: float = 2.0
    """Weight of 1 − cosine with the mean of the body's states."""
    lexical_scale: float = 0.2
    """BM25's share in the teachers' scores."""
    late_scale: float = 0.3
    """Late interaction's share in them."""


@dataclass(frozen=True)
class AdaptSettings:
    """All settings of an adaptation; the caps are meant for half an hour of two cores."""

    pretrain: PretrainStage = field(default_factory=PretrainStage)
    finetune: FinetuneStage = field(default_factory=FinetuneStage)
    held_out: int = 200
    """Documents kept out of training, a tenth of all at most, for the probes before and after."""
    name: str = ""
    """The adapted model's name; if empty, the start model's with "-adapted" added."""
    seed: int = 0
    """Start of every random number."""
    checkpoint_every: int = 20
    """Steps between checkpoints."""
    device: str = "auto"
    """"cpu", "cuda", or "auto": a GPU if there is one."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""

    def __post_init__(self) -> None:
        for name, stage in (("pretrain", self.pretrain), ("finetune", self.finetune)):
            for key, least in (("passes", 0), ("max_steps", 1), ("batch_size", 1)):
                if getattr(stage, key) < least:
                    raise UsageError(
                        f"{name}.{key} must be at least {least}, found {getattr(stage, key)}"
                    )
        if not self.pretrain.passes and not self.finetune.passes:
            raise UsageError("pretrain.passes and finetune.passes are 0: nothing would change")
        if self.held_out < 1:
            raise UsageError(f"held_out must be at least 1, found {self.held_out}")


def pretrain_config(
    settings: AdaptSettings, start: LoadedModel, model: Path, texts: int
) -> PretrainConfig:
    """Return the run of stage 1 on so many texts, from the model folder `model`.

    Raises:
        UsageError: `start`, which lies in that folder, has fewer layers than are to be trained.
    """
    s, bert = settings.pretrain, start.model.lm.config
    frozen = bert.num_hidden_layers - s.layers
    if frozen < 0:
        raise UsageError(
            f"pretrain.layers is {s.layers}, but {start.name} has {bert.num_hidden_layers} layers"
        )
    return PretrainConfig(
        PretrainStart(str(model), dropout=0.0),
        CorpusSettings(max_length=min(s.max_length, bert.max_position_embeddings)),
        objective=ObjectiveSettings(vocabulary_sample=s.vocabulary_sample),
        trainer=_trainer(settings, s, texts, frozen),
        name=_name(settings, start),
        probe_texts=0,
    )


def finetune_config(
    settings: AdaptSettings, start: LoadedModel, model: Path, rows: Path, count: int
) -> FinetuneConfig:
    """Return the run of stage 2 on a file of `count` rows, from the model folder `model`.

    Nothing but the body is asked to teach, and only a model of which that is known to be right.
    """
    s, heads, bert = settings.finetune, start.model.heads, start.model.lm.config
    is_taught = heads.cls_attention and heads.dense_dim == bert.hidden_size
    return FinetuneConfig(
        FinetuneStart(str(model), dropout=0.0),
        DataSettings(
            (str(rows),),
            block=s.block,
            neighbours=True,
            span_queries=s.span_queries,
            query_length=min(s.query_length, heads.max_query_length),
            document_length=min(s.document_length, heads.max_document_length),
            held_out=0,
        ),
        loss=LossSettings(
            temperature=s.temperature,
            contrastive=s.contrastive,
            contrastive_parts=s.contrastive_parts,
            self_distillation=s.self_distillation,
            teacher_sum=s.teacher_sum if is_taught else 0.0,
            alignment=s.alignment if is_taught else 0.0,
            lexical_scale=s.lexical_scale,
            late_scale=s.late_scale if is_taught else 0.0,
        ),
        trainer=_trainer(settings, s, count, bert.num_hidden_layers),
        name=_name(settings, start),
    )


def _trainer(
    settings: AdaptSettings, stage: PretrainStage | FinetuneStage, examples: int, frozen: int
) -> TrainerSettings:
    steps = max(1, min(stage.max_steps, round(stage.passes * examples / stage.batch_size)))
    return TrainerSettings(
        steps=steps,
        seed=settings.seed,
        batch_size=stage.batch_size,
        learning_rate=stage.learning_rate,
        freeze_embeddings=True,
        freeze_layers=frozen,
        checkpoint_every=settings.checkpoint_every,
        probe_every=0,
        device=settings.device,
        threads=settings.threads,
    )


def _name(settings: AdaptSettings, start: LoadedModel) -> str:
    return settings.name or f"{start.name}-adapted"
