"The training loop: what it computes, and what is left after every fault that is injected here."
import json
import math
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file
from torch import nn

from vlground.core import sha256, torch_rng
from vlground.checkpoints import RunFolder, config_from, load_checkpoint, load_finished, save_checkpoint
from vlground.logs import read_log
from vlground.optimizing import linear_warmup_decay, parameter_groups
from vlground.training import TrainConfig, train

# a job runs in a process of its own, forked from this one: what kills it is a real signal
FORK = multiprocessing.get_context('fork')
CONFIG = TrainConfig(steps=40, batch_size=8, learning_rate=1e-2, save_every=7, log_every=5, eval_every=10, threads=1)

def make_model(): # with dropout, so that random numbers matter
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 32), nn.LayerNorm(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 20))

def make_batch(step):
    x = torch.randint(20, (8,), generator=torch_rng(0, 'batch', step))
    return x, 3*x % 20

def loss_fn(model, batch):
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
    return {'loss': loss, 'double': 2*loss}

def evaluate(model): return {'accuracy': float((model(torch.arange(20)).argmax(1) == 3*torch.arange(20) % 20).float().mean())}

def run(folder, **changes): # the training, in this process
    model = make_model()
    keywords = dict(make_batch=make_batch, loss_fn=loss_fn, config=CONFIG, folder=folder, evaluate=evaluate, progress='none') | changes
    return model, train(model, **keywords)

def figures(folder): # the log without its clock
    return [{key: value for key, value in line.items() if key not in ('seconds', 'samples_per_s', 'data_wait')} for line in read_log(folder)]

@pytest.fixture(scope='module')
def whole(tmp_path_factory): # a run that nothing disturbed
    folder = tmp_path_factory.mktemp('whole')
    run(folder)
    return folder

def dies_at(step):
    def make(now):
        if now == step: raise RuntimeError('the data set is gone')
        return make_batch(now)
    return make

def same_end(a, b): return (a/'final.safetensors').read_bytes() == (b/'final.safetensors').read_bytes() and figures(a) == figures(b)


# what it computes

@given(st.integers(1, 3000), st.floats(0, 1))
def test_schedule_rises_to_one_and_falls(steps, warmup):
    factors = [linear_warmup_decay(step, steps, warmup) for step in range(steps)]
    top = factors.index(max(factors))
    assert factors[top] == 1 and all(0 < factor <= 1 for factor in factors)
    assert factors[:top + 1] == sorted(factors[:top + 1]) and factors[top:] == sorted(factors[top:], reverse=True)
    assert abs(factors.count(1) - 1.5) < 1 and abs(top - warmup*steps) <= 1.5

def test_decay_falls_on_matrices_only():
    model = make_model()
    model[5].weight.requires_grad_(False)
    matrices, vectors = parameter_groups(model, 0.1)
    assert matrices['weight_decay'] == 0.1 and {id(p) for p in matrices['params']} == {id(model[0].weight), id(model[1].weight)}
    assert vectors['weight_decay'] == 0 and {id(p) for p in vectors['params']} == {id(model[1].bias), id(model[2].weight), id(model[2].bias), id(model[5].bias)}

def test_tied_weights_are_updated_once():
    tied = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    tied[1].weight = tied[0].weight
    assert [len(group['params']) for group in parameter_groups(tied, 0.1)] == [1]

def test_loop_is_adamw_with_the_schedule(tmp_path):
    "The same weights as a loop written out by hand."
    config = replace(CONFIG, steps=6, clip=0.5)
    still = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 20))
    torch.manual_seed(3)
    model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 20))
    still.load_state_dict(model.state_dict())
    train(model, make_batch, loss_fn, config, tmp_path, progress='none')
    optimizer = torch.optim.AdamW([{'params': [still[0].weight, still[1].weight], 'weight_decay': 0.01}, {'params': [still[1].bias], 'weight_decay': 0.}], eps=1e-6)
    for step, factor in enumerate([1, 1, 4/5, 3/5, 2/5, 1/5]): # 0.1 of 6 steps is one of warm-up
        for group in optimizer.param_groups: group['lr'] = 1e-2*factor
        optimizer.zero_grad()
        loss_fn(still, make_batch(step))['loss'].backward()
        nn.utils.clip_grad_norm_(still.parameters(), 0.5)
        optimizer.step()
    for a, b in zip(model.parameters(), still.parameters()): torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)

def test_it_learns_and_logs(whole):
    lines = read_log(whole)
    parts = [line for line in lines if 'parts' in line]
    assert parts[-1]['parts']['loss'] < parts[0]['parts']['loss']/2
    assert all(line['parts']['double'] == pytest.approx(2*line['parts']['loss']) for line in parts)
    assert [line['step'] for line in parts] == sorted({*range(5, 41, 5), *range(7, 41, 7)})
    assert [line['step'] for line in lines if 'evaluation' in line] == [10, 20, 30, 40]
    summary = json.loads((whole/'summary.json').read_text())
    assert summary['steps'] == 40 and summary['skipped'] == 0 and summary['evaluation'] == lines[-1]['evaluation']
    clock = load_checkpoint(whole/'checkpoints')[1] # the speed is that of the steps, without evaluations and checkpoints
    assert 0 < clock['paused'] < clock['seconds'] and summary['samples_per_s'] == pytest.approx(320/(clock['seconds'] - clock['paused']), rel=0.1)

