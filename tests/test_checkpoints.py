"Checkpoints and the folder of a run: what is left after a kill at any moment, what is found of damage, and what is refused."
import json
import math
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from vlground.checkpoints import RunFolder, config_from, differences, load_checkpoint, load_finished, restore, run_tensors, save_checkpoint, weights_sha256
from vlground.core import load_json, save_json, sha256


def steps_in(folder): return sorted({int(path.stem.removeprefix('step-')) for path in Path(folder).glob('step-*.json')})
def save(folder, step, keep=2): return save_checkpoint(folder, {'weight': torch.full((50,), float(step))}, {'step': step}, keep)
def damage(path): path.write_bytes(path.read_bytes()[:-1] + b'x')

def make(seed=0, sizes=(3, 4, 2)):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.Tanh(), nn.Linear(sizes[1], sizes[2]))
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

def steps(model, optimizer, first, last):
    for step in range(first, last):
        x = torch.randn(8, model[0].in_features, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


# a kill at any moment

class Killed(BaseException): "Not an Exception: nothing that handles errors may handle a kill."

def killed_at(moment, work, monkeypatch):
    "Do some work; from the moment-th change of the disk on nothing more is done to it. True if the work ended before."
    left = [moment]
    def dying(function):
        def call(*arguments, **keywords):
            left[0] -= 1
            if left[0] < 0: raise Killed
            return function(*arguments, **keywords)
        return call
    with monkeypatch.context() as patched:
        for name in ('replace', 'fsync', 'unlink', 'mkdir'): patched.setattr(os, name, dying(getattr(os, name)))
        try: work()
        except Killed: return False
    return True

def every_moment(work, check, folder, monkeypatch):
    "Try a piece of work on copies of a folder, killed before each of its changes of the disk, and look at what is left."
    for moment in range(100):
        copy = folder.with_name(f'{folder.name}-{moment}')
        shutil.copytree(folder, copy)
        ended = killed_at(moment, lambda: work(copy), monkeypatch)
        check(copy, ended)
        if ended: return moment
    raise AssertionError('it never ended')

@pytest.mark.fault(1)
@pytest.mark.parametrize('keep', [1, 2])
def test_a_save_killed_at_any_moment(tmp_path, monkeypatch, keep):
    folder = tmp_path/'saves'
    for step in (1, 2): save(folder, step, keep)
    def check(copy, ended):
        with warnings.catch_warnings():
            warnings.simplefilter('error') # nothing is damaged
            tensors, state = load_checkpoint(copy)
        assert state['step'] in ((3,) if ended else (2, 3)) and torch.equal(tensors['weight'], torch.full((50,), float(state['step'])))
        save(copy, 4, keep) # and it goes on
        assert load_checkpoint(copy)[1]['step'] == 4 and len(steps_in(copy)) == keep
        assert len(list(copy.glob('step-*'))) == 2*keep, 'a kill left a file that nobody deletes'
    assert every_moment(lambda copy: save(copy, 3, keep), check, folder, monkeypatch) >= 8

@pytest.mark.fault(1)
def test_the_same_step_saved_again_and_killed(tmp_path, monkeypatch):
    "Between the two files the old checksum stands beside the new tensors: the checkpoint before counts."
    folder = tmp_path/'saves'
    for step in (1, 2): save(folder, step)
    def again(copy): save_checkpoint(copy, {'weight': torch.zeros(50)}, {'step': 2})
    def check(copy, ended):
        with warnings.catch_warnings(record=True):
            warnings.simplefilter('always')
            tensors, state = load_checkpoint(copy)
        assert tensors['weight'].unique().tolist() in ([[0.]] if ended else [[0.], [float(state['step'])]])
    every_moment(again, check, folder, monkeypatch)

@pytest.mark.fault(1)
def test_a_run_killed_at_any_moment_of_its_end(tmp_path, monkeypatch):
    run, (model, optimizer) = RunFolder(tmp_path/'run'), make()
    run.begin({'a': 1})
    steps(model, optimizer, 0, 3)
    run.save(model, optimizer, {'step': 3})
    def check(copy, ended):
        assert RunFolder(copy).finished == (copy/'summary.json').exists()
        if RunFolder(copy).finished: assert load_finished(reader := make(1)[0], copy)['steps'] == 3 and weights_sha256(reader) == weights_sha256(model)
        else: assert not ended and RunFolder(copy).restore(*make(1))['step'] == 3
        RunFolder(copy).begin({'a': 1})
        assert not list(copy.rglob('.*'))
    every_moment(lambda copy: RunFolder(copy).finish(model, {'steps': 3}), check, run.path, monkeypatch)

@pytest.mark.fault(1)
def test_best_weights_killed_at_any_moment(tmp_path, monkeypatch):
    "Whatever the checkpoint names as the best is there, with the bytes that it had."
    run, (model, optimizer) = RunFolder(tmp_path/'run'), make()
    run.save(model, optimizer, {'step': 1, 'best': run.save_best(model, 1, .5)})
    def work(copy): RunFolder(copy).save(model, optimizer, {'step': 2, 'best': RunFolder(copy).save_best(model, 2, .6)})
    def check(copy, ended):
        best = RunFolder(copy).restore(*make())['best']
        assert sha256(copy/best['file']) == best['sha256'] and best['step'] in ((2,) if ended else (1, 2))
        if ended: assert [path.name for path in copy.glob('best-*')] == ['best-000002.safetensors']
    every_moment(work, check, run.path, monkeypatch)


# rotation

def test_rotation_keeps_what_was_just_saved(tmp_path):
    "After going back past a damaged checkpoint, that one is newer by number; it must not push out the new one."
    for step in (7, 14, 21): save(tmp_path, step, keep=2)
    damage(tmp_path/'step-000021.safetensors')
    with pytest.warns(match='step-000021'): assert load_checkpoint(tmp_path)[1]['step'] == 14
    save(tmp_path, 16, keep=1)
    assert steps_in(tmp_path) == [16] and len(list(tmp_path.iterdir())) == 2
    assert load_checkpoint(tmp_path)[1]['step'] == 16

@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2_000_000), min_size=1, max_size=6, unique=True).map(sorted), st.integers(1, 4))
def test_rotation(tmp_path_factory, numbers, keep):
    folder = tmp_path_factory.mktemp('saves')
    for step in numbers: save(folder, step, keep)
    assert steps_in(folder) == numbers[-keep:] and load_checkpoint(folder)[1]['step'] == numbers[-1]

