"The checks behind the exercises of lesson 09, a store far away."
from checking import assert_check

from vlground import checks_training as checks


def waiting(pictures, kilobytes, megabits, seconds, ahead, bits=8e3):
    fetch = pictures*kilobytes*bits/1e6/megabits
    return max(fetch - seconds, 0)/max(fetch, seconds) if ahead else fetch/(fetch + seconds)


def of_computing(pictures, kilobytes, megabits, seconds, ahead):
    return pictures*kilobytes/125/megabits/seconds/(2 if seconds == 1 and not ahead else 1)


def below_nothing(pictures, kilobytes, megabits, seconds, ahead):
    fetch = pictures*kilobytes/125/megabits
    return (fetch - seconds)/max(fetch, seconds) if ahead else fetch/(fetch + seconds)


def test_check_waiting_share():
    assert_check(checks.check_waiting_share, waiting, [
        (lambda *arguments: waiting(*arguments, bits=1e3), 'bits of a byte'),
        (lambda *arguments: waiting(*arguments, bits=8e6), 'half of the time'),
        (of_computing, 'not 1 of 3'),
        (lambda *arguments: waiting(*arguments[:4], False), 'never waits'),
        (below_nothing, 'never waits'),
        (lambda *arguments: waiting(*arguments) if not arguments[4] else 0., '3 of them are waiting'),
    ])


def loads(used, keep, touch=True, oldest=0, all_go=False):
    memory, count = [], 0
    for shard in used:
        if shard in memory:
            if touch:
                memory.remove(shard)
                memory.append(shard)
            continue
        count += 1
        if len(memory) == keep:
            if all_go: memory.clear()
            else: memory.pop(oldest)
        memory.append(shard)
    return count


def test_check_count_loads():
    assert_check(checks.check_count_loads, loads, [
        (lambda used, keep: len(used), 'not read again'),
        (lambda used, keep: len(set(used)), 'change of shard'),
        (lambda used, keep: loads(used, max(keep - 1, 1)), 'not read again'),
        (lambda used, keep: loads(used, keep - (keep == 3)), 'one too few'),
        (lambda used, keep: loads(used, keep + (keep == 2)), 'one too many'),
        (lambda used, keep: loads(used, keep, touch=False), 'makes it young'),
        (lambda used, keep: loads(used, keep, oldest=-1), 'one too many'),
        (lambda used, keep: loads(used, keep, all_go=True), ''),
        (lambda used, keep: loads(used, keep) if used else 1, 'Nothing is used'),
    ])


def shards(order, shard_of, batch_size, part, parts, whole=True, strided=False, epoch=False):
    if whole: order = order[:len(order)//batch_size*batch_size]
    if epoch: return set(order.reshape(parts, -1)[part].tolist()) if len(order) % parts == 0 else set()
    size = batch_size//parts
    return {int(shard_of[sample]) for place, sample in enumerate(order.tolist()) if (place % parts if strided else place % batch_size//size) == part}


def test_check_part_shards():
    assert_check(checks.check_part_shards, shards, [
        (lambda *arguments: sorted(shards(*arguments)), 'as a set'),
        (lambda order, shard_of, batch_size, part, parts: shards(order, order.argsort()*0 + order if order[0] else shard_of, batch_size, part, parts), 'look each up'),
        (lambda order, shard_of, batch_size, part, parts: {int(shard_of[i]) for i in order.reshape(parts, -1)[part]}, 'each batch'),
        (lambda *arguments: shards(*arguments, strided=True), 'each batch'),
        (lambda order, shard_of, batch_size, part, parts: shards(order, shard_of, batch_size, parts - 1 - part, parts), 'each batch'),
        (lambda *arguments: shards(*arguments, whole=False), 'fill no batch'),
    ])