def test_config_is_saved_and_strict(whole):
    saved = json.loads((whole/'config.json').read_text())
    assert config_from(TrainConfig, saved['train']) == CONFIG
    with pytest.raises(ValueError, match="my.json: TrainConfig has no 'stepz'"): config_from(TrainConfig, {'stepz': 3}, 'my.json')

@pytest.mark.parametrize('wrong', [dict(steps=0), dict(batch_size=-1), dict(learning_rate=0.), dict(learning_rate=math.nan), dict(warmup=1.5), dict(precision='half'), dict(seed=-1), dict(keep=0)])
def test_config_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))): TrainConfig(**wrong)

def test_evaluating_does_not_change_the_training(tmp_path, whole):
    seen = []
    def curious(model):
        seen.append((model.training, torch.is_grad_enabled()))
        torch.rand(5)
        return {'nothing': math.nan}
    run(tmp_path, evaluate=curious, config=replace(CONFIG, eval_every=3))
    assert (tmp_path/'final.safetensors').read_bytes() == (whole/'final.safetensors').read_bytes()
    assert set(seen) == {(False, False)} and len(seen) == 14
    assert read_log(tmp_path)[-1]['evaluation'] == {'nothing': None}

def test_progress_file(tmp_path):
    run(tmp_path, progress='file')
    progress = json.loads((tmp_path/'progress.json').read_text())
    assert progress['step'] == progress['steps'] == 40 and progress['seconds_left'] == 0 and 'loss' in progress['parts']
    with pytest.raises(ValueError, match='progress'): run(tmp_path/'other', progress='loud')

def test_bar_names_the_run(tmp_path, capfd):
    run(tmp_path/'my run', progress='bar')
    shown = capfd.readouterr().err
    assert 'my run' in shown and 'loss=' in shown and 'samples/s=' in shown and '40/40' in shown

def test_bfloat16_learns(tmp_path):
    _, summary = run(tmp_path, config=replace(CONFIG, precision='bfloat16'))
    assert summary['parts']['loss'] < 1.4
    assert all(tensor.dtype == torch.float32 for tensor in load_file(tmp_path/'final.safetensors').values())


# checkpoints

DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])

@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(st.characters(codec='utf-8', exclude_characters='\0'), min_size=1, max_size=8).filter(lambda name: name != '__metadata__'),
                       st.tuples(st.lists(st.integers(0, 4), max_size=3), DTYPES), max_size=4), st.integers(0, 10**7), st.text())
def test_checkpoint_round_trip(tmp_path, shapes, step, note):
    folder = tmp_path/f'{step} {len(list(tmp_path.iterdir()))}'
    tensors = {name: (100*torch.randn(shape)).to(dtype) for name, (shape, dtype) in shapes.items()}
    save_checkpoint(folder, tensors, {'step': step, 'note': note})
    found, state = load_checkpoint(folder)
    assert state == {'format': 1, 'step': step, 'note': note} and found.keys() == tensors.keys()
    assert all(found[name].dtype == tensors[name].dtype and torch.equal(found[name], tensors[name]) for name in tensors)

def test_shared_tensors_are_kept_under_both_names(tmp_path):
    table = torch.randn(4, 3)
    save_checkpoint(tmp_path, {'a': table, 'b': table, 'c': table[1:], 'd': table.T}, {'step': 1})
    found, _ = load_checkpoint(tmp_path)
    assert torch.equal(found['a'], table) and torch.equal(found['b'], table) and torch.equal(found['c'], table[1:]) and torch.equal(found['d'], table.T)