def test_strange_files_are_left_alone(tmp_path):
    save(tmp_path, 1)
    for name in ('step-000001 (copy).json', 'step-latest.json', 'notes.txt', 'step-.json'): (tmp_path/name).write_text('mine')
    save(tmp_path, 2, keep=1)
    assert load_checkpoint(tmp_path)[1]['step'] == 2
    assert {'step-000001 (copy).json', 'step-latest.json', 'notes.txt', 'step-.json'} < {path.name for path in tmp_path.iterdir()}

@pytest.mark.fault(3)
def test_a_save_that_fails_deletes_nothing(tmp_path, monkeypatch):
    for step in (1, 2): save(tmp_path, step)
    def full(tensors, path, metadata):
        Path(path).write_bytes(b'half')
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr('vlground.checkpoints.save_file', full)
    with pytest.raises(OSError, match=r'step-000003.json: the checkpoint of 200 bytes could not be written .*No space left'): save(tmp_path, 3, keep=1)
    assert steps_in(tmp_path) == [1, 2] and len(list(tmp_path.iterdir())) == 4

@pytest.mark.fault(3)
def test_weights_that_cannot_be_written_are_told_of(tmp_path, monkeypatch):
    def full(tensors, path): raise SafetensorError('I/O error: No space left on device')
    monkeypatch.setattr('vlground.checkpoints.save_file', full)
    run, model = RunFolder(tmp_path), nn.Linear(4, 4)
    for write, name in ((lambda: run.finish(model, {}), 'final'), (lambda: run.save_best(model, 3, .5), 'best-000003')):
        with pytest.raises(OSError, match=rf'{name}.safetensors: the weights of 80 bytes could not be written .*No space left'): write()
    assert not list(tmp_path.iterdir())


