"""Pages and cards from `templates/`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training import wording
from training.pictures import readable

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, values: Mapping[str, Any]) -> bytes:
    """A template filled in; a value that is missing is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "readable": readable,
        "title_of": wording.title,
        "explain": wording.explain,
        "of_hundred": wording.of_hundred,
        "duration": wording.duration,
        "number": wording.number,
    }
    environment.tests["nan"] = math.isnan
    return environment.get_template(template).render(values).encode()