def test_old_checkpoints_go(tmp_path):
    for step in (5, 10, 999_999, 1_000_000): save_checkpoint(tmp_path, {'a': torch.ones(2)}, {'step': step}, keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {f'step-{step}.{kind}' for step in (999_999, 1_000_000) for kind in ('json', 'safetensors')}
    assert load_checkpoint(tmp_path)[1]['step'] == 1_000_000

def two_checkpoints(folder):
    for step in (1, 2): save_checkpoint(folder, {'weight': torch.full((50,), float(step))}, {'step': step})

@pytest.mark.fault(2)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_flipped_bit_is_found(tmp_path, data):
    folder = tmp_path/str(len(list(tmp_path.iterdir())))
    two_checkpoints(folder)
    file = folder/data.draw(st.sampled_from(['step-000002.safetensors', 'step-000002.json']))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        tensors, state = load_checkpoint(folder)
    # a flip in the JSON's white space or in the step that it tells people is harmless
    assert torch.equal(tensors['weight'], torch.full((50,), float(state['step'])))
    if file.suffix == '.safetensors': assert state['step'] == 1
    if state['step'] == 1: assert 'step-000002.safetensors is damaged' in str(caught[0].message)

@pytest.mark.fault(2)
@pytest.mark.parametrize('damage', ['cut', 'empty', 'missing'])
def test_damaged_checkpoint_is_named_and_passed_over(tmp_path, damage):
    two_checkpoints(tmp_path)
    file = tmp_path/'step-000002.safetensors'
    if damage == 'missing': file.unlink()
    else: file.write_bytes(file.read_bytes()[:0 if damage == 'empty' else 200])
    with pytest.warns(match='step-000002.safetensors is damaged'): assert load_checkpoint(tmp_path)[1]['step'] == 1
    (tmp_path/'step-000001.json').write_text('{')
    with pytest.warns(), pytest.raises(ValueError, match=r'no checkpoint is left.*step-000002.*step-000001.*[Dd]elete'): load_checkpoint(tmp_path)

def test_without_its_json_a_checkpoint_does_not_count(tmp_path):
    assert load_checkpoint(tmp_path) is None and load_checkpoint(tmp_path/'nowhere') is None
    two_checkpoints(tmp_path)
    (tmp_path/'step-000002.json').unlink()
    assert load_checkpoint(tmp_path)[1]['step'] == 1

@pytest.mark.fault(21)
def test_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('vlground.checkpoints.CHECKPOINT_FORMAT', 7)
    two_checkpoints(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match='version 7 is newer than version 1'): load_checkpoint(tmp_path)

@pytest.mark.fault(7)
def test_pickle_in_place_of_a_checkpoint_is_never_run(tmp_path):
    two_checkpoints(tmp_path)
    class Bomb:
        def __reduce__(self): return os.system, (f'touch {tmp_path/"boom"}',)
    torch.save({'weight': Bomb()}, tmp_path/'step-000002.safetensors')
    with pytest.warns(match='damaged'): assert load_checkpoint(tmp_path)[1]['step'] == 1
    assert not (tmp_path/'boom').exists()

def save_on_a_full_disk(folder):
    sys.stderr = open(folder/'told', 'w')
    save_checkpoint(folder, {'weight': torch.ones(10)}, {'step': 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    save_checkpoint(folder, {'weight': torch.ones(100_000)}, {'step': 2})

@pytest.mark.fault(3)
def test_disk_full(tmp_path):
    "A limit on the size of files stands for the full disk: the write fails half way."
    process = FORK.Process(target=save_on_a_full_disk, args=(tmp_path,))
    process.start(), process.join()
    told = (tmp_path/'told').read_text()
    assert process.exitcode == 1 and 'step-000002' in told and '400,000 bytes' in told
    assert {path.name for path in tmp_path.iterdir()} == {'step-000001.json', 'step-000001.safetensors', 'told'}
    assert load_checkpoint(tmp_path)[1]['step'] == 1


# resuming

@pytest.mark.fault(4)
@pytest.mark.parametrize('step', [3, 7, 8, 20, 39])
def test_resumed_run_ends_with_the_same_bits(tmp_path, whole, step):
    with pytest.raises(RuntimeError, match='gone'): run(tmp_path, make_batch=dies_at(step))
    run(tmp_path)
    assert same_end(tmp_path, whole)

def work(folder, pause, last):
    "Train, and write down each step that is begun; in step `last` wait to be killed."
    sys.stderr = open(folder.with_suffix('.told'), 'a', buffering=1)
    begun = open(folder.with_suffix('.steps'), 'a', buffering=1)
    def slow(step):
        print(step, file=begun)
        time.sleep(600 if step == last else pause)
        return make_batch(step)
    run(folder, make_batch=slow)

def start(folder, pause=0., last=None):
    folder.with_suffix('.steps').unlink(missing_ok=True)
    process = FORK.Process(target=work, args=(folder, pause, last), daemon=True)
    process.start()
    return process

def steps_of(folder): return [int(line) for line in folder.with_suffix('.steps').read_text().split('\n')[:-1]] if folder.with_suffix('.steps').exists() else []

def wait_for(process, folder, step):
    while not any(begun >= step for begun in steps_of(folder)):
        assert process.is_alive(), folder.with_suffix('.told').read_text()
        time.sleep(0.002)

@pytest.mark.fault(1)
def test_killed_at_random_moments(tmp_path, whole):
    "SIGKILL eight times, anywhere from the start of a step to the middle of a save; then left alone."
    moments, folder, saved = random.Random(5), tmp_path/'run', []
    for step in (2, 6, 7, 13, 14, 20, 27, 34):
        process = start(folder, 0.005, last=step + 3)
        wait_for(process, folder, step)
        time.sleep(moments.uniform(0, 0.02))
        process.kill(), process.join()
        assert process.exitcode == -signal.SIGKILL and not (folder/'summary.json').exists()
        saved.append(load_checkpoint(folder/'checkpoints')[1]['step'] if load_checkpoint(folder/'checkpoints') else 0)
    assert saved == sorted(saved) and saved[0] == 0 and saved[-1] >= 28
    last = start(folder)
    last.join()
    assert last.exitcode == 0 and steps_of(folder) == list(range(saved[-1], 40))
    assert same_end(folder, whole)
    assert not list(folder.rglob('.*'))

@pytest.mark.fault(1)
def test_what_a_kill_left_is_swept_up(tmp_path, whole):
    "Our own temporary files, and the hidden one through which safetensors may write."
    left = [tmp_path/'run'/name for name in ('.final.0123.part.safetensors', '.tmpAbCdEf', 'checkpoints/.step-000007.0123.part.safetensors', 'checkpoints/.tmpAbCdEf')]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'half')
    run(tmp_path/'run')
    assert not any(path.exists() for path in left) and same_end(tmp_path/'run', whole)


@pytest.mark.fault(6)
@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_asked_to_stop(tmp_path, whole, number, code):
    folder = tmp_path/'run'
    process = start(folder, 0.05)
    wait_for(process, folder, 10)
    os.kill(process.pid, number)
    process.join()
    step = load_checkpoint(folder/'checkpoints')[1]['step']
    assert process.exitcode == code and f'stopped by {number.name} after step {step} of 40' in folder.with_suffix('.told').read_text()
    assert step == steps_of(folder)[-1] + 1 and 11 <= step < 40 # the step that was begun was finished
    run(folder)
    assert (folder/'final.safetensors').read_bytes() == (whole/'final.safetensors').read_bytes()

@pytest.mark.fault(6)
@pytest.mark.parametrize('when', ['loading', 'evaluating', 'saving'])
def test_asked_to_stop_at_any_time(tmp_path, whole, monkeypatch, when):
    "A request that comes late in a step does not lose that step."
    def once(): # this process asks itself, one time
        if not asked: asked.append(os.kill(os.getpid(), signal.SIGTERM))
    asked, keywords = [], {}
    if when == 'loading': keywords['make_batch'] = lambda step: (step == 12 and once(), make_batch(step))[1]
    if when == 'evaluating': keywords['evaluate'] = lambda model: (once(), evaluate(model))[1]
    if when == 'saving':
        monkeypatch.setattr('vlground.checkpoints.sha256', lambda path: ('000007' in path.name and once(), sha256(path))[1])
    with pytest.raises(SystemExit): run(tmp_path, **keywords)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path/'checkpoints')[1]['step'] == {'loading': 13, 'evaluating': 10, 'saving': 7}[when]
    run(tmp_path)
    assert (tmp_path/'final.safetensors').read_bytes() == (whole/'final.safetensors').read_bytes()

@pytest.mark.fault(6)
def test_second_signal_stops_at_once(tmp_path):
    process = start(tmp_path/'run', 30)
    wait_for(process, tmp_path/'run', 0)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    assert process.is_alive() # it waits for the end of the step
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert process.exitcode == 1 and 'at once' in (tmp_path/'run.told').read_text()

def wait_with_a_worker(folder):
    def slow(step):
        if step == 3: (folder/'waiting').write_text(''), time.sleep(600)
        return make_batch(step)
    sys.stderr = open(folder.with_suffix('.told'), 'a', buffering=1)
    run(folder, make_batch=slow, workers=1)

@pytest.mark.fault(6)
def test_asked_to_stop_while_a_worker_is_slow(tmp_path):
    "Three steps are done, and the worker would take ten minutes for the next batch."
    process = FORK.Process(target=wait_with_a_worker, args=(tmp_path/'run',))
    process.start()
    while not (tmp_path/'run'/'waiting').exists(): time.sleep(.01)
    time.sleep(1)
    process.terminate()
    process.join(60)
    assert process.exitcode == 143 and 'stopped by SIGTERM after step 3 of 40' in (tmp_path/'run.told').read_text()
    assert load_checkpoint(tmp_path/'run'/'checkpoints')[1]['step'] == 3

@pytest.mark.fault(1)
def test_a_checkpoint_that_counts_is_never_written_again(tmp_path, monkeypatch):
    "A kill between its two files would spoil it, and there may be no other."
    written = []
    def save(self, model, optimizer, state, keep):
        written.append(state['step'])
        return before(self, model, optimizer, state, keep)
    before = RunFolder.save
    monkeypatch.setattr(RunFolder, 'save', save)
    for _ in range(2):
        with pytest.raises(RuntimeError): run(tmp_path, make_batch=dies_at(3)) # before the first that is due
    assert written == [0]
    def stops(step): # asked in the step that is saved anyway
        if step == 6: os.kill(os.getpid(), signal.SIGTERM)
        return make_batch(step)
    with pytest.raises(SystemExit): run(tmp_path, make_batch=stops)
    assert written == [0, 7]
    run(tmp_path)
    assert written == [0, *range(7, 41, 7), 40]

@pytest.mark.fault(6)
def test_handlers_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    run(tmp_path, config=replace(CONFIG, steps=2))
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), torch.get_num_threads())

