"""The model of a bundle: features in, scores out, by the same encoding and the same arrays as in training.

Needs neither torch nor Feast, and reads no state: what it is given decides its answer, so that the golden
requests mean the same on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from clicktrail.declarations import Declaration, from_json
from clicktrail.encoding import FIRST, Encoding
from clicktrail.rows import Rows
from serving.blend import Blend, Mixer
from serving.blend_kernels import Met
from serving.endpoints import ENDPOINTS
from serving.filters import Eligible
from serving.items import ITEM, Items
from serving.manifest import Manifest, RefusedError

if TYPE_CHECKING:
    from serving.item_index import ItemIndex


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A synthetic request: features by view and name and request fields (lists of one value), read time [1].

    `expected`: the scores that training gave at output positions `places`, largest first; a binary model has one.
    """

    features: Mapping[str, Mapping[str, Any]]
    request: Mapping[str, Sequence[Any]]
    t: np.ndarray
    places: np.ndarray
    expected: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a bundle holds, loaded.

    `items`: what a recommendation can name; `blend`: who joins the network in ranking them.
    """

    manifest: Manifest
    interface: dict[str, Any]
    encoding: Encoding
    declarations: tuple[Declaration, ...]
    session: ort.InferenceSession
    fallback: dict[str, Any]
    items: Items | None
    blend: Blend | None
    golden: dict[str, Any]

    @classmethod
    def load(cls, manifest: Manifest) -> Model:
        """Load the files of a bundle.

        Raises:
            RefusedError: the model's inputs are not those that the encoding gives, or a view was declared under
                other rules than this library's.
        """
        folder = manifest.bundle
        interface = _json(folder / "interface.json")
        try:
            declarations = tuple(from_json(one) for one in interface["declarations"])
        except ValueError as error:
            raise RefusedError(str(error)) from error
        encoding = Encoding.from_json(_json(folder / "encoding.json"))
        session = _session(str(folder / "model.onnx"))
        wanted, given = {one.name for one in session.get_inputs()}, set(encoding.inputs())
        if not wanted <= given:
            message = f"{manifest.tag}: the model wants {sorted(wanted - given)}, which the encoding does not give"
            raise RefusedError(message)
        taken = {field.name for field in ENDPOINTS[manifest.task].fields}
        if not set(interface["request"]) <= taken:
            missing = ", ".join(sorted(set(interface["request"]) - taken))
            message = f"{manifest.tag}: the model reads {missing} of a request, which its endpoint does not take"
            raise RefusedError(message)
        items = Items.load(folder, interface, encoding) if interface["items"] else None
        described = interface.get("blend")  # bundles of before have none
        return cls(
            manifest=manifest,
            interface=interface,
            encoding=encoding,
            declarations=tuple(one for one in declarations if one.name in used_views(encoding)),
            session=session,
            fallback=_json(folder / "fallback.json"),
            items=items,
            blend=Blend.load(folder, described, len(items)) if described and items else None,
            golden=_json(folder / "golden.json"),
        )

    def run(
        self, features: Mapping[str, Mapping[str, Any]], request: Mapping[str, Sequence[Any]], t: np.ndarray
    ) -> np.ndarray:
        """What the model says of R rows, from features in lists; see `run_rows`.

        Args:
            features: view -> feature -> [R] values (lists or Arrow arrays).
            request: field -> [R] values.
            t: read times, int64 [R], microseconds UTC.
        """
        return self._said(self.encoding.encode_lists(features, request, t))

    def run_rows(self, rows: Rows) -> np.ndarray:
        """What the model says of R rows: probabilities float32 [R], or query vectors of users float32 [R, D]."""
        return self.run_met(rows)[0]

    def run_met(self, rows: Rows) -> tuple[np.ndarray, Met | None]:
        """The same, and the items of the rows' histories where a blend needs them."""
        arrays = self.encoding.encode(rows)
        return self._said(arrays), self._met(arrays)

    def scores(
        self, features: Mapping[str, Mapping[str, Any]], request: Mapping[str, Sequence[Any]], t: np.ndarray
    ) -> np.ndarray:
        """Scores of all outcomes for rows as in `run`: float32 [R, 1], or of all items float32 [R, I]."""
        arrays = self.encoding.encode_lists(features, request, t)
        said, met = self._said(arrays), self._met(arrays)
        if self.items is None:
            return said[:, None]
        scores = said @ self.items.vectors.T + self.items.bias
        if self.blend is None or met is None:
            return scores
        everything = Eligible(count=len(self.items), places=None, offset=self.items.bias)
        spoken = Mixer(self.blend).mix(scores, met, everything, [np.zeros(0, np.int64)] * len(scores))
        return np.log(scores / spoken[:, None])

    def _said(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        return self.session.run(None, {name: arrays[name] for name in self._inputs})[0]

    def _met(self, arrays: Mapping[str, np.ndarray]) -> Met | None:
        if self.blend is None:
            return None
        view, column = self._item_column
        ids = arrays[f"{view}__ids"][:, :, column]
        return Met(np.maximum(ids - FIRST, -1), arrays[f"{view}__length"])

    @cached_property
    def _item_column(self) -> tuple[str, int]:
        """The sequence that has items, and their column."""
        spec = next(one for one in self.encoding.spec.sequences if ITEM in one.categories)
        return spec.view, spec.id_columns.index(ITEM)

    @cached_property
    def _inputs(self) -> list[str]:
        return [one.name for one in self.session.get_inputs()]

    def item_index(self) -> ItemIndex | None:
        """The index of a catalogue that is too large to be looked at whole."""
        if not self.interface.get("item_index"):
            return None
        from serving.item_index import ItemIndex  # a package that other bundles do without

        folder = self.manifest.bundle
        return ItemIndex(folder, _json(folder / self.interface["item_index"]))

    @property
    def golden_tolerance(self) -> float:
        """How far an answer to a golden request may be from the one that training gave."""
        return float(self.golden["tolerance"])

    def goldens(self) -> Iterator[Golden]:
        """The golden requests."""
        for one in self.golden["cases"]:
            answer = one["answer"]
            yield Golden(
                features={
                    view: {name: [value] for name, value in found.items()} for view, found in one["features"].items()
                },
                request={name: [value] for name, value in one["request"].items()},
                t=np.array([one["t"]], np.int64),
                places=np.array([0]) if self.items is None else self.items.in_order(answer["items"]),
                expected=np.array(answer["scores"] if "items" in answer else [answer["score"]], np.float64),
            )


def used_views(encoding: Encoding) -> set[str]:
    """The views that the model reads: a feature service may offer more, which need not be read for an answer."""
    spec = encoding.spec
    return {one.view for one in spec.sequences} | {name.split("__", 1)[0] for name in (*spec.scalars, *spec.rates)}


def _session(path: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # one request at a time on one thread: for models of this size a second thread costs more than it gives
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _json(path: Any) -> dict[str, Any]:  # noqa: ANN401
    return json.loads(path.read_text(encoding="utf-8"))
