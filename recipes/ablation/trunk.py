"""Run a command whose models share frozen lower layers; what those give is kept on the disk.

    python recipes/ablation/trunk.py LAYERS FOLDER cli.py finetune ...

All rows of the ablation have the embeddings and lower layers of the start model, and read the
same texts: these layers, two thirds of the work, run once a text instead of once a row. States are
kept in float32, so what follows differs by no more than the order of sums does. Each model's
lower weights are hashed, and another model's states are never taken for its own. Not for
pre-training, whose texts are masked anew at every step.
"""

from __future__ import annotations

import hashlib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from transformers import BertModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from dupmae import torch_network
from dupmae.encoder import Encoder
from dupmae.files import replacing
from dupmae.packed import Layout
from dupmae.torch_encoder import TorchEncoder


class Trunk:
    """The embeddings and lower layers of BERT bodies, each text's states kept in a folder."""

    def __init__(self, layers: int, folder: Path) -> None:
        self._layers = layers
        self._folder = folder
        self._seals: WeakKeyDictionary[BertModel, str] = WeakKeyDictionary()

    def forward(
        self, model: BertModel, input_ids_BL: Tensor, attention_mask_BL: Tensor
    ) -> BaseModelOutputWithPooling:
        """Do what `BertModel.forward` does for frozen lower layers, reading what is kept."""
        lengths = attention_mask_BL.sum(dim=1).tolist()
        texts = [ids[:length] for ids, length in zip(input_ids_BL, lengths, strict=True)]
        paths = [self._path(model, ids) for ids in texts]
        self._keep([place for place, path in enumerate(paths) if not path.exists()],
                   model, input_ids_BL, attention_mask_BL, paths)  # fmt: skip
        width = model.config.hidden_size
        hidden_BLD = torch.zeros(*input_ids_BL.shape, width)
        for row, path in zip(hidden_BLD, paths, strict=True):
            states = np.load(path)
            row[: len(states)] = torch.from_numpy(states)
        mask = _mask(model, attention_mask_BL, hidden_BLD)
        for layer in model.encoder.layer[self._layers :]:
            hidden_BLD = layer(hidden_BLD, mask)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_BLD)

    @torch.no_grad()
    def _keep(
        self,
        missing: Sequence[int],
        model: BertModel,
        input_ids_BL: Tensor,
        attention_mask_BL: Tensor,
        paths: Sequence[Path],
    ) -> None:
        """Run the lower layers over texts whose states are not kept yet, and keep them."""
        if not missing:
            return
        rows = list(missing)
        mask_ML = attention_mask_BL[rows]
        hidden_MLD = model.embeddings(input_ids=input_ids_BL[rows])
        mask = _mask(model, mask_ML, hidden_MLD)
        for layer in model.encoder.layer[: self._layers]:
            hidden_MLD = layer(hidden_MLD, mask)
        for place, states, length in zip(rows, hidden_MLD, mask_ML.sum(dim=1), strict=True):
            paths[place].parent.mkdir(parents=True, exist_ok=True)
            with replacing(paths[place]) as file:
                np.save(file, states[:length].numpy())

    def _path(self, model: BertModel, ids: Tensor) -> Path:
        """Return where a text's states are kept."""
        key = hashlib.sha256(ids.numpy().tobytes()).hexdigest()
        return self._folder / self._seal(model) / key[:2] / f"{key}.npy"

    def _seal(self, model: BertModel) -> str:
        """Return the hash of a model's embeddings and lower layers, which must not change."""
        if model not in self._seals:
            digest = hashlib.sha256()
            for part in (model.embeddings, model.encoder.layer[: self._layers]):
                for name, values in part.state_dict().items():
                    digest.update(name.encode() + values.numpy().tobytes())
            self._seals[model] = digest.hexdigest()[:16]
        return self._seals[model]


def _mask(model: BertModel, attention_mask_BL: Tensor, hidden_BLD: Tensor) -> Tensor | None:
    """Return the mask that layers take, made as the model makes it."""
    mask: Tensor | None = model._create_attention_masks(
        attention_mask=attention_mask_BL,
        encoder_attention_mask=None,
        embedding_output=hidden_BLD,
        encoder_hidden_states=None,
        past_key_values=None,
    )[0]
    return mask


def install(trunk: Trunk) -> None:
    """Make every `BertModel` of this process use the trunk, and commands encode by one."""

    def forward(
        self: BertModel,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,  # one segment, as everywhere here
    ) -> BaseModelOutputWithPooling:
        return trunk.forward(self, input_ids, attention_mask)

    def read_body(model: BertModel, tokens_T: Tensor, layout: Layout) -> Tensor:
        input_ids_BL = layout.pad(tokens_T.unsqueeze(1)).squeeze(2)
        states = trunk.forward(model, input_ids_BL, layout.mask.long())
        return layout.pack(states.last_hidden_state)

    BertModel.forward = forward
    torch_network.read_body = read_body
    Encoder.load = TorchEncoder.load  # the other one runs an ONNX graph, whole


def main() -> None:
    """Install the trunk and run the command, in this process."""
    layers, folder, script, *arguments = sys.argv[1:]
    install(Trunk(int(layers), Path(folder)))
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