def test_finished_run_is_read_back(tmp_path):
    model, summary = run(tmp_path)
    again, same = run(tmp_path, make_batch=dies_at(0))
    assert same == summary and all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
    file = tmp_path/'final.safetensors'
    file.write_bytes(file.read_bytes()[:-1] + b'x')
    with pytest.raises(ValueError, match='final.safetensors.*changed'): run(tmp_path)
    (tmp_path/'summary.json').unlink()
    assert run(tmp_path)[1]['sha256'] == summary['sha256']

@pytest.mark.fault(5)
def test_other_configuration_is_refused(tmp_path):
    with pytest.raises(RuntimeError): run(tmp_path, make_batch=dies_at(20), settings={'data': {'pairs': 100}})
    with pytest.raises(ValueError, match=r'train.learning_rate: 0.01 before, 0.5 now; data.pairs: 100 before, 200 now') as refused:
        run(tmp_path, config=replace(CONFIG, learning_rate=0.5), settings={'data': {'pairs': 200}})
    assert 'train.steps' not in str(refused.value) and 'accept_changes' in str(refused.value)
    with pytest.raises(ValueError, match='data.pairs: 100 before, nothing now'): run(tmp_path)
    run(tmp_path, accept_changes=True)
    assert json.loads((tmp_path/'config.json').read_text()) == {'train': asdict(CONFIG), 'processes': 1}