# damage

@pytest.mark.fault(2)
@pytest.mark.parametrize('content', ['', '{', '[]', '3', '{"step": 2}', '{"sha256": null}', '\xff'])
def test_a_damaged_json_is_passed_over(tmp_path, content):
    for step in (1, 2): save(tmp_path, step)
    (tmp_path/'step-000002.json').write_bytes(content.encode('latin-1'))
    with pytest.warns(match='step-000002.safetensors is damaged'): assert load_checkpoint(tmp_path)[1]['step'] == 1

@pytest.mark.fault(2)
def test_foreign_files_with_a_fitting_checksum(tmp_path):
    "A pickle that would run code, a safetensors file of another program: named and passed over, and nothing runs."
    class Gift:
        def __reduce__(self): return os.mkdir, (str(tmp_path/'ran'),)
    torch.save({'weight': Gift()}, tmp_path/'pickle')
    from safetensors.torch import save_file
    save_file({'weight': torch.ones(3)}, tmp_path/'other')
    for name in ('pickle', 'other'):
        folder = tmp_path/f'{name} saves'
        for step in (1, 2): save(folder, step)
        shutil.copy(tmp_path/name, folder/'step-000002.safetensors')
        save_json({'step': 2, 'sha256': sha256(tmp_path/name)}, folder/'step-000002.json')
        with pytest.warns(match='step-000002.safetensors is damaged'): assert load_checkpoint(folder)[1]['step'] == 1
    assert not (tmp_path/'ran').exists()

def test_state_must_be_plain(tmp_path):
    with pytest.raises(TypeError): save_checkpoint(tmp_path, {}, {'step': 1, 'model': object()})
    with pytest.raises(KeyError, match='step'): save_checkpoint(tmp_path, {}, {'seconds': 1.})
    assert not list(tmp_path.iterdir())


# what a step changes

@pytest.mark.fault(4)
@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4)), st.integers(0, 6), st.integers(0, 5))
def test_resumed_to_the_bit(tmp_path_factory, sizes, before, after):
    folder = tmp_path_factory.mktemp('saves')
    model, optimizer = make(1, sizes)
    steps(model, optimizer, 0, before)
    save_checkpoint(folder, run_tensors(model, optimizer), {'step': before})
    other, fresh = make(2, sizes)
    restore(other, fresh, load_checkpoint(folder)[0])
    for pair in ((model, optimizer), (other, fresh)): steps(*pair, before, before + after)
    assert weights_sha256(model) == weights_sha256(other)
    assert all(torch.equal(tensor, run_tensors(other, fresh)[name]) for name, tensor in run_tensors(model, optimizer).items())

def test_restoring_keeps_the_rate_and_copies(tmp_path):
    model, optimizer = make()
    steps(model, optimizer, 0, 2)
    file = save_checkpoint(tmp_path, run_tensors(model, optimizer), {'step': 2}).with_suffix('.safetensors')
    before = file.read_bytes()
    other, fresh = make(1)
    fresh.param_groups[0]['lr'] = .5
    restore(other, fresh, load_checkpoint(tmp_path)[0])
    assert fresh.param_groups[0]['lr'] == .5
    steps(other, fresh, 2, 4) # it does not write into the file
    assert file.read_bytes() == before and load_checkpoint(tmp_path)[1]['step'] == 2

