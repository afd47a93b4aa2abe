"""The model, top to bottom: event embedding, sequence encoder, the request's own features, head.

One forward serves training and serving. Training shares a window between many queries (a query reads the state at its
position); serving pads each query to itself and reads its last position. Causal encoders make the two the same.

Shape suffixes: B windows, L positions, C id columns, F number columns, D width, Q queries, V request values,
P pieces, I items.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy, deepcopy

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from clicktrail.encoding import FIRST, UNKNOWN, Encoding
from training.config import RunConfig
from training.content import ItemContent
from training.encoders import build_encoder
from training.encoders.base import Packing, starts
from training.encoders.dropout import Dropout, dropout
from training.encoders.fused import blocks, works
from training.encoders.log_bias import elapsed
from training.heads import BinaryHead, Head
from training.trees import Trees, read

NEXT_ITEM, BINARY = "next_item", "binary"
ITEM = "item_id"
_STD = 0.05


def table(size: int, width: int) -> nn.Embedding:
    """An embedding whose rows for padding and for unknown values are zero: what is not known says nothing."""
    embedding = nn.Embedding(size, width, padding_idx=0)
    with torch.no_grad():
        embedding.weight.normal_(std=_STD)
        embedding.weight[: UNKNOWN + 1] = 0
    return embedding


def looked_up(tables: nn.ModuleList, ids: torch.Tensor) -> torch.Tensor:
    """Sum of each table's row for its id column: [..., C] -> [..., D].

    An exported graph has one table for all columns: a runtime pays for each node, not for the few numbers in it.
    """
    if torch.onnx.is_in_onnx_export():
        sizes = torch.tensor([0, *(one.weight.shape[0] for one in tables)][:-1])
        return F.embedding(ids + sizes.cumsum(0), torch.cat([one.weight for one in tables])).sum(-2)
    return sum((one(ids[..., column]) for column, one in enumerate(tables)), start=torch.zeros(()))


class EventEmbedding(nn.Module):
    """ids_BLC, numbers_BLF -> x_BLD: one table an id column, a linear map of the numbers, their sum normalised."""

    def __init__(self, sizes: list[int], numbers: int, width: int, dropout: float, *, quiet: bool) -> None:
        """Tables and map.

        Args:
            sizes: codes of each id column.
            numbers: how many numbers an event has.
            width: D.
            dropout: share that is left out in training.
            quiet: the numbers begin as small as the tables. Where events are told apart by their item, torch's own
                draw would drown it; where they are told apart by their numbers, that is as it should be.
        """
        super().__init__()
        self.tables = nn.ModuleList(table(size, width) for size in sizes)
        self.numbers = nn.Linear(numbers, width)
        if quiet:
            nn.init.normal_(self.numbers.weight, std=_STD)
            nn.init.zeros_(self.numbers.bias)
        self.norm = nn.LayerNorm(width)
        self.dropout = dropout

    def forward(
        self, ids_BLC: torch.Tensor, numbers_BLF: torch.Tensor, said_BLD: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed events; `said_BLD` is what else is known of their items."""
        x_BLD = self.numbers(numbers_BLF) + looked_up(self.tables, ids_BLC)
        x_BLD = x_BLD if said_BLD is None else x_BLD + said_BLD
        return dropout(self.norm(x_BLD), self.dropout, self.training)


