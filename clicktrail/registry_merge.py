"""Two changes of one registry made into one: what we changed since we read it, done to what others left there.

Objects are told apart by project and name. Of an object that both changed, each field is merged by itself: a
description of theirs and a materialization of ours both stand. Where both changed one value, ours does.
"""

from __future__ import annotations

from typing import Any

from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto


def merge(base: RegistryProto, ours: RegistryProto, theirs: RegistryProto) -> RegistryProto:
    """`theirs` with the changes that lead from `base` to `ours`; none of the three is touched."""
    out = RegistryProto()
    out.CopyFrom(theirs)
    for field in RegistryProto.DESCRIPTOR.fields:
        old, mine, there = (getattr(one, field.name) for one in (base, ours, theirs))
        if old == mine:
            continue
        if field.is_repeated:
            merged = _merged_objects(_by_name(old), _by_name(mine), _by_name(there))
            out.ClearField(field.name)
            getattr(out, field.name).extend(merged)
        else:
            _merge_field(field, base, ours, out)
    return out


def _merged_objects(old: dict[Any, Any], mine: dict[Any, Any], there: dict[Any, Any]) -> list[Any]:
    out = {key: one for key, one in there.items() if key in mine or key not in old}
    for key, one in mine.items():
        before, now = old.get(key), there.get(key)
        if one == before:
            continue
        if before is None or now is None or now == before:
            # they deleted what we only marked as materialized: it stays deleted
            if now is not None or before is None or _declared(one) != _declared(before):
                out[key] = one
        else:
            both = type(one)()
            both.CopyFrom(now)
            _merge_into(both, before, one)
            out[key] = both
    return list(out.values())


def _by_name(objects: Any) -> dict[tuple[str, str], Any]:  # noqa: ANN401 - a repeated field of any message
    return {(getattr(_declared(one), "project", ""), getattr(_declared(one), "name", "")): one for one in objects}


def _declared(message: Any) -> Any:  # noqa: ANN401 - a message of any type
    """The part of an object that a person wrote; beside it stands what Feast keeps of it."""
    return message.spec if "spec" in message.DESCRIPTOR.fields_by_name else message


def _merge_into(out: Any, old: Any, mine: Any) -> None:  # noqa: ANN401
    for field in mine.DESCRIPTOR.fields:
        if getattr(old, field.name) != getattr(mine, field.name):
            _merge_field(field, old, mine, out)


def _merge_field(field: Any, old: Any, mine: Any, out: Any) -> None:  # noqa: ANN401
    """Do to `out` what was done to this field between `old` and `mine`, which differ in it."""
    name = field.name
    before, after = getattr(old, name), getattr(mine, name)
    is_message = field.message_type is not None
    if is_message and field.message_type.GetOptions().map_entry:
        there = getattr(out, name)
        for key in before.keys() - after.keys():
            there.pop(key, None)
        there.update({key: value for key, value in after.items() if key not in before or before[key] != value})
    elif field.is_repeated:
        there = list(getattr(out, name))
        kept = [one for one in there if one in after or one not in before]
        out.ClearField(name)
        getattr(out, name).extend([*kept, *(one for one in after if one not in before and one not in there)])
    elif not is_message:
        setattr(out, name, after)
    elif mine.HasField(name) and out.HasField(name):
        _merge_into(getattr(out, name), before, after)
    else:
        out.ClearField(name)
        if mine.HasField(name):
            getattr(out, name).CopyFrom(after)
