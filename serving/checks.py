"""What a bundle must pass before it answers; each check raises RefusedError with what is wrong and the way out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from clicktrail import settings
from serving import manifest as manifests
from serving.features import LiveState
from serving.manifest import Manifest, RefusedError
from serving.model import Model
from serving.predictor import Predictor
from serving.proofs import check_lineage, check_receipt
from serving.signing import check_signature

_OURS = ("clicktrail", "serving")


def opened(root: Path, *, task: str) -> Predictor:
    """A predictor of the Bento in `root`, after every check.

    Raises:
        RefusedError: it must not answer.
    """
    manifest = manifests.read(root)
    if manifest.task != task:
        message = f"{manifest.tag} is a bundle for {manifest.task}, but this service answers for {task}"
        raise RefusedError(message)
    manifests.check_files(manifest)
    if trusted := settings_of(manifest).trusted_keys:
        check_signature(manifest, trusted)
    check_lineage(manifest)
    check_receipt(manifest)
    check_origin(root)
    model = Model.load(manifest)
    check_goldens(model)
    state = live_state(model)
    state.warm()
    return Predictor(model, state)


def live_state(model: Model) -> LiveState:
    """The state that the bundle reads: of the shop and clock chosen when it was built, unless the environment says.

    Raises:
        RefusedError: there is none here, or its declarations are not those that the model was trained with.
    """
    return LiveState(settings_of(model.manifest), model.declarations)


def settings_of(manifest: Manifest) -> settings.Settings:
    """Settings of the environment, and where that is silent the ones chosen when the bundle was built."""
    built = manifest.content["defaults"]
    chosen = {"CLICKTRAIL_SHOP": built["shop"], "CLICKTRAIL_CLOCK": built["clock"]}
    home = Path(manifest.content["home"])
    if home.is_dir():  # not so on another machine, where the error about the state names the variable to set
        chosen["CLICKTRAIL_HOME"] = str(home)
    return settings.load({**chosen, **{name: value for name, value in os.environ.items() if value}})


def check_origin(root: Path) -> int:
    """Every module of ours that is loaded comes from the bundle, not from a checkout beside it; returns how many.

    Raises:
        RefusedError: another one was found first.
    """
    inside = (root / manifests.SOURCE).resolve()
    count = 0
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] not in _OURS or not getattr(module, "__file__", None):
            continue
        path = Path(str(module.__file__)).resolve()
        if not path.is_relative_to(inside):
            message = f"module {name} was taken from {path}, not from the bundle in {inside}: clear PYTHONPATH"
            raise RefusedError(message)
        count += 1
    return count


def check_goldens(model: Model) -> int:
    """The model gives the answers that it gave when it was trained, within the stated tolerance; returns how many.

    Raises:
        RefusedError: an answer differs.
    """
    tolerance = model.golden_tolerance
    count = 0
    for count, golden in enumerate(model.goldens(), 1):
        try:
            scores = model.scores(golden.features, golden.request, golden.t)[0].astype(np.float64)
        except Exception as error:
            message = (
                f"{model.manifest.tag} cannot answer golden request {count} ({type(error).__name__}: {error}): the run "
                "was exported by other code than this; train again, or build with the code of the run"
            )
            raise RefusedError(message) from error
        answer = scores[golden.places]
        # a score that is now larger than the best ones must be found too, and NaN is never within the tolerance
        ahead = float(np.sort(scores)[-len(answer)] - golden.expected.min())
        worst = max(float(np.abs(answer - golden.expected).max()), ahead)
        if not worst <= tolerance or not np.isfinite(scores).all():
            message = (
                f"{model.manifest.tag} answers golden request {count} with {answer[:3].tolist()} where "
                f"{golden.expected[:3].tolist()} was expected (off by {worst:.3g}, allowed {tolerance:.3g}): the "
                "model or its runtime is not the one that was trained; install the bundle's own requirements"
            )
            raise RefusedError(message)
    if not count:
        message = f"{model.manifest.tag} holds no golden request, so nothing shows that it answers as it was trained"
        raise RefusedError(message)
    return count