class RequestEmbedding(nn.Module):
    """Request ids and values -> r_QD, and the values in pieces.

    A value becomes `PIECES` numbers, each rising from 0 to 1 between two quantiles of the training range
    (Gorishniy et al. 2022): a linear layer on them can bend at any quantile, which trees do for free.
    """

    edges_VP: torch.Tensor

    def __init__(self, encoding: Encoding, width: int) -> None:
        """Sizes and quantiles come with the encoding."""
        super().__init__()
        self.register_buffer("edges_VP", torch.from_numpy(encoding.value_edges))
        self.tables = nn.ModuleList(table(size, width) for size in encoding.request_id_sizes)
        self.values = nn.Linear(self.pieces, width)
        self.norm = nn.LayerNorm(width)

    @property
    def pieces(self) -> int:
        """Numbers that describe the values of a request: pieces, the value itself, null flags."""
        count, edges = self.edges_VP.shape
        return count * (edges - 1) + 2 * count

    def forward(self, ids_QC: torch.Tensor, numbers_QV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give r_QD and the pieces."""
        count = self.edges_VP.shape[0]
        value_QV1 = numbers_QV[:, :count, None]
        low, high = self.edges_VP[:, :-1], self.edges_VP[:, 1:]
        rise_QVP = ((value_QV1 - low) / (high - low).clamp(min=1e-4)).clamp(0, 1)
        known_QV1 = 1 - numbers_QV[:, count:, None]
        pieces = torch.cat([(rise_QVP * known_QV1).flatten(1), numbers_QV], 1)
        return self.norm(self.values(pieces) + looked_up(self.tables, ids_QC)), pieces


class ItemScores(nn.Module):
    """Scores of items, tied to the embedding that reads them, plus what category and price say, plus popularity."""

    facts_I: torch.Tensor

    def __init__(self, items: int, facts: np.ndarray, sizes: list[int], width: int) -> None:
        """`facts`: int64 [I, columns], encoded category, price bucket, ... of each item; `sizes`: their codes."""
        super().__init__()
        self.register_buffer("facts_I", torch.from_numpy(facts))
        self.tables = nn.ModuleList(table(size, width) for size in sizes)
        self.bias = nn.Parameter(torch.zeros(items))

    def vectors(self, item_table: nn.Embedding) -> torch.Tensor:
        """e_ID: the vector of each item."""
        e_ID = item_table.weight[FIRST:]
        for column, embedding in enumerate(self.tables):
            e_ID = e_ID + embedding(self.facts_I[:, column])
        return e_ID


class SequenceModel(nn.Module):
    """Encoding -> the numbers of a head (training/heads.py), or a query vector for `item_vectors`."""

    def __init__(
        self,
        config: RunConfig,
        encoding: Encoding,
        head: str,
        *,
        predictor: Head | None = None,
        facts: np.ndarray | None = None,
        content: ItemContent | None = None,
        prior: float | torch.Tensor = 0.0,
    ) -> None:
        """Build it for an encoding.

        Args:
            config: widths, encoder.
            encoding: fixes the sizes of all tables.
            head: `next_item`, `binary`, or whatever the task calls it that `predictor` is given for.
            predictor: loss and prediction of any other head than next item; of a binary one it need not be given.
            facts: next item only: int64 [I, columns], encoded category and price bucket by item.
            content: next item only: what else is known of items.
            prior: where the bias of the numbers starts (`Head.start`).
        """
        super().__init__()
        self.head, self.spec, self.timed = head, encoding.spec, config.encoder.time_bias
        self.temperature, self.content = config.temperature, content
        self.trees: Trees | None = None
        self.trees_share, self.fused = 0.0, False
        self.width = width = config.encoder.width
        dropout = config.encoder.dropout
        views = [one.view for one in encoding.spec.sequences]
        self.events = nn.ModuleDict(
            {
                one.view: EventEmbedding(
                    encoding.id_sizes(one.view),
                    len(one.number_columns),
                    width,
                    dropout,
                    quiet=ITEM in one.id_columns,
                )
                for one in encoding.spec.sequences
            }
        )
        self.encoders = nn.ModuleDict({view: build_encoder(config.encoder) for view in views})
        self.empty = nn.ParameterDict({view: nn.Parameter(torch.zeros(width)) for view in views})
        self.request = RequestEmbedding(encoding, width)
        joined = width * (len(views) + 1)
        hidden = config.head_width
        self.join = nn.Sequential(nn.Linear(joined, hidden), nn.GELU(), Dropout(config.head_dropout))
        if head == NEXT_ITEM:
            assert facts is not None  # noqa: S101 - the training set of a next-item task carries them
            self.items = ItemScores(len(facts), facts, [int(size) for size in facts.max(0) + 1], width)
            self.out = nn.Linear(hidden, width)
        else:
            self.predictor = BinaryHead() if predictor is None else predictor
            self.out = nn.Linear(hidden, self.predictor.outputs)
            self.wide = nn.Linear(self.request.pieces, self.predictor.outputs)
            nn.init.zeros_(self.wide.weight)
            with torch.no_grad():
                self.wide.bias.copy_(torch.as_tensor(prior))
                self.out.weight.mul_(0.1)

    def add_trees(self, trees: Trees, share: float) -> None:
        """Binary head: from now on `share` of the log-odds is said by trees."""
        self.trees, self.trees_share = trees.to(self.wide.weight.device), share

    def with_share(self, share: float) -> SequenceModel:
        """The same weights and trees, the trees with another share: 0 is the network alone."""
        same = copy(self)
        same.trees_share = share
        return same

    def compile_encoders(self) -> None:
        """Compile the encoders, where nearly all the work is; lengths and batch sizes stay free, weights keep names."""
        for encoder in self.encoders.values():
            encoder.compile(dynamic=True)

    def fuse_attention(self) -> str:
        """Fuse the attention of packed rows, if this machine can; gives why it cannot, or nothing."""
        device = next(self.parameters()).device
        for encoder in self.encoders.values():
            why = works(encoder, self.width, device) if encoder.fusable else ""
            if why:
                return why
        self.fused = all(encoder.fusable for encoder in self.encoders.values())
        return ""

    def states(
        self, view: str, ids_BLC: torch.Tensor, numbers_BLF: torch.Tensor, segment_BL: torch.Tensor | None = None
    ) -> torch.Tensor:
        """h_BLD of a sequence view; `segment_BL` where rows hold several sequences (see `Packing`)."""
        packing = self.packing(view, numbers_BLF, segment_BL)
        return self.encoders[view](self.embed(view, ids_BLC, numbers_BLF), packing)

    def embed(self, view: str, ids_BLC: torch.Tensor, numbers_BLF: torch.Tensor) -> torch.Tensor:
        """x_BLD of a sequence view."""
        if self.content is None or view != self._item_view:
            return self.events[view](ids_BLC, numbers_BLF)
        said_ID = F.pad(self.content(), (0, 0, FIRST, 0))  # nothing is said of padding and unknown items
        return self.events[view](ids_BLC, numbers_BLF, F.embedding(ids_BLC[:, :, self._item_column], said_ID))

    def packing(self, view: str, numbers_BLF: torch.Tensor, segment_BL: torch.Tensor | None) -> Packing:
        """How the rows of a batch are to be read; times come from the gaps that the numbers hold."""
        seen = blocks(segment_BL) if self.fused and segment_BL is not None else None
        if not self.timed:
            return Packing(segment_BL, None, seen)
        (one,) = (one for one in self.spec.sequences if one.view == view)
        gap_BL = numbers_BLF[:, :, one.number_columns.index("gap")]
        starts_BL = torch.arange(gap_BL.shape[1], device=gap_BL.device)[None] == 0
        return Packing(segment_BL, elapsed(gap_BL, starts_BL if segment_BL is None else starts(segment_BL)), seen)

    def query(
        self, h_QD: Mapping[str, torch.Tensor], request_ids: torch.Tensor, request_numbers: torch.Tensor
    ) -> torch.Tensor:
        """Head without items: its numbers [Q] or [Q, outputs], or the query vector q_QD of the next-item head."""
        r_QD, pieces = self.request(request_ids, request_numbers)
        joined = torch.cat([*(h_QD[one.view] for one in self.spec.sequences), r_QD], 1)
        out = self.out(self.join(joined))
        if self.head == NEXT_ITEM:
            return self._directed(out + h_QD[self._item_view], self.temperature)
        logit = (out + self.wide(pieces)).squeeze(1)
        if self.trees is None:
            return logit
        return torch.lerp(logit, self.trees(read(request_ids, request_numbers)), self.trees_share)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Queries of a batch (see training/batches.py): numbers of the head, or q_QD for `item_vectors`.

        Args:
            batch: by sequence view `__ids` and `__numbers` [B, L, ...], `__segment` int64 [B, L] where rows hold
                several sequences (absent: one a row, padded to the right); by query `__row` (absent: `window`) and
                `__position` int64 [Q], where the query reads, position -1 where nothing is known; `request_ids`,
                `request_numbers`.
        """
        h_QD = {}
        for one in self.spec.sequences:
            view = one.view
            h_BLD = self.states(view, batch[f"{view}__ids"], batch[f"{view}__numbers"], batch.get(f"{view}__segment"))
            position_Q = batch[f"{view}__position"]
            row_Q = batch[f"{view}__row"] if f"{view}__row" in batch else batch["window"]
            read_QD = h_BLD[row_Q, position_Q.clamp(min=0)]
            h_QD[one.view] = torch.where(position_Q[:, None] < 0, self.empty[one.view].to(read_QD.dtype), read_QD)
        return self.query(h_QD, batch["request_ids"], batch["request_numbers"])

    def item_vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """e_ID and bias_I: logits of a query vector are q_QD @ e_ID.T + bias_I."""
        e_ID = self.items.vectors(self.item_table)
        e_ID = e_ID if self.content is None else e_ID + self.content()
        return self._directed(e_ID, 1.0), self.items.bias

    def scores(self, q_QD: torch.Tensor) -> torch.Tensor:
        """Logits [Q, I] of all items."""
        e_ID, bias_I = self.item_vectors()
        return q_QD @ e_ID.T + bias_I

    @property
    def item_table(self) -> nn.Embedding:
        """The item embedding of the sequence that has items."""
        found = self.events[self._item_view].tables[self._item_column]
        assert isinstance(found, nn.Embedding)  # noqa: S101 - EventEmbedding builds nothing else
        return found

    def folded(self) -> SequenceModel:
        """The same model with the content of items added to their own vectors, for good: what is exported."""
        if self.content is None:
            return self
        same = deepcopy(self)
        with torch.no_grad():
            same.item_table.weight[FIRST:] += self.content()
        same.content = None
        return same

    def _directed(self, vectors: torch.Tensor, temperature: float) -> torch.Tensor:
        """With a temperature, scores are cosines divided by it: popular items cannot win by the length of vectors."""
        return F.normalize(vectors.float(), dim=-1) / temperature if self.temperature else vectors

    @property
    def _item_view(self) -> str:
        return next(one.view for one in self.spec.sequences if ITEM in one.id_columns)

    @property
    def _item_column(self) -> int:
        return next(one.id_columns.index(ITEM) for one in self.spec.sequences if ITEM in one.id_columns)


class ServedModel(nn.Module):
    """What is exported: arrays in the order of `Encoding.inputs()` -> scores.

    Next item: query vectors float32 [B, D], for `SequenceModel.item_vectors`. Else the head's prediction; of a binary
    one that is a probability float32 [B].
    """

    def __init__(self, model: SequenceModel, names: list[str]) -> None:
        """`names`: the input names, in order."""
        super().__init__()
        self.model, self.names = model.folded(), names

    def forward(self, *arrays: torch.Tensor) -> torch.Tensor:
        """Score padded rows."""
        given = dict(zip(self.names, arrays, strict=True))
        h_BD = {}
        for one in self.model.spec.sequences:
            length_B = given[f"{one.view}__length"]
            numbers_BLF = given[f"{one.view}__numbers"]
            x_BLD = self.model.embed(one.view, given[f"{one.view}__ids"], numbers_BLF)
            packing = self.model.packing(one.view, numbers_BLF, None)
            read_BD = self.model.encoders[one.view].last(x_BLD, length_B, packing)
            h_BD[one.view] = torch.where(length_B[:, None] == 0, self.model.empty[one.view], read_BD)
        out = self.model.query(h_BD, given["request_ids"], given["request_numbers"])
        return out if self.model.head == NEXT_ITEM else self.model.predictor.predict(out)