@pytest.mark.fault(2)
def test_damaged_newest_checkpoint_costs_only_its_steps(tmp_path, whole):
    with pytest.raises(RuntimeError): run(tmp_path, make_batch=dies_at(25))
    newest = tmp_path/'checkpoints'/'step-000021.safetensors'
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.warns(match='step-000021.safetensors is damaged'): run(tmp_path)
    assert same_end(tmp_path, whole)

@pytest.mark.fault(19)
@pytest.mark.parametrize('folder', ['with spaces', 'größe ☂', 'deep/er'])
def test_any_folder(tmp_path, folder, monkeypatch, whole):
    monkeypatch.chdir(tmp_path)
    run(Path(folder))
    assert same_end(tmp_path/folder, whole)


# what is not a number

class NanGradient(torch.autograd.Function):
    "The identity, whose gradient is NaN."
    @staticmethod
    def forward(ctx, x): return x.clone()
    @staticmethod
    def backward(ctx, gradient): return gradient*math.nan

def sick(bad_loss=(), bad_gradient=()):
    "The job with NaN in the loss or in the gradient of some steps."
    def make(step): return step, make_batch(step)
    def loss(model, batch):
        step, pair = batch
        parts = loss_fn(model, pair)
        if step in bad_loss: return parts | {'loss': parts['loss']*math.nan}
        if step in bad_gradient: return parts | {'loss': NanGradient.apply(parts['loss'])}
        return parts
    return dict(make_batch=make, loss_fn=loss)

@pytest.mark.fault(11)
def test_steps_without_a_number_are_skipped(tmp_path):
    _, summary = run(tmp_path, **sick({4, 5, 17}, {9, 18}))
    assert summary['skipped'] == 5 and summary['parts']['loss'] < 1.5
    lines = [line for line in read_log(tmp_path) if 'skipped' in line]
    assert [line['step'] for line in lines] == [5, 6, 10, 18, 19]
    assert 'loss is nan' in lines[0]['skipped'] and 'gradient' in lines[2]['skipped']
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path/'final.safetensors').values())

@pytest.mark.fault(11)
def test_a_skipped_step_changes_nothing(tmp_path):
    for name, keywords in (('loss', sick({2})), ('gradient', sick((), {2}))):
        before = run(tmp_path/f'{name} before', config=replace(CONFIG, steps=2, warmup=1.), **sick())[0]
        # three steps of which the last is skipped, at the same learning rates: those of a warm-up of twice the length, doubled
        after = run(tmp_path/name, config=replace(CONFIG, steps=3, warmup=1., learning_rate=1.5e-2), **keywords)[0]
        for a, b in zip(before.parameters(), after.parameters()): torch.testing.assert_close(a, b)

@pytest.mark.fault(11)
def test_the_run_stops_when_nothing_works_any_more(tmp_path):
    config = replace(CONFIG, max_skips=3)
    with pytest.raises(FloatingPointError, match='3 steps in a row.*12.*loss is nan'): run(tmp_path, config=config, **sick(set(range(9, 40))))
    assert [line['step'] for line in read_log(tmp_path) if 'skipped' in line] == [10, 11, 12]
    assert load_checkpoint(tmp_path/'checkpoints')[1]['step'] == 7
    # with the cause removed it goes on from there
    assert run(tmp_path, config=config, **sick())[1]['skipped'] == 0


# faults of what the loop is given

