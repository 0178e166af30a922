"""Who does which chunk next, with a clock of our own."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest

from moevoprune.search.work_queue import DEPTH, PATIENCE, WorkQueue


def test_chunks_go_out_in_order_and_no_worker_hoards():
    queue = WorkQueue(5)
    assert [queue.take("a", 0.0) for _ in range(DEPTH + 1)] == [0, 1, None]
    assert [queue.take("b", 0.0) for _ in range(DEPTH + 1)] == [2, 3, None]
    assert not queue.is_handed_out
    assert queue.take("c", 0.0) == 4
    assert queue.is_handed_out


def test_what_waits_behind_another_chunk_is_given_away_at_once():
    queue = WorkQueue(2)
    assert [queue.take("slow", 0.0), queue.take("slow", 0.0)] == [0, 1]
    assert queue.take("idle", 0.1) == 1
    # one copy is enough
    assert queue.take("other", 0.2) is None
    assert queue.finish("idle", 1, 1.0)
    # the copy that was not needed is no result any more
    assert not queue.finish("slow", 1, 5.0)
    assert not queue.is_finished
    assert queue.finish("slow", 0, 6.0)
    assert queue.is_finished


def test_a_late_chunk_is_done_a_second_time_and_an_ordinary_one_is_not():
    queue = WorkQueue(2)
    assert queue.take("a", 0.0) == 0
    assert queue.take("b", 0.0) == 1
    assert queue.finish("a", 0, 1.0)
    assert queue.take("a", 1.0) is None
    assert queue.take("a", PATIENCE) is None
    assert queue.take("a", PATIENCE + 0.1) == 1
    assert queue.take("c", 100.0) is None
    assert queue.finish("a", 1, 101.0)
    assert queue.is_finished


def test_times_are_counted_from_when_a_worker_begins_a_chunk():
    queue = WorkQueue(3)
    assert [queue.take("a", 0.0), queue.take("a", 0.0)] == [0, 1]
    assert queue.take("b", 0.0) == 2
    assert queue.finish("a", 0, 10.0)
    assert queue.finish("a", 1, 20.0)
    # 2 has taken twice what 1 took, although 1 was handed out as early
    assert queue.take("a", 20.0) is None
    assert queue.take("a", PATIENCE * 10 + 0.1) == 2


def test_chunks_of_a_lost_worker_come_next_unless_somebody_else_has_them():
    queue = WorkQueue(4)
    assert [queue.take("a", 0.0), queue.take("a", 0.0)] == [0, 1]
    assert [queue.take("b", 0.0), queue.take("b", 0.0)] == [2, 3]
    queue.lose("a", 1.0)
    assert queue.take("c", 1.0) == 0
    assert queue.take("c", 1.0) == 1
    assert queue.finish("b", 2, 2.0)
    assert queue.finish("b", 3, 2.0)
    assert queue.take("b", 2.0) == 1
    queue.lose("c", 3.0)
    # 1 is with b, 0 with nobody
    assert queue.take("d", 3.0) == 0
    assert queue.take("e", 3.0) is None
    queue.drop("b", 1, 4.0)
    assert queue.take("e", 4.0) == 1


@pytest.mark.parametrize("seed", range(20))
def test_every_chunk_is_finished_whatever_happens(seed):
    """Workers of all speeds, some of which die, in a simulated time."""
    dice = random.Random(seed)
    queue = WorkQueue(40)
    speeds = {name: dice.choice([0.5, 1.0, 20.0]) for name in range(6)}
    events: list[tuple[float, int, int]] = []
    held: dict[int, list[int]] = {name: [] for name in speeds}
    now, first, done = 0.0, Counter(), 0

    def hand_out():
        for name, chunks in held.items():
            while (chunk := queue.take(name, now)) is not None:
                chunks.append(chunk)
                if len(chunks) == 1:
                    heapq.heappush(events, (now + speeds[name], name, chunk))

    hand_out()
    while not queue.is_finished:
        assert events, "nobody works, and not everything is finished"
        now, name, chunk = heapq.heappop(events)
        if name not in held or not held[name] or held[name][0] != chunk:
            continue
        if dice.random() < 0.05:
            queue.lose(name, now)
            del held[name]
            # another one takes its place
            new = max(speeds) + 1
            speeds[new], held[new] = 1.0, []
        else:
            first[chunk] += queue.finish(name, chunk, now)
            done += 1
            held[name].pop(0)
            if held[name]:
                heapq.heappush(events, (now + speeds[name], name, held[name][0]))
        hand_out()
    assert first == Counter(range(40))
    # what is done twice is the exception
    assert done < 50