def test_what_was_restored_from_stays():
    model, optimizer = make()
    steps(model, optimizer, 0, 2)
    tensors = {name: tensor.clone() for name, tensor in run_tensors(model, optimizer).items()}
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    other, fresh = make(1)
    restore(other, fresh, tensors)
    steps(other, fresh, 2, 4)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in kept.items())

def test_fingerprint():
    model, _ = make()
    before = weights_sha256(model)
    assert len(before) == 64 and weights_sha256(make()[0]) == before != weights_sha256(make(1)[0])
    with torch.no_grad(): model[0].weight[0, 0] = torch.nextafter(model[0].weight[0, 0], torch.tensor(math.inf)) # one bit
    assert weights_sha256(model) != before
    same = nn.Sequential(nn.Sequential(*make()[0])) # other names
    assert weights_sha256(same) != before
    mixed = nn.Module()
    for name, dtype in (('a', torch.bfloat16), ('b', torch.int64), ('c', torch.bool)): mixed.register_buffer(name, torch.ones(2, 3).T.to(dtype))
    mixed.register_buffer('scalar', torch.tensor(3.))
    assert len(weights_sha256(mixed)) == 64


# configurations

PLAIN = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4) | st.lists(st.integers(), max_size=2),
                     lambda inner: st.dictionaries(st.text('abc', min_size=1, max_size=2), inner, max_size=3), max_leaves=8)
CONFIGS = st.dictionaries(st.text('abc', min_size=1, max_size=2), PLAIN, max_size=4)

@given(CONFIGS, CONFIGS)
def test_differences(a, b):
    assert differences(a, a) == differences(b, json.loads(json.dumps(b))) == []
    assert len(differences(a, b)) == len(differences(b, a))
    assert all(' before, ' in said and said.endswith(' now') for said in differences(a, b))

@given(CONFIGS, st.integers())
def test_one_changed_key_is_named(config, value):
    assert differences({'x': {'y': value, 'z': config}}, {'x': {'y': value + 1, 'z': config}}) == [f'x.y: {str(value)[:40]} before, {str(value + 1)[:40]} now']

@dataclass(frozen=True)
class Small:
    size: int = 3
    rate: float = .1

def test_config_from():
    assert config_from(Small, {}) == Small() and config_from(Small, {'rate': 1.}) == Small(rate=1.)
    with pytest.raises(ValueError, match=r"the configuration: Small has no 'sise', 'x'; it has size, rate"): config_from(Small, {'sise': 1, 'x': 2})


@dataclass(frozen=True)
class Varied:
    size: int = 3
    rate: float = .1
    name: str = 'a'
    fast: bool = False
    cap: int | None = None
    sides: tuple[int, ...] = (1, 2)

def test_values_of_the_right_type_are_taken():
    for values in (dict(rate=1), dict(rate=1e-3), dict(cap=None), dict(cap=3), dict(fast=True), dict(sides=[3]), dict(size=2, name='')): assert config_from(Varied, values) == Varied(**values)

@pytest.mark.parametrize('values, told', [
    (dict(rate='2e-3'), "rate must be a number, got '2e-3'"), (dict(rate=True), 'rate must be a number, got True'), (dict(size=2.5), 'size must be a whole number, got 2.5'),
    (dict(size=True), 'size must be a whole number, got True'), (dict(size=None), 'size must be a whole number, got None'), (dict(cap='x'), "cap must be a whole number or null, got 'x'"),
    (dict(name=1), 'name must be text, got 1'), (dict(fast=1), 'fast must be true or false, got 1'), ([], r'expected an object with fields of Varied, got \[\]'), ('x', "expected an object.*got 'x'")])
def test_values_of_another_type_are_named(values, told):
    with pytest.raises(ValueError, match=f'^my.json: {told}$'): config_from(Varied, values, 'my.json')


# the folder of a run

def test_folder_that_is_a_file(tmp_path):
    (tmp_path/'run').write_text('')
    with pytest.raises(NotADirectoryError, match='run: a file; name a folder'): RunFolder(tmp_path/'run')

