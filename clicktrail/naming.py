"""Names of views carry their version: what is declared anew gets a new one."""

from __future__ import annotations


def changed(view: str) -> str:
    """What to tell whoever declares something else under a view's old name."""
    return (
        f"view {view!r} is here with another declaration: a published view is never changed in place. Declare "
        f"{next_version(view)!r} beside it and move its readers over, or restore the old declaration"
    )


def next_version(view: str) -> str:
    """The name of a view's next version."""
    stem, _, version = view.rpartition("_v")
    return f"{stem}_v{int(version) + 1}" if stem and version.isdigit() else f"{view}_v2"