def parted(step, part=0, parts=1): # the batch, or a part of it
    return tuple(each[part*8//parts:(part + 1)*8//parts] for each in make_batch(step))

def raises_at(time): # an evaluation that fails the first `time`s
    def broken(model):
        tries.append(model.training)
        if len(tries) == time: raise LookupError('no gold labels')
        return evaluate(model)
    tries = []
    return broken

@pytest.mark.parametrize('time', [1, 3, 4])
def test_an_evaluation_that_fails_costs_no_more_than_a_kill(tmp_path, whole, time):
    with pytest.raises(LookupError): run(tmp_path, evaluate=raises_at(time))
    # the last one fails when all steps are taken: none of them is taken again
    def make(step): return dies_at(step)(step) if time == 4 else make_batch(step)
    model, summary = run(tmp_path, make_batch=make)
    assert same_end(tmp_path, whole) and summary['evaluation'] == evaluate(model.eval())
    assert summary['parts'] == json.loads((whole/'summary.json').read_text())['parts']

def test_a_model_is_left_in_training_mode_when_an_evaluation_fails(tmp_path):
    model = make_model()
    with pytest.raises(LookupError): train(model, make_batch, loss_fn, CONFIG, tmp_path, raises_at(1), progress='none')
    assert model.training

def test_figures_may_be_tensors(tmp_path):
    _, summary = run(tmp_path, evaluate=lambda model: {'one': torch.tensor(.5), 'none': torch.tensor(math.inf), 'name': 'x'})
    assert summary['evaluation'] == {'one': .5, 'none': None, 'name': 'x'}

BEST = replace(CONFIG, eval_every=10, best='score')
def scores(*values): # an evaluation that gives these, one after the other
    left = list(values)
    return lambda model: {'score': left.pop(0)}
def best_files(folder): return [path.name for path in folder.glob('best-*')]

@pytest.mark.parametrize('values, step', [((1, 3, 2, 0), 20), ((math.nan, -5, math.nan, -6), 20), ((0, 1, 2, 3), 40), ((2, 2, 2, 2), 10), ((math.nan,)*4, None)])
def test_best_weights(tmp_path, values, step):
    _, summary = run(tmp_path, config=BEST, evaluate=scores(*values))
    if step is None: assert summary['best'] is None and not best_files(tmp_path)
    else: assert summary['best']['step'] == step and summary['best']['value'] == values[step//10 - 1] and best_files(tmp_path) == [f'best-{step:06}.safetensors']

def test_best_weights_are_those_of_their_step(tmp_path):
    run(tmp_path/'all', config=BEST, evaluate=scores(1, 3, 2, 0))
    with pytest.raises(RuntimeError): run(tmp_path/'some', config=BEST, evaluate=scores(1, 3), make_batch=dies_at(25))
    run(tmp_path/'some', config=BEST, evaluate=scores(2, 0)) # resumed from step 21: the evaluation of step 20 is known
    best = [load_finished(model := make_model(), tmp_path/name, best=True)['best'] for name in ('all', 'some')]
    assert best[0] == best[1] and not torch.equal(model[0].weight, load_file(tmp_path/'all'/'final.safetensors')['0.weight'])

def test_a_best_figure_that_is_missing(tmp_path):
    with pytest.raises(ValueError, match="best='score', but the evaluation gives accuracy"): run(tmp_path, config=BEST)
    assert load_checkpoint(tmp_path/'checkpoints')[1]['step'] == 10
    with pytest.raises(ValueError, match="best='score' needs an evaluation"): run(tmp_path/'none', config=BEST, evaluate=None)
    # found out at the end: with the right name there is nothing left but to evaluate
    late = replace(BEST, eval_every=0)
    with pytest.raises(ValueError, match='gives accuracy'): run(tmp_path/'late', config=late)
    _, summary = run(tmp_path/'late', config=replace(late, best='accuracy'), make_batch=dies_at(0), accept_changes=True)
    assert summary['best']['value'] == summary['evaluation']['accuracy'] and summary['best']['step'] == 40

def test_another_figure_is_compared_from_its_own_start(tmp_path):
    run(tmp_path, config=BEST, evaluate=scores(9, 9, 9, 9))
    _, summary = run(tmp_path, config=replace(BEST, best='other', steps=60), evaluate=lambda model: {'other': -1}, accept_changes=True)
    assert summary['best'] == {'figure': 'other', **{name: summary['best'][name] for name in ('step', 'value', 'file', 'sha256')}} and summary['best']['step'] == 50
    assert best_files(tmp_path) == ['best-000050.safetensors']

def test_more_steps_go_on_from_the_last_one(tmp_path):
    run(tmp_path)
    begun = []
    def make(step):
        begun.append(step)
        return make_batch(step)
    _, summary = run(tmp_path, config=replace(CONFIG, steps=50), make_batch=make, accept_changes=True)
    assert begun == list(range(40, 50)) and summary['steps'] == 50
    with pytest.raises(ValueError, match='of step 50, and 30 steps'): run(tmp_path, config=replace(CONFIG, steps=30), accept_changes=True)

@pytest.mark.parametrize('warmup', [0., .1, .9, 1.])
def test_one_step(tmp_path, warmup):
    _, summary = run(tmp_path, config=replace(CONFIG, steps=1, warmup=warmup))
    assert summary['steps'] == 1 and [line['step'] for line in read_log(tmp_path)] == [1, 1]

@pytest.mark.parametrize('wrong, told', [(dict(steps=1e3), 'whole number'), (dict(accumulate=2.), 'whole number'), (dict(threads='two'), 'whole number'), (dict(optimizer='sgd'), 'adamw or bert-adam')])
def test_config_refuses_kinds(wrong, told):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))}.*{told}'): TrainConfig(**wrong)

