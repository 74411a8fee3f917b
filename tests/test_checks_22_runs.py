"The checks behind the exercises of lesson 22, many runs."
from checking import assert_check

from vlground import checks_tables as checks


def may_start(needs, done, running): return [name for name, before in needs.items() if name not in done and name not in running and set(before) <= done]


def test_check_may_start():
    assert_check(checks.check_may_start, may_start, [
        (lambda *given: set(may_start(*given)), 'a list'),
        (lambda needs, done, running: [name for name in may_start(needs, done, running) if needs[name]], 'needs nothing'),
        (lambda needs, done, running: [name for name, before in needs.items() if name not in running and set(before) <= done], 'does not start again'),
        (lambda needs, done, running: may_start(needs, done, set()), 'a second time'),
        (lambda needs, done, running: [name for name in needs if name not in done | running], 'has to wait'),
        (lambda needs, done, running: [name for name in may_start(needs, done, running) if not needs[name]], 'may start'),
        (lambda needs, done, running: [name for name, before in needs.items() if name not in done | running and set(before) <= done | running], 'being done'),
        (lambda needs, done, running: [name for name, before in needs.items() if name not in done | running and (not before or set(before) & done)], 'both'),
        (lambda needs, done, running: sorted(may_start(needs, done, running)), 'alphabet'),
        (lambda needs, done, running: [''] if set(needs) <= done else may_start(needs, done, running), 'empty list'),
    ])


def slowest_chain(seconds, needs, latest=max):
    ends = {}
    for name, lasts in seconds.items(): ends[name] = lasts + (latest([ends[need] for need in needs[name]]) if needs[name] else 0)
    return max(ends.values(), default=0)


def last_run(seconds, needs):
    ends = {}
    for name, lasts in seconds.items(): ends[name] = lasts + max((ends[need] for need in needs[name]), default=0)
    return ends[name] if seconds and any(needs.values()) else max(ends.values(), default=0)


def test_check_slowest_chain():
    assert_check(checks.check_slowest_chain, slowest_chain, [
        (lambda seconds, needs: [slowest_chain(seconds, needs)], 'a number'),
        (lambda seconds, needs: len(seconds), 'of 3 seconds'),
        (lambda seconds, needs: sum(seconds.values()), 'side by side'),
        (lambda seconds, needs: max(seconds.values(), default=0), 'One after the other'),
        (lambda seconds, needs: slowest_chain(seconds, needs, sum), 'ends last'),
        (lambda seconds, needs: slowest_chain(seconds, needs, lambda ends: ends[-1]), 'named last'),
        (last_run, 'of the last run'),
        (lambda seconds, needs: max((lasts + max((seconds[need] for need in needs[name]), default=0) for name, lasts in seconds.items()), default=0), 'Three in a row'),
        (lambda seconds, needs: int(slowest_chain(seconds, needs)), 'whole'),
    ])