@pytest.mark.fault(19)
@pytest.mark.parametrize('name', ['with spaces', 'größe ☂', 'deep/er'])
def test_any_folder(tmp_path, name):
    run, pair = RunFolder(tmp_path/name), make()
    run.save(*pair, {'step': 0})
    assert run.restore(*make(1))['step'] == 0 and not run.finished

def test_changed_compares_as_json(tmp_path):
    run = RunFolder(tmp_path)
    run.begin({'sizes': (1, 2), 'train': {'steps': 3}})
    assert not run.changed({'train': {'steps': 3}, 'sizes': (1, 2)}) # order, and tuples, do not matter
    with pytest.raises(ValueError, match=r'config.json.*train.steps: 3 before, 4 now.*accept_changes'): run.changed({'sizes': (1, 2), 'train': {'steps': 4}})
    assert run.changed({}, accept=True) and load_json(tmp_path/'config.json')['train'] == {'steps': 3} # to compare changes nothing

@pytest.mark.fault(1)
def test_begin_sweeps_only_what_is_half_written(tmp_path):
    run, pair = RunFolder(tmp_path), make()
    run.save(*pair, {'step': 1})
    swept = [tmp_path/'.final.01ab.part.safetensors', tmp_path/'.tmpAbCd', tmp_path/'checkpoints'/'.step-000002.01ab.part.safetensors', tmp_path/'checkpoints'/'.tmpX']
    kept = [tmp_path/'.gitignore', tmp_path/'log.jsonl', tmp_path/'checkpoints'/'step-000001.json']
    for path in (*swept, *kept[:2]): path.write_text('x')
    run.begin({})
    assert all(path.exists() for path in kept) and not any(path.exists() for path in swept)

def test_another_model_is_refused(tmp_path):
    run, pair = RunFolder(tmp_path), make()
    steps(*pair, 0, 1)
    run.save(*pair, {'step': 1})
    with pytest.raises(ValueError, match=r'of another model \(size mismatch for 0.weight.*choose another folder'): run.restore(*make(sizes=(3, 5, 2)))
    other = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r'of another model \(Missing key'): run.restore(other, torch.optim.AdamW(other.parameters()))

def test_load_finished(tmp_path):
    run, (model, optimizer) = RunFolder(tmp_path), make()
    with pytest.raises(FileNotFoundError, match='summary.json'): load_finished(model, tmp_path)
    summary = run.finish(model, {'steps': 0})
    assert summary['sha256'] == sha256(tmp_path/'final.safetensors') and load_finished(make(1)[0], tmp_path) == summary == load_json(tmp_path/'summary.json')
    with pytest.raises(ValueError, match='kept no best weights'): load_finished(model, tmp_path, best=True)
    best = run.save_best(make(2)[0], 5, .5)
    run.finish(model, {'steps': 9, 'best': best})
    load_finished(reader := make(3)[0], tmp_path, best=True)
    assert weights_sha256(reader) == weights_sha256(make(2)[0])
    damage(tmp_path/best['file'])
    with pytest.raises(ValueError, match='best-000005.safetensors: missing or changed'): load_finished(reader, tmp_path, best=True)
    assert load_finished(reader, tmp_path)['steps'] == 9 # the last weights are whole
    (tmp_path/'final.safetensors').unlink()
    with pytest.raises(ValueError, match='final.safetensors: missing or changed.*delete'): load_finished(reader, tmp_path)

def test_tied_weights_and_views(tmp_path):
    table = torch.randn(4, 3)
    save_checkpoint(tmp_path, {'a': table, 'b': table, 'c': table[1:], 'd': table.T, 'e': table[:, 1]}, {'step': 1})
    found = load_file(tmp_path/'step-000001.safetensors')
    assert torch.equal(found['a'], table) and torch.equal(found['b'], table) and torch.equal(found['c'], table[1:])
    assert torch.equal(found['d'], table.T) and torch.equal(found['e'], table[:, 1])
