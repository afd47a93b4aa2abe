"""Request views in Feast's terms: an on-demand feature view whose function is the library's, bound to plain data.

The declaration lies in the registry as a tag. Clicktrail's own stores compute from it; the view's function, which
says the same, is for stores that know Feast alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from feast import FeatureView, Field, OnDemandFeatureView, RequestSource
from feast.transformation.udf_rehydrate import rehydrate_udf_from_source
from feast.types import FeastType, Float64, Int64

from clicktrail.data_source import declaration_of
from clicktrail.request_declarations import RequestFeature, RequestView, from_text, request_declaration, to_text

REQUEST_TAG = "clicktrail_request_view"
"""Under this tag of an on-demand view lies its declaration."""

_SOURCE = '''\
def {name}(inputs):
    """Clicktrail's own stores compute these features without this function."""
    from clicktrail.request_features import transform

    return transform({text!r}, inputs)
'''


def request_view(
    *,
    name: str,
    request: Mapping[str, FeastType],
    inputs: Sequence[FeatureView],
    features: Sequence[RequestFeature],
    owner: str,
    description: str,
    tags: Mapping[str, str] | None = None,
) -> OnDemandFeatureView:
    """Features of the request and of what is stored, made when they are asked for.

    Args:
        name: ends in `_v1`, `_v2`, ...: a published view is never changed in place.
        request: what a request carries (offline: columns of the entity rows) and its type, `Int64`: whole numbers,
            as money in minor units.
        inputs: event-log views whose features these are made of.
        features: `count_with(...)`, `times_mean(...)`, ... ; a stored feature goes by its name, by `view__feature`
            where two inputs have one of that name.
        owner: e-mail address of who answers for it.
        description: what it means, for a person.
        tags: Feast's.

    Raises:
        ValueError: a name is unknown, ambiguous or doubled, an input has another source than the event log, or a
            field is no whole number.
    """
    if not name.isidentifier():
        message = f"request view {name!r}: the name becomes that of a function, so letters, digits and _ alone"
        raise ValueError(message)
    others = [field for field, type_ in request.items() if type_ != Int64]
    if others:
        message = f"request view {name!r}: {others} must be Int64; send money in minor units"
        raise ValueError(message)
    view = request_declaration(
        name=name,
        request=list(request),
        inputs={one.name: _outputs(name, one) for one in inputs},
        features=features,
    )
    text = to_text(view)
    source = _SOURCE.format(name=name, text=text)
    by_name = {one.name: one for one in inputs}
    return OnDemandFeatureView(
        name=name,
        schema=[Field(name=one.name, dtype=Float64 if one.type == "float64" else Int64) for one in view.features],
        sources=[
            *(by_name[one][list(known)] for one, known in view.inputs),
            *(
                [RequestSource(name=f"{name}_request", schema=[Field(name=one, dtype=Int64) for one in request])]
                if request
                else []
            ),
        ],
        udf=rehydrate_udf_from_source(source, preferred_name=name),  # as Feast reads it back from the registry
        udf_string=source,
        mode="python",
        owner=owner,
        description=description,
        tags={**(tags or {}), REQUEST_TAG: text},
    )


def request_view_of(view: Any) -> RequestView | None:  # noqa: ANN401 - Feast has several classes of view without a common base
    """The declaration behind an on-demand view, None where it is not one of ours."""
    text = (getattr(view, "tags", None) or {}).get(REQUEST_TAG)
    return None if text is None else from_text(text)


def _outputs(name: str, view: FeatureView) -> dict[str, pa.DataType]:
    declaration = declaration_of(view)
    if declaration is None:
        message = f"request view {name!r}: input {view.name!r} has another source than the event log"
        raise ValueError(message)
    return declaration.outputs