def test_settings_that_would_hide_the_configuration(tmp_path):
    with pytest.raises(ValueError, match='settings must not hold train or processes'): run(tmp_path, settings={'train': {'steps': 7}})

def test_other_factors_of_the_rate_are_another_run(tmp_path):
    "The numbers of the weights in a checkpoint follow the groups."
    with pytest.raises(RuntimeError): run(tmp_path, make_batch=dies_at(20), rate_of=lambda name: .1 if name.startswith('0') else 1.)
    with pytest.raises(ValueError, match='rates'): run(tmp_path, rate_of=lambda name: 1.)


# parts, workers, threads, two runs in one process

@pytest.mark.parametrize('accumulate, workers', [(1, 2), (4, 0), (4, 2)])
def test_parts_and_workers(tmp_path, accumulate, workers):
    "Workers change no bit, and parts none but the last; killed and resumed in all cases."
    still = replace(CONFIG, accumulate=accumulate)
    def model(): return make_model() if accumulate == 1 else nn.Sequential(*(each for each in make_model() if not isinstance(each, nn.Dropout)))
    def once(name, accumulate, workers, make=parted):
        train(trained := model(), make, loss_fn, replace(still, accumulate=accumulate), tmp_path/name, evaluate, progress='none', workers=workers)
        return trained
    def dies(step, *part):
        if step == 19: raise RuntimeError('the data set is gone')
        return parted(step, *part)
    expected, alike = once('whole', 1, 0), once('parts', accumulate, 0)
    for a, b in zip(expected.parameters(), alike.parameters()): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    with pytest.raises(RuntimeError, match='gone'): once('killed', accumulate, workers, dies)
    once('killed', accumulate, workers)
    assert same_end(tmp_path/'killed', tmp_path/'parts')

def test_parts_must_divide_the_batch(tmp_path):
    with pytest.raises(ValueError, match='batch of 8 .* accumulate=3'): run(tmp_path, config=replace(CONFIG, accumulate=3))

def test_the_same_model_twice(tmp_path, whole):
    "A model that lost steps spoilt begins again with the weights that it had."
    model = make_model()
    for step in (2, 5):
        with pytest.raises(RuntimeError): run_with(model, tmp_path, dies_at(step))
    run_with(model, tmp_path, make_batch)
    assert same_end(tmp_path, whole)

def run_with(model, folder, make): return train(model, make, loss_fn, CONFIG, folder, evaluate, progress='none')

def test_in_a_thread(tmp_path, whole):
    thread = threading.Thread(target=run, args=(tmp_path,))
    thread.start(), thread.join()
    assert same_end(tmp_path, whole)

