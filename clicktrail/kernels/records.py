"""Records of an online state: what happened to an entity, one behind the other, in whole words of 64 bits.

A record begins with a head word: kind (8 bits), event type (8), nulls (24, one a column), words in all (23).

    EVENT  head, arrived, event time, log offset, [source_seq], integer columns, lengths of the string columns
           (32 bits each, two a word), their bytes, each filled up to a whole word
    STEP   head, label kind and step (32 bits each), offset of the event spoken of, known_at, time of that event,
           log offset at which it was computed: the newest computation about an event counts, older ones do not
    BASE   head, newest arrival among what was folded away before it

Shapes: W words, E events, N entities, C columns (integers first), S string columns. `seq` is 1 where records carry
source_seq (their last string is then the event_id), else 0.
"""

from __future__ import annotations

import numpy as np
from numba import njit

EVENT, STEP, BASE = 0, 1, 2
STEP_WORDS, BASE_WORDS = 6, 2
MOST_COLUMNS = 24
NEVER = -(2**62)
"""Time of an entity to which nothing has arrived: before every event, those before 1970 included."""

_NULLS, _WORDS = 16, 40


def head_word(kind: int, words: int) -> int:
    """The head of a record that is no event."""
    return kind | words << _WORDS


@njit(cache=True)
def pack(
    order: np.ndarray,
    types: np.ndarray,
    numbers: np.ndarray,
    present: np.ndarray,
    ends: np.ndarray,
    text: np.ndarray,
    bases: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Events as records, in the order given.

    Args:
        order: rows, uint32 [E].
        types: uint8 by row.
        numbers: arrived, event time, offset, [source_seq], integer columns: int64 [3 + seq + C - S, rows].
        present: uint8 [C, rows], 0 for null.
        ends: where a row's string begins and the next row's, int32 [S, rows + 1].
        text: bytes of all string columns, uint8.
        bases: where each column's bytes begin in `text`, int64 [S].

    Returns:
        The words, int64 [W], and where each record begins, int64 [E + 1].
    """
    n_numbers, n_strings, n_columns = len(numbers), len(ends), len(present)
    n_integers = n_columns - n_strings
    fixed = 1 + n_numbers + (n_strings + 1) // 2
    at = np.empty(len(order) + 1, np.int64)
    total = 0
    for place in range(len(order)):
        row = order[place]
        at[place] = total
        total += fixed
        for column in range(n_strings):
            if present[n_integers + column, row]:
                total += (ends[column, row + 1] - ends[column, row] + 7) // 8
    at[len(order)] = total
    words = np.zeros(total, np.int64)
    raw = words.view(np.uint8)
    for place in range(len(order)):
        row, begin = order[place], at[place]
        nulls = np.int64(0)
        for column in range(n_columns):
            if not present[column, row]:
                nulls |= np.int64(1) << column
        length = at[place + 1] - begin
        words[begin] = EVENT | np.int64(types[row]) << 8 | nulls << _NULLS | length << _WORDS
        for number in range(n_numbers):
            words[begin + 1 + number] = numbers[number, row]
        free = (begin + fixed) * 8
        for column in range(n_strings):
            if not present[n_integers + column, row]:
                continue
            first = bases[column] + ends[column, row]
            size = np.int64(ends[column, row + 1] - ends[column, row])
            words[begin + 1 + n_numbers + column // 2] |= size << (32 * (column % 2))
            for byte in range(size):
                raw[free + byte] = text[first + byte]
            free += (size + 7) // 8 * 8
    return words, at


@njit(cache=True)
def scan(
    words: np.ndarray, bounds: np.ndarray, seq: int, numbers: int, strings: int
) -> tuple[int, bool, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the records of entities that lie side by side.

    Args:
        words: int64 [W].
        bounds: where each entity's records begin, int64 [N + 1].
        seq: see above; without it the offset stands for source_seq as the last key.
        numbers: 3 + seq + integer columns.
        strings: string columns.

    Returns:
        Position at which the records are damaged, or -1; whether the events of each entity rise by known_at and event
        time, so that there is nothing to sort; `time` [N], newest arrival of each entity; `starts` [N + 1]; `at` [E],
        where each event begins; its keys `known`, `event` and `last` [E]; `step_at` [steps], where each label step
        begins, and `step_entity` [steps]; all int64.
    """
    entities = len(bounds) - 1
    fixed = 1 + numbers + ((strings + 1) >> 1)
    most = len(words) // BASE_WORDS + 1
    time, starts = np.full(entities, NEVER, np.int64), np.zeros(entities + 1, np.int64)
    at, known, event = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    last, step_at, step_entity = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    events, steps, damaged, rising = 0, 0, -1, True
    for one in range(entities):
        place = bounds[one]
        while place < bounds[one + 1]:
            head = words[place]
            kind, length = head & 0xFF, head >> _WORDS
            wanted = fixed if kind == EVENT else STEP_WORDS if kind == STEP else BASE_WORDS
            if kind > BASE or length < wanted or place + length > bounds[one + 1]:
                damaged = place
                break
            if kind == EVENT:
                for column in range(strings):
                    size = (words[place + 1 + numbers + (column >> 1)] >> (32 * (column & 1))) & 0xFFFFFFFF
                    wanted += (size + 7) >> 3
                if length != wanted:
                    damaged = place
                    break
                at[events] = place
                known[events] = max(words[place + 1], words[place + 2])
                event[events] = words[place + 2]
                last[events] = words[place + 3 + seq]
                time[one] = max(time[one], words[place + 1])
                if events > starts[one]:
                    same = known[events] == known[events - 1]
                    rising &= known[events] > known[events - 1] or (same and event[events] > event[events - 1])
                events += 1
            elif kind == STEP:
                step_at[steps] = place
                step_entity[steps] = one
                steps += 1
            else:
                time[one] = max(time[one], words[place + 1])
            place += length
        starts[one + 1] = events
    return (
        damaged,
        rising,
        time,
        starts,
        at[:events],
        known[:events],
        event[:events],
        last[:events],
        step_at[:steps],
        step_entity[:steps],
    )


@njit(cache=True)
def _where(words: np.ndarray, place: int, numbers: int, strings: int, column: int) -> tuple[int, int]:
    """Where a string of a record begins, in bytes, and how long it is."""
    free = (place + 1 + numbers + (strings + 1) // 2) * 8
    size = 0
    for one in range(column + 1):
        free += (size + 7) // 8 * 8
        size = (words[place + 1 + numbers + one // 2] >> (32 * (one % 2))) & 0xFFFFFFFF
    return free, size


@njit(cache=True)
def _id_before(words: np.ndarray, raw: np.ndarray, a: int, b: int, numbers: int, strings: int) -> bool:
    """Whether the event_id of the record at a comes before that of the record at b, by bytes."""
    begin_a, size_a = _where(words, a, numbers, strings, strings - 1)
    begin_b, size_b = _where(words, b, numbers, strings, strings - 1)
    for byte in range(min(size_a, size_b)):
        if raw[begin_a + byte] != raw[begin_b + byte]:
            return raw[begin_a + byte] < raw[begin_b + byte]
    return size_a < size_b


@njit(cache=True)
def settle_ties(
    words: np.ndarray,
    starts: np.ndarray,
    order: np.ndarray,
    at: np.ndarray,
    known: np.ndarray,
    event: np.ndarray,
    last: np.ndarray,
    numbers: int,
    strings: int,
) -> np.ndarray:
    """Order events of equal times by their last key, then by event_id, in place, and say which are there twice.

    Args:
        words: int64 [W].
        starts: int64 [N + 1].
        order: events of each entity sorted by their times, uint32 [E].
        at: int64 [E].
        known: int64 [E].
        event: int64 [E].
        last: int64 [E].
        numbers: 3 + seq + integer columns.
        strings: string columns, the last of them the event_id; 0: events have none.

    Returns:
        Which places of `order` hold an event a second time, bool [E].
    """
    raw = words.view(np.uint8)
    again = np.zeros(len(order), np.bool_)
    for one in range(len(starts) - 1):
        for place in range(starts[one] + 1, starts[one + 1]):
            here = order[place]
            hole = place
            while hole > starts[one]:  # mostly in order already: records are appended as the log has them
                before = order[hole - 1]
                if known[before] != known[here] or event[before] != event[here] or last[before] < last[here]:
                    break
                if last[before] == last[here] and (
                    strings == 0 or not _id_before(words, raw, at[here], at[before], numbers, strings)
                ):
                    break
                order[hole] = before
                hole -= 1
            order[hole] = here
        for place in range(starts[one] + 1, starts[one + 1]):
            again[place] = words[at[order[place]] + 3] == words[at[order[place - 1]] + 3]
    return again


@njit(cache=True)
def fill(
    words: np.ndarray, at: np.ndarray, numbers: int, first_integer: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What events hold beside their times and strings.

    Args:
        words: int64 [W].
        at: where each begins, int64 [E].
        numbers: 3 + seq + integer columns.
        first_integer: 3 + seq.

    Returns:
        `types` uint8 [E]; `nulls` int64 [E], a bit for each column; integer columns int64 [C - S, E].
    """
    n = len(at)
    types, nulls = np.empty(n, np.uint8), np.empty(n, np.int64)
    values = np.empty((numbers - first_integer, n), np.int64)
    for row in range(n):
        place = at[row]
        head = words[place]
        types[row] = (head >> 8) & 0xFF
        nulls[row] = (head >> _NULLS) & 0xFFFFFF
        for column in range(len(values)):
            values[column, row] = words[place + 1 + first_integer + column]
    return types, nulls, values


@njit(cache=True)
def texts(words: np.ndarray, at: np.ndarray, numbers: int, strings: int, column: int) -> tuple[np.ndarray, np.ndarray]:
    """A string column of events.

    Args:
        words: int64 [W].
        at: where each begins, int64 [E].
        numbers: 3 + seq + integer columns.
        strings: how many string columns records have.
        column: which of them.

    Returns:
        Where each string begins and the last one ends, int32 [E + 1], and their bytes, uint8.
    """
    raw = words.view(np.uint8)
    ends = np.empty(len(at) + 1, np.int32)
    ends[0] = 0
    for row in range(len(at)):
        size = (words[at[row] + 1 + numbers + column // 2] >> (32 * (column % 2))) & 0xFFFFFFFF
        ends[row + 1] = ends[row] + size
    text = np.empty(ends[len(at)], np.uint8)
    for row in range(len(at)):
        free, size = _where(words, at[row], numbers, strings, column)
        into = ends[row]
        for byte in range(size):
            text[into + byte] = raw[free + byte]
    return ends, text


@njit(cache=True)
def codes(
    words: np.ndarray, starts: np.ndarray, at: np.ndarray, numbers: int, strings: int, column: int
) -> tuple[np.ndarray, np.ndarray]:
    """A string column as codes: events of one entity with equal strings have equal ones.

    Entities do not share codes: a table of a few hundred entries stays in the fastest memory.

    Args:
        words: int64 [W].
        starts: int64 [N + 1].
        at: where each event begins, int64 [E].
        numbers: 3 + seq + integer columns.
        strings: how many string columns records have.
        column: which of them.

    Returns:
        int32 [E], numbered by first occurrence, and the event at which each occurred first, int64 [codes].
    """
    out, first = np.empty(len(at), np.int32), np.empty(len(at), np.int64)
    longest = 0
    for one in range(len(starts) - 1):
        longest = max(longest, starts[one + 1] - starts[one])
    slots = 16
    while slots < 2 * longest:
        slots *= 2
    table = np.empty(slots, np.int32)
    found = 0
    for one in range(len(starts) - 1):
        slots = 16
        while slots < 2 * (starts[one + 1] - starts[one]):
            slots *= 2
        table[:slots] = -1
        for row in range(starts[one], starts[one + 1]):
            begin, size = _where(words, at[row], numbers, strings, column)
            begin //= 8
            hashed = np.uint64(size)
            for word in range((size + 7) // 8):
                hashed = (hashed ^ np.uint64(words[begin + word])) * np.uint64(0x9E3779B97F4A7C15)
                hashed ^= hashed >> np.uint64(32)
            slot = np.int64(hashed & np.uint64(slots - 1))
            while True:
                code = table[slot]
                if code < 0:
                    table[slot] = code = found
                    first[found] = row
                    found += 1
                    break
                other, other_size = _where(words, at[first[code]], numbers, strings, column)
                other //= 8
                same = size == other_size
                for word in range((size + 7) // 8 if same else 0):
                    if words[begin + word] != words[other + word]:
                        same = False
                        break
                if same:
                    break
                slot = (slot + 1) & (slots - 1)
            out[row] = code
    return out, first[:found].copy()


@njit(cache=True)
def copy_kept(
    words: np.ndarray,
    starts: np.ndarray,
    at: np.ndarray,
    keep: np.ndarray,
    time: np.ndarray,
    step_at: np.ndarray,
    step_entity: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Each entity's records anew: a base with its time, then the events and label steps that are kept.

    Args:
        words: int64 [W].
        starts: int64 [N + 1].
        at: where each event begins, int64 [E].
        keep: bool [E].
        time: int64 [N].
        step_at: where the kept label steps begin, int64 [steps], by rising entity.
        step_entity: int64 [steps].

    Returns:
        words, int64, and where each entity begins in them, int64 [N + 1].
    """
    entities = len(starts) - 1
    bounds = np.empty(entities + 1, np.int64)
    total, step = 0, 0
    for one in range(entities):
        bounds[one] = total
        total += BASE_WORDS
        for place in range(starts[one], starts[one + 1]):
            if keep[place]:
                total += words[at[place]] >> _WORDS
        while step < len(step_at) and step_entity[step] == one:
            total += STEP_WORDS
            step += 1
    bounds[entities] = total
    out = np.empty(total, np.int64)
    free, step = 0, 0
    for one in range(entities):
        out[free] = BASE | np.int64(BASE_WORDS) << _WORDS
        out[free + 1] = time[one]
        free += BASE_WORDS
        for place in range(starts[one], starts[one + 1]):
            if keep[place]:
                begin = at[place]
                for word in range(words[begin] >> _WORDS):
                    out[free] = words[begin + word]
                    free += 1
        while step < len(step_at) and step_entity[step] == one:
            for word in range(STEP_WORDS):
                out[free] = words[step_at[step] + word]
                free += 1
            step += 1
    return out, bounds


@njit(cache=True)
def keep_last(
    starts: np.ndarray, known: np.ndarray, time: np.ndarray, repeats: np.ndarray, last: int, most: int
) -> np.ndarray:
    """Which events of a sequence a read at or after `time` can see: the last ones that are settled, all that are not.

    Args:
        starts: int64 [N + 1].
        known: known_at, rising within an entity, int64 [E].
        time: int64 [N].
        repeats: events that are left out because they repeat the one before, bool [E]; empty: there are none.
        last: how many events a sequence has.
        most: so many events are kept with their repeats, since one that arrives late may part them; beyond it
            settled repeats go.

    Returns:
        bool [E].
    """
    keep = np.ones(len(known), np.bool_)
    for one in range(len(starts) - 1):
        begin, settled = starts[one], starts[one + 1]
        while settled > begin and known[settled - 1] >= time[one]:
            settled -= 1
        head = settled
        left = last
        while head > begin and left > 0:
            head -= 1
            if not len(repeats) or not repeats[head]:
                left -= 1
        for place in range(begin, head):
            keep[place] = False
        if settled - head > most:
            for place in range(head + 1, settled):
                keep[place] = not repeats[place]
    return keep


@njit(cache=True)
def keep_reached(
    starts: np.ndarray,
    known: np.ndarray,
    event: np.ndarray,
    types: np.ndarray,
    time: np.ndarray,
    reach: np.ndarray,
    since: np.ndarray,
) -> np.ndarray:
    """Which events of an aggregate view a read at or after `time` can see.

    Args:
        starts: int64 [N + 1].
        known: int64 [E].
        event: int64 [E].
        types: uint8 [E].
        time: int64 [N].
        reach: how far the longest window of each type reaches, int64 [types]; negative: none has it.
        since: sets of types of which the newest event outlives every window, bool [sets, types].

    Returns:
        bool [E].
    """
    keep = np.zeros(len(known), np.bool_)
    for one in range(len(starts) - 1):
        for place in range(starts[one], starts[one + 1]):
            far = reach[types[place]]
            keep[place] = known[place] >= time[one] or (far >= 0 and event[place] >= time[one] - far)
        for kind in range(len(since)):
            newest = -1
            for place in range(starts[one], starts[one + 1]):
                settled = known[place] < time[one]
                if settled and since[kind, types[place]] and (newest < 0 or event[place] > event[newest]):
                    newest = place
            if newest >= 0:
                keep[newest] = True
    return keep
