"""What a bundle says of where it comes from, checked: what its training data passed, and how reads fared at its build.

Both are records that the build made (serving.origin); here they are held to each other and to the manifest.
"""

from __future__ import annotations

import json
from typing import Any

from serving.manifest import RECEIPT, Manifest, RefusedError


def check_lineage(manifest: Manifest) -> str:
    """Every row of the log that the run learned from was validated; returns a line that says by what.

    Raises:
        RefusedError: some were not, or the record does not reach over all of them.
    """
    record: dict[str, Any] = manifest.content["lineage"]
    end = 0
    for one in record["validated"]:
        if not one["by"] or one["start"] != end:
            message = (
                f"{manifest.tag} learned from rows {end:,} to {one['stop'] - 1:,} of the log, which nothing is known "
                "to have validated: take them in by the gate (make ingest), train again and build anew"
            )
            raise RefusedError(message)
        end = one["stop"]
    if end != record["log_offset"] or not end:
        message = (
            f"{manifest.tag} learned from {record['log_offset']:,} rows of the log, its record of what validated them "
            f"ends at {end:,}: build it again"
        )
        raise RefusedError(message)
    by = sorted({one["by"] for one in record["validated"]})
    return f"all {end:,} rows of the log that it learned from were validated ({', '.join(by)})"


def check_receipt(manifest: Manifest) -> str:
    """Online reads equalled offline ones when the bundle was built; returns a line of counts, or why there are none.

    Raises:
        RefusedError: the receipt is of other views, or a view was over its budget.
    """
    content = json.loads((manifest.root / RECEIPT).read_bytes())
    views: dict[str, Any] | None = content["views"]
    if views is None:
        return f"none: {content['reason']}"
    for name, view in views.items():
        if view["fingerprint"] != manifest.content["fingerprints"].get(name):
            message = f"the skew receipt of {manifest.tag} is of another declaration of {name}: build it again"
            raise RefusedError(message)
        if view["over_budget"]:
            message = f"{manifest.tag}: {over_budget(name, view)}"
            raise RefusedError(message)
    reads, differing = (sum(view[key] for view in views.values()) for key in ("reads", "differing"))
    offsets = sorted({view["offset"] for view in views.values()})
    return f"{reads:,} reads of {len(views)} views at offset {', '.join(map(str, offsets))}, {differing:,} differed"


def over_budget(name: str, view: dict[str, Any]) -> str:
    """Which features of a view differ more often than it allows itself, and the way out."""
    wrong = ", ".join(
        f"{feature} in {one['reads'] - one['equal']:,} ({one['missing']:,} missing, {one['extra']:,} extra)"
        for feature, one in view["features"].items()
        if one["equal"] < one["reads"]
    )
    return (
        f"of {view['reads']:,} online reads of {name}, {view['differing']:,} differ from the offline store, and "
        f"{view['budget']:.2%} may: {wrong}. make parity shows which; build the state anew (make update "
        f'ARGS="--rebuild {name}"), or declare what is to be borne with parity_budget in its view'
    )