@pytest.mark.parametrize('number, kind', [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_asked_to_stop_in_the_last_step(tmp_path, whole, capfd, number, kind):
    "The run is finished, and the request is not forgotten: what comes after the training is not begun."
    def make(step):
        if step == 39: os.kill(os.getpid(), number)
        return make_batch(step)
    with pytest.raises(kind): run(tmp_path, make_batch=make)
    assert same_end(tmp_path, whole) and f'stopped by {number.name} after step 40 of 40, all of it saved; the run is finished' in capfd.readouterr().err
    run(tmp_path, make_batch=dies_at(0))

def test_asked_to_stop_before_the_first_step(tmp_path, whole, monkeypatch):
    monkeypatch.setattr('vlground.training.Training.measure', lambda self: self.state['step'] or os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match='after step 0 of 40'): run(tmp_path)
    monkeypatch.undo()
    run(tmp_path)
    assert same_end(tmp_path, whole)


# memory

def test_out_of_memory_names_the_settings(tmp_path):
    def greedy(model, batch): return {'loss': loss_fn(model, batch)['loss'] + torch.empty(10**15).sum()}
    with pytest.raises(MemoryError, match=r'out of memory on cpu in step 1, .*accumulate.*batch_size.*bfloat16.*accept_changes'): run(tmp_path, loss_fn=greedy)

@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('empty', [np.empty, torch.empty])
def test_out_of_memory_in_a_batch(tmp_path, empty, workers):
    def greedy(step):
        if step == 2: empty(10**15)
        return make_batch(step)
    with pytest.raises(MemoryError, match='out of memory while the batch of step 3 was made; lower workers'): run(tmp_path, make_batch=greedy, workers=workers)

def test_out_of_memory_in_the_evaluation(tmp_path):
    with pytest.raises(MemoryError, match='in the evaluation after step 10; evaluate fewer'): run(tmp_path, evaluate=lambda model: {'x': torch.empty(10**15).sum()})

def test_another_runtime_error_is_left_alone(tmp_path):
    with pytest.raises(RuntimeError, match='^the data set is gone$'): run(tmp_path, make_batch=dies_at(3))


# processes started by torchrun

SCRIPT = '''
import os, signal, sys, time, torch
from torch import nn
sys.path.insert(0, {tests!r})
from test_training import CONFIG, loss_fn, parted, replace
from vlground.training import joined_processes, mean_over_processes, this_process, train

how, folder = sys.argv[1:]
def make_batch(step, part, parts):
    first = this_process()[0] == 0
    if how != 'whole' and step == 20: open(folder + f'.{{part}}', 'w').close()
    if how == 'slow': time.sleep(.1)
    if how == 'kill' and step == 20 and not first: os.kill(os.getpid(), signal.SIGKILL)
    x, y = parted(step, part, parts)
    if how == 'sick' and step in (3, 4) and not first: return x, y, float('nan')
    return x, y, 1.

def loss(model, batch): return {{'loss': loss_fn(model, batch)['loss']*batch[2]}}

torch.set_num_threads(1)
with joined_processes('cpu') as device:
    rank, count = this_process()
    assert count == 2 and mean_over_processes(torch.tensor([float(rank)])).item() == .5
    torch.manual_seed(rank) # the first process's weights are everybody's
    model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 20)).to(device)
    train(model, make_batch, loss, replace(CONFIG, accumulate=2 if how == 'parts' else 1), folder, lambda model: {{'rank': rank}}, progress='none')
'''

def two_processes(tmp_path, how, folder):
    (tmp_path/'script.py').write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', str(tmp_path/'script.py'), how, str(folder)]
    return subprocess.Popen(command, env=os.environ | {'OMP_NUM_THREADS': '1'}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def ended(process) -> str:
    _, told = process.communicate(timeout=240)
    return told

def alone(folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 20))
    train(model, parted, loss_fn, CONFIG, folder, progress='none')
    return load_file(folder/'final.safetensors')

@pytest.fixture(scope='module')
def pair(tmp_path_factory): # a run of two processes that nothing disturbed
    folder = tmp_path_factory.mktemp('pair')
    process = two_processes(folder, 'whole', folder/'run')
    told = ended(process)
    assert process.returncode == 0, told
    return folder/'run'

def test_two_processes_take_the_steps_of_one(tmp_path, pair):
    one, both = alone(tmp_path/'one'), load_file(pair/'final.safetensors')
    for name in one: torch.testing.assert_close(both[name], one[name], rtol=1e-3, atol=1e-4)
    lines = [[line for line in read_log(folder) if 'parts' in line] for folder in (tmp_path/'one', pair)]
    assert [line['step'] for line in lines[0]] == [line['step'] for line in lines[1]]
    assert all(a['parts']['loss'] == pytest.approx(b['parts']['loss'], abs=1e-4) for a, b in zip(*lines))
    assert json.loads((pair/'summary.json').read_text())['evaluation'] == {'rank': 0} and json.loads((pair/'config.json').read_text())['processes'] == 2
    with pytest.raises(ValueError, match='processes: 2 before, 1 now'): train(make_model(), parted, loss_fn, CONFIG, pair, progress='none')

def wait_for_file(path, process):
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(.01)

def test_two_processes_of_which_one_dies_and_that_are_asked_to_stop(tmp_path, pair):
    "One is killed at step 20; begun again, torchrun is asked to stop; begun once more, they end with the bits of the undisturbed pair."
    process = two_processes(tmp_path, 'kill', tmp_path/'run')
    told = ended(process)
    assert process.returncode != 0 and load_checkpoint(tmp_path/'run'/'checkpoints')[1]['step'] in (14, 20, 21), told
    for each in (0, 1): (tmp_path/f'run.{each}').unlink(missing_ok=True)

    process = two_processes(tmp_path, 'slow', tmp_path/'run')
    wait_for_file(tmp_path/'run.1', process)
    process.terminate()
    told = ended(process)
    step = load_checkpoint(tmp_path/'run'/'checkpoints')[1]['step']
    assert 20 <= step < 40 and f'stopped by SIGTERM after step {step} of 40' in told, told

    process = two_processes(tmp_path, 'whole', tmp_path/'run')
    told = ended(process)
    assert process.returncode == 0, told
    assert (tmp_path/'run'/'final.safetensors').read_bytes() == (pair/'final.safetensors').read_bytes()

def test_a_loss_that_one_of_two_processes_finds_broken_is_skipped_by_both(tmp_path):
    process = two_processes(tmp_path, 'sick', tmp_path/'run')
    told = ended(process)
    assert process.returncode == 0, told
    assert [line['step'] for line in read_log(tmp_path/'run') if 'skipped' in line] == [4, 5]
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path/'run'/'final.safetensors').values())

def test_two_processes_in_parts(tmp_path, pair):
    process = two_processes(tmp_path, 'parts', tmp_path/'run')
    told = ended(process)
    assert process.returncode == 0, told
    one, both = load_file(pair/'final.safetensors'), load_file(tmp_path/'run'/'final.safetensors')
    for name in one: torch.testing.assert_close(both[name], one[name], rtol=1e-3, atol=1e-4)
