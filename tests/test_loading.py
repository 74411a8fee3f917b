"Which samples a step takes, and the workers that prepare them: always the same batches, whatever happens to a worker."
import multiprocessing
import os
import pickle
import signal
import time
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from killing import begin, finish
from torch.utils.data import get_worker_info

from vlground.core import rng
from vlground.loading import Sampler, batches_ahead, samples_of_step

pytestmark = pytest.mark.filterwarnings('ignore:This DataLoader will create')

def lengths_of(kind, samples, seed): # None, all alike, few, many, or others in each epoch
    made = {'alike': lambda epoch: np.full(samples, 7), 'few': lambda epoch: rng('few', seed).integers(1, 4, samples),
            'many': lambda epoch: rng('many', seed).integers(1, 1000, samples), 'epoch': lambda epoch: rng('epoch', seed, epoch).integers(1, 30, samples)}
    return made.get(kind)

SAMPLERS = st.builds(lambda samples, batch_size, seed, kind, window: Sampler(samples, batch_size, seed, lengths_of(kind, samples, seed), window),
                     st.integers(1, 80), st.integers(1, 30), st.integers(0, 5), st.sampled_from(['none', 'alike', 'few', 'many', 'epoch']), st.integers(1, 60))

def dealt(sampler, epochs): # the samples of all steps that touch these epochs
    return sum([sampler.step(step) for step in range(-(-epochs*sampler.samples//sampler.batch_size))], [])


# the order

@settings(max_examples=200, deadline=None)
@given(SAMPLERS)
def test_each_sample_comes_exactly_once_in_each_epoch(sampler):
    seen = dealt(sampler, 4)
    for epoch in range(4):
        assert sorted(seen[epoch*sampler.samples:(epoch + 1)*sampler.samples]) == [(epoch, sample) for sample in range(sampler.samples)]

@settings(max_examples=100, deadline=None)
@given(SAMPLERS, st.lists(st.integers(0, 200), min_size=1, max_size=12))
def test_a_step_depends_on_its_number_alone(sampler, steps):
    again = Sampler(sampler.samples, sampler.batch_size, sampler.seed, sampler.lengths, sampler.window)
    assert [sampler.step(step) for step in steps] == [again.step(step) for step in reversed(steps)][::-1]

@settings(max_examples=100, deadline=None)
@given(SAMPLERS, st.integers(0, 50), st.data())
def test_parts_join_to_the_whole(sampler, step, data):
    parts = data.draw(st.sampled_from([n for n in range(1, sampler.batch_size + 1) if sampler.batch_size % n == 0]))
    assert sum([sampler.step(step, part, parts) for part in range(parts)], []) == sampler.step(step)

@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3), st.integers(0, 40))
def test_samples_of_step_is_the_sampler_without_epochs(samples, batch_size, seed, step):
    found = samples_of_step(step, batch_size, samples, seed)
    assert found == [sample for _, sample in Sampler(samples, batch_size, seed).step(step)] and all(type(sample) is int for sample in found)

def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(Sampler(50, 8, seed).order(epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9

def test_an_order_cannot_be_changed_by_those_who_read_it():
    with pytest.raises(ValueError, match='read-only'): Sampler(5, 2, 0).order(0)[0] = 3


# like lengths

def padded(sampler, epochs=5): # share of cells that are padding
    seen, size = dealt(sampler, epochs), sampler.batch_size
    rows = [[int(sampler.lengths(epoch)[sample]) for epoch, sample in seen[start:start + size]] for start in range(0, len(seen), size)]
    return 1 - sum(map(sum, rows))/sum(len(row)*max(row) for row in rows)

def test_windows_save_padding():
    lengths = rng('lengths').integers(3, 33, 1003) # which batches of 16 do not divide
    shares = [padded(Sampler(1003, 16, 0, lambda epoch: lengths, window)) for window in (1, 4, 16, 63)]
    assert shares == sorted(shares, reverse=True) and shares[0] > .35 and shares[-1] < .05

def test_a_batch_is_a_run_of_the_sorted_window_in_every_epoch():
    "With one window, all batches but those on an epoch's edge are neighbours in the order of the lengths, also where the batch does not divide the epoch."
    sampler = Sampler(103, 10, 0, lambda epoch: rng('distinct', epoch).permutation(103), window=1000)
    for step in range(50):
        batch = sampler.step(step)
        if len({epoch for epoch, _ in batch}) > 1: continue
        lengths = [int(sampler.lengths(epoch)[sample]) for epoch, sample in batch]
        assert lengths == sorted(lengths) and lengths[-1] - lengths[0] <= 10 + 19 # those on the edges are missing

def test_consecutive_batches_are_not_sorted():
    sampler = Sampler(640, 8, 0, lambda epoch: np.arange(640))
    firsts = [sampler.step(step)[0][1] for step in range(80)]
    assert firsts != sorted(firsts) and sorted(firsts[:40])[-1] > 400


# bad input

@pytest.mark.parametrize('changes, words', [(dict(samples=0), 'one sample'), (dict(batch_size=0), 'in a batch'), (dict(window=0), 'window')])
def test_sampler_refuses(changes, words):
    with pytest.raises(ValueError, match=words): Sampler(**{'samples': 10, 'batch_size': 4, 'seed': 0} | changes)

@pytest.mark.parametrize('arguments, words', [((0, 0, 3), 'cannot be cut into 3'), ((0, 0, 0), 'cannot be cut'), ((0, 2, 2), 'part 2'), ((0, -1, 2), 'part -1'), ((-1,), 'key -1')])
def test_step_refuses(arguments, words):
    with pytest.raises(ValueError, match=words): Sampler(10, 4, 0).step(*arguments)

@pytest.mark.parametrize('lengths', [np.ones(9), np.ones((10, 1)), []], ids=['few', 'square', 'empty'])
def test_lengths_of_another_shape_are_refused(lengths):
    with pytest.raises(ValueError, match=r'lengths\(0\): expected one for each of the 10 samples'): Sampler(10, 4, 0, lambda epoch: lengths).step(0)

def test_fewer_than_no_workers_are_refused():
    with pytest.raises(ValueError, match='workers'): batches_ahead(len, [], -1).__enter__()


# workers; what they call is defined here, so that it can be pickled

SAMPLER = Sampler(37, 6, 0, partial(np.full, 37))
KEYS = [(step,) for step in range(9)]

def make(step, part=0, parts=1): # whatever is random comes from epoch and sample
    return torch.stack([torch.from_numpy(rng('x', epoch, sample).random(5)) for epoch, sample in SAMPLER.step(step, part, parts)])

def described(step): return [f'caption-{sample}' for _, sample in SAMPLER.step(step)]

def same(found, expected): return len(found) == len(expected) and all(torch.equal(a, b) for a, b in zip(found, expected))

def of(error, at): # a function that fails in one step
    def make_or_fail(step):
        if step == at: raise error
        return step
    return make_or_fail

class Unpicklable(Exception):
    def __init__(self, a, b): super().__init__(f'{a} and {b}') # pickle calls it with one argument

@pytest.mark.fault(4)
@pytest.mark.parametrize('workers', [0, 1, 2, 4])
def test_the_number_of_workers_changes_no_bit(workers):
    state = torch.get_rng_state()
    with batches_ahead(make, KEYS, workers) as batches: assert same(list(batches), [make(*key) for key in KEYS])
    assert torch.equal(torch.get_rng_state(), state) # nor the global stream of random numbers

@pytest.mark.parametrize('workers', [0, 2])
def test_keys_with_parts(workers):
    keys = [(step, part, 3) for step in range(4) for part in (1, 2)]
    with batches_ahead(make, iter(keys), workers) as batches: assert same(list(batches), [make(*key) for key in keys])

@pytest.mark.parametrize('workers', [0, 2])
def test_no_keys_no_batches(workers):
    with batches_ahead(make, [], workers) as batches: assert list(batches) == []

@pytest.mark.parametrize('workers', [0, 1, 2])
def test_an_error_arrives_as_itself_after_the_batches_before_it(workers):
    received = []
    with pytest.raises(KeyError) as caught, batches_ahead(of(KeyError('caption-12'), 3), KEYS, workers) as batches:
        for batch in batches: received.append(batch)
    assert received == [0, 1, 2] and caught.value.args == ('caption-12',)
    if workers: assert 'in make_or_fail' in caught.value.__notes__[0]

@pytest.mark.parametrize('error', [Unpicklable(1, 2), type('Local', (ValueError,), {})('1 and 2')], ids=['arguments', 'class'])
def test_an_error_that_cannot_be_pickled_arrives_as_text(error):
    with pytest.raises(Exception): pickle.loads(pickle.dumps(error))
    with pytest.raises(RuntimeError, match=f'{type(error).__name__}: 1 and 2'), batches_ahead(of(error, 1), KEYS, 1) as batches: list(batches)

def test_an_error_of_the_one_who_asks_is_left_alone():
    with pytest.raises(RuntimeError, match='^mine$'), batches_ahead(make, KEYS, 1) as batches:
        next(batches)
        raise RuntimeError('mine')

def kill_in(step, at): # the worker, and not this process
    if step in at and get_worker_info(): os.kill(os.getpid(), signal.SIGKILL)
    return make(step)

@pytest.mark.fault(14)
@pytest.mark.parametrize('workers', [1, 3])
@pytest.mark.parametrize('at', [0, 5])
def test_a_killed_worker_names_step_and_samples(workers, at):
    received = []
    with pytest.raises(ChildProcessError) as caught, batches_ahead(partial(kill_in, at=[at]), KEYS, workers, describe=described) as batches:
        for batch in batches: received.append(batch)
    said = str(caught.value)
    assert f'step {at}' in said and str(described(at)) in said and f'workers, now {workers}' in said and '\n' not in said
    assert same(received, [make(step) for step in range(len(received))]) and len(received) <= at
    with batches_ahead(make, KEYS[len(received):], workers) as batches: received += batches # going on costs nothing
    assert same(received, [make(*key) for key in KEYS])

def kill_after_sending(step): # the batches before lie in the queue when their maker dies
    if step == 3:
        time.sleep(.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return make(step)

def test_a_queue_that_breaks_first_is_the_same_error():
    with pytest.raises(ChildProcessError, match='step 3, samples'), batches_ahead(kill_after_sending, KEYS, 1, describe=described) as batches:
        for _ in batches: time.sleep(.15)

def test_an_error_of_the_system_is_left_alone():
    with pytest.raises(OSError, match='^no space$'), batches_ahead(make, KEYS, 2) as batches:
        next(batches)
        raise OSError('no space')

@pytest.mark.fault(14)
def test_without_a_description_the_step_is_named():
    with pytest.raises(ChildProcessError, match=r'the batch of step 2\. If'), batches_ahead(partial(kill_in, at=[2]), KEYS, 1) as batches: list(batches)

def interrupted(step):
    for each in (signal.SIGINT, signal.SIGTERM): os.kill(os.getpid(), each)
    return os.getpid()

def alive(pid):
    try: return open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError: return False

@pytest.mark.fault(6)
@pytest.mark.parametrize('early', [False, True])
def test_requests_to_stop_do_not_reach_workers_and_these_end_with_the_block(early):
    with batches_ahead(interrupted, KEYS, 2) as batches: pids = {next(batches) for _ in range(2 if early else len(KEYS))}
    assert len(pids) == 2 and os.getpid() not in pids
    if not os.path.isdir('/proc'): return
    end = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < end: time.sleep(.02)
    assert not any(map(alive, pids))

@pytest.mark.parametrize('how, kind', [('os.kill(os.getpid(), signal.SIGKILL)', 'ChildProcessError'), ('time.sleep(600)', 'KeyboardInterrupt')], ids=['killed', 'interrupted'])
def test_workers_do_not_hold_up_the_end_of_a_process_that_keeps_the_error(how, kind, tmp_path):
    script = tmp_path/'ends.py'
    script.write_text(f'''
import os, signal, threading, time
from vlground.loading import batches_ahead
def make(step):
    if step == 4: {how}
    return step
signal.signal(signal.SIGINT, signal.default_int_handler) # a shell starts jobs in the background with Ctrl-C ignored
press = threading.Timer(.5, lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    with batches_ahead(make, [(step,) for step in range(9)], 3) as batches:
        for step in batches:
            if step == 3 and {kind!r} == 'KeyboardInterrupt': press.start() # it waits for the next one by then
except (ChildProcessError, KeyboardInterrupt) as error: kept = error
print(type(kept).__name__)
''')
    process = begin(str(script))
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 0 and said.strip().endswith(kind), said

@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_workers_that_start_afresh(method, tmp_path):
    if method not in multiprocessing.get_all_start_methods(): pytest.skip(f'no {method} here')
    script = tmp_path/'afresh.py'
    script.write_text(f'''
import multiprocessing, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from vlground.loading import batches_ahead
from test_loading import KEYS, make, same
if __name__ == '__main__':
    multiprocessing.set_start_method({method!r})
    with batches_ahead(make, KEYS[:3], 1) as batches: assert same(list(batches), [make(*key) for key in KEYS[:3]])
    print('the same')
''')
    assert finish(begin(str(script))).endswith('the same\n')

def test_a_sampler_can_be_pickled():
    sampler = pickle.loads(pickle.dumps(SAMPLER))
    assert sampler.step(7) == SAMPLER.step(7)
