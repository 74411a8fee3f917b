"A store that is far away: tar shards, fetching, one cache for many processes, an order by shards, and a pre-training that comes to the same bits."
import io
import os
import pickle
import shlex
import tarfile
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from killing import begin, finish, kill, wait_until
from ragged import ragged_ids, ragged_store

from vlground import batches as batches_module
from vlground.core import load_json, save_json, sha256, torch_rng
from vlground.loading import Sampler, batches_ahead
from vlground.pretrain import PRESETS, pretrain
from vlground.shards import read_manifest
from vlground.store import Store
from vlground.webdata import export_tar
from vlground.webstore import ShardSampler, StreamedStore, fetch_file, lanes_for, least_in_lane, open_store, tar_tensors

IDS = ragged_ids(46) # ten shards of 5, the last one of 1
NAMES = [f'shard-{number:05}.tar' for number in range(10)]


@pytest.fixture(scope='module')
def plain(tmp_path_factory): return ragged_store(tmp_path_factory.mktemp('store')/'s', len(IDS), 5)


@pytest.fixture
def near(plain, tmp_path): return export_tar(plain, tmp_path/'near it', quiet=True) # a blank in its path


@pytest.fixture
def far(near):
    "The tar files are moved away; a command that notes each name and copies the file."
    folder = near.parent/'far; away'
    folder.mkdir()
    for path in near.glob('*.tar'): path.rename(folder/path.name)
    (near.parent/'fetch.sh').write_text(f'echo $1 >> {shlex.quote(str(near.parent/"log"))}\nsleep ${{3:-0}}\ncp {shlex.quote(str(folder))}/$1 "$2"\n')
    return folder


def command(near, wait=0): return f'sh {shlex.quote(str(near.parent/"fetch.sh"))} {{name}} {{path}} {wait}'
def fetched(near): return (near.parent/'log').read_text().split() if (near.parent/'log').exists() else []
def files(folder): return sorted(path.name for path in folder.glob('*/*') if not path.name.endswith('.lock'))


def opened(near, **changes): return StreamedStore(near, **dict(fetch=command(near), cache=near.parent/'cache', keep=3, cached=20, tries=1) | changes)


def same_records(ours, theirs, which=range(46)):
    for i in which:
        a, b = ours.view(i), theirs.view(i)
        assert a.size == b.size and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(a[:5], b[:5]))


# the store

def test_tar_files_that_are_here_need_no_command(near, plain):
    store = StreamedStore(near)
    assert (store.ids, store.errors, store.index, store.classes, len(store), store.feature_width) == (plain.ids, plain.errors, plain.index, plain.classes, 46, 6)
    same_records(store, plain)
    for number in range(10):
        ours, theirs = store._shard(number), plain._shard(number)
        assert ours.keys() == theirs.keys() and all(ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in theirs)
    assert store.verify() == [] and not (near.parent/'cache').exists()


def test_everything_that_a_store_can_do(near, far, plain):
    store = opened(near)
    ours, theirs = store.get(IDS[11]), plain.get(IDS[11])
    assert ours.size == theirs.size and all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in ('boxes', 'features', 'class_probs'))
    assert len(store[3:9]) == 6 and torch.equal(store[-1].boxes, plain[-1].boxes)
    for a, b in zip(store.batch([45, 0, 7, 22, 1]), plain.batch([45, 0, 7, 22, 1])): assert torch.equal(a, b)
    assert store.batch([3, 4], targets=False).targets is None
    for bad in (46, -47):
        with pytest.raises(IndexError, match='no record'): store.view(bad)
    with pytest.raises(IndexError, match='positions must be in'): store.batch([46])
    with pytest.raises(KeyError, match="no picture with the id 'x'"): store.get('x')


@pytest.fixture(scope='module')
def tars(plain, tmp_path_factory): return export_tar(plain, tmp_path_factory.mktemp('tars')/'t', quiet=True)


@given(st.lists(st.lists(st.integers(0, 45), min_size=1, max_size=6), max_size=12), st.integers(1, 5))
@settings(max_examples=25)
def test_memory_is_bounded_and_drops_what_was_used_longest_ago(plain, tars, steps, keep):
    store, memory, loads = StreamedStore(tars, keep=keep), [], 0
    for turn, step in enumerate(steps):
        if turn % 2: same_records(store, plain, step)
        else: store.batch(step)
        for number in [i//5 for i in step] if turn % 2 else sorted({i//5 for i in step}):
            loads += number not in memory
            memory = [*(each for each in memory if each != number), number][-keep:]
        assert list(store._shards) == memory and set(store._arrays) <= set(memory) and store.loads == loads


def test_a_store_travels_with_its_settings_and_without_its_shards(near, far, plain):
    store = opened(near, keep=4, cached=7, tries=2, patience=9.)
    store.view(0)
    store.keep = 6 # as the batches of a training set it
    again = pickle.loads(pickle.dumps(store))
    assert type(again) is StreamedStore and (again.keep, again.cached, again.tries, again.patience, again.fetch, again.cache) == (6, 7, 2, 9., store.fetch, store.cache)
    assert again.loads == 0 and not again._shards and len(pickle.dumps(store)) < 2000
    same_records(again, plain, [0, 45])


def test_the_cache_is_bounded_and_each_store_has_a_folder_of_its_own(near, far, plain, tmp_path):
    store = opened(near, keep=1, cached=3)
    same_records(store, plain)
    assert files(near.parent/'cache') == NAMES[-3:] and fetched(near) == NAMES
    store.view(36) # shard 7, the oldest of the three, is used again
    store.view(0)
    assert files(near.parent/'cache') == sorted([NAMES[0], NAMES[7], NAMES[9]])
    manifest = load_json(near/'manifest.json')
    save_json(manifest | {'made_by': {'detector': 'another'}}, near/'manifest.json')
    assert opened(near).cache != store.cache and opened(near).cache.parent == store.cache.parent


def test_the_cache_is_at_home_unless_it_is_named(near, far, home):
    StreamedStore(near, command(near)).view(0)
    assert [path.name for path in home.glob('tars/*/*.tar')] == NAMES[:1]


def test_a_file_date_from_far_away_does_not_make_it_old(near, far, plain):
    for path in far.iterdir(): os.utime(path, (1, 1))
    store = opened(near, fetch=f'cp -p {shlex.quote(str(far))}/{{name}} {{path}}', keep=1, cached=2)
    same_records(store, plain, range(0, 46, 5))
    assert files(near.parent/'cache') == NAMES[-2:]


@pytest.mark.parametrize('wrong, told', [
    (dict(fetch='cp a b'), 'expected a command with {name} and {path}'), (dict(fetch='cp {name} b'), 'with {name} and {path}'), (dict(fetch='cp "{name} {path}'), 'cannot be cut into words'),
    (dict(keep=0), 'must be at least 1, got 0'), (dict(cached=0), 'must be at least 1'), (dict(tries=0), 'must be at least 1')])
def test_settings_are_checked(near, far, wrong, told):
    with pytest.raises(ValueError) as error: opened(near, **wrong)
    assert told in str(error.value)


def test_open_store(near, far, plain, small_labels):
    assert type(open_store(plain.folder)) is Store and type(open_store(near)) is StreamedStore
    assert open_store(near, command(near), near.parent/'c', 5, 6).keep == 5
    with pytest.raises(ValueError, match='fetch is for folders of tar files'): open_store(plain.folder, command(near))
    with pytest.raises(ValueError, match='store of labels, expected regions'): open_store(small_labels)
    with pytest.raises(FileNotFoundError, match='manifest.json: no such file'): open_store(far)


# damage

def test_nothing_here_and_nobody_fetches(near, far):
    with pytest.raises(FileNotFoundError, match='shard-00002.tar: not here, and no command is given'): StreamedStore(near).view(10)


def test_a_tar_file_here_that_was_cut(near):
    path = near/NAMES[1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match='shard-00001.tar: missing, or not the'): StreamedStore(near).view(5)
    assert len(faults := StreamedStore(near).verify()) == 1 and 'shard-00001.tar' in faults[0]
    path = near/NAMES[2]
    data = path.read_bytes()
    path.write_bytes(data[:3000] + bytes([data[3000] ^ 1]) + data[3001:])
    assert any('shard-00002.tar: its bytes changed' in fault for fault in StreamedStore(near).verify())


def exchange(near, number, data):
    "Other bytes for a shard, with their checksum in the manifest."
    (near/NAMES[number]).write_bytes(data)
    manifest = load_json(near/'manifest.json')
    manifest['shards'][str(number)][NAMES[number]] = {'bytes': len(data), 'sha256': sha256(near/NAMES[number])}
    save_json(manifest, near/'manifest.json')


@pytest.mark.parametrize('change, told', [
    (lambda data: data[:700], 'not a whole tar file'), (lambda data: b'nonsense'*200, 'not a whole tar file'), (lambda data: b'', 'not a whole tar file'),
    (lambda data: data[:6*1024 + 512*5], '(other pictures|not a whole|no )'), (lambda data: data.replace(b'boxes.npy', b'boxen.npy'), '(no boxes.npy|not a whole tar file)'),
])
def test_tar_files_that_no_export_wrote(near, change, told):
    exchange(near, 3, change((near/NAMES[3]).read_bytes()))
    with pytest.raises(ValueError, match=f'shard-00003.tar.*{told}'): StreamedStore(near).view(15)


def repacked(data, members=(), without=(), kind=tarfile.REGTYPE):
    new = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=new, mode='w') as tar:
        for member in old:
            content = dict(members).get(member.name, old.extractfile(member).read())
            if member.name in without: continue
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if kind != tarfile.REGTYPE:
            link = tarfile.TarInfo('00000015.features.npy')
            link.type, link.linkname = kind, '/etc/passwd'
            tar.addfile(link)
    return new.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize('name, array, told', [
    ('features', np.zeros((3, 6), np.float32), 'features is torch.float32'), ('features', np.zeros((3, 5), np.float16), r'features is torch.float16 of shape \(3, 5\), expected torch.float16 of \(3, 6\)'),
    ('boxes', np.zeros((2, 4), np.float32), r'features is .* expected .* \(2, 6\)'), ('class_rest', np.zeros((3, 1), np.float32), 'class_rest'), ('boxes', np.float32(1), r'boxes is torch.float32 of shape \(\)')])
def test_arrays_of_another_form_are_refused(near, name, array, told):
    exchange(near, 3, repacked((near/NAMES[3]).read_bytes(), {f'00000015.{name}.npy': npy(array)}))
    with pytest.raises(ValueError, match=told): StreamedStore(near).view(15)


def test_pictures_of_another_shard_are_refused(near):
    exchange(near, 3, (near/NAMES[4]).read_bytes())
    with pytest.raises(ValueError, match='shard-00003.tar: other pictures than its .jsonl names'): StreamedStore(near).view(15)


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_the_like_are_passed_over(near, plain, kind):
    exchange(near, 3, repacked((near/NAMES[3]).read_bytes(), kind=kind))
    same_records(StreamedStore(near), plain, range(15, 20))


def test_tar_tensors_takes_any_open_file(near, plain):
    data, manifest = (near/NAMES[9]).read_bytes(), read_manifest(near, 'tar')
    assert torch.equal(tar_tensors(io.BytesIO(data), IDS[45:], manifest, 'x')['offsets'], plain._shard(9)['offsets'])
    with pytest.raises(ValueError, match='x: other pictures'): tar_tensors(io.BytesIO(data), IDS[44:], manifest, 'x')


# fetching

def test_a_fetch_that_fails_says_all(near, far):
    (far/NAMES[2]).unlink()
    with pytest.raises(OSError, match=r"shard-00002.tar: could not be fetched by sh '?.*fetch.sh'? shard-00002.tar .*exit code 1.*No such file.*Run the command by hand"): opened(near).view(10)
    assert files(near.parent/'cache') == []
    with pytest.raises(OSError, match='no-such-program shard-00000.tar.*No such file'): opened(near, fetch='no-such-program {name} {path}', tries=3).view(0) # at once
    with pytest.raises(OSError, match='wrote no file'): opened(near, fetch='true {name} {path}').view(0)
    with pytest.raises(OSError, match='it said nothing'): opened(near, fetch='false {name} {path}').view(0)
    start = time.monotonic()
    with pytest.raises(OSError, match='took longer than 0.2 s'): opened(near, fetch=command(near, 60), patience=.2).view(0)
    assert time.monotonic() - start < 20 and files(near.parent/'cache') == []


@pytest.mark.parametrize('change, told', [(lambda data: data[:-1], 'bytes came, the manifest names'), (lambda data: data + b'0', 'bytes came, the manifest names'),
                                          (lambda data: data[:-1] + b'1', 'other bytes came'), (lambda data: b'<html>no such key</html>', '24 bytes came')])
def test_wrong_bytes_are_not_kept(near, far, plain, change, told):
    right = (far/NAMES[0]).read_bytes()
    (far/NAMES[0]).write_bytes(change(right))
    store = opened(near)
    with pytest.raises(OSError, match=told): store.view(0)
    assert files(near.parent/'cache') == []
    (far/NAMES[0]).write_bytes(right)
    same_records(store, plain, [0]) # it goes on


def test_a_line_that_fails_for_a_moment_is_tried_again(near, far, plain, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, 'sleep', pauses.append)
    (near.parent/'flaky.sh').write_text(f'cd {shlex.quote(str(near.parent))}; echo x >> count; [ $(wc -l < count) -ge 3 ] && cp "far; away"/$1 "$2"\n')
    flaky = f'sh {shlex.quote(str(near.parent/"flaky.sh"))} {{name}} {{path}}'
    same_records(opened(near, fetch=flaky, tries=3), plain, [0])
    assert [pause for pause in pauses if pause >= 1] == [1, 2] and (near.parent/'count').read_text().count('x') == 3


def test_no_shell_reads_the_command(near, far, plain):
    store = opened(near, fetch=f'cp {shlex.quote(str(far))}/{{name}} {{path}}', cache=near.parent/'a b; touch boom $(touch boom)')
    same_records(store, plain, [0])
    assert not list(near.parent.rglob('boom'))


def test_fetch_file_leaves_what_was_there(tmp_path):
    (tmp_path/'there').write_bytes(b'old')
    (tmp_path/'far').write_bytes(b'new')
    expected = dict(bytes=3, sha256=sha256(tmp_path/'there'))
    with pytest.raises(OSError, match='other bytes came'): fetch_file(f'cp {tmp_path}/{{name}} {{path}}', 'far', tmp_path/'there', expected, tries=1)
    assert (tmp_path/'there').read_bytes() == b'old' and len(list(tmp_path.iterdir())) == 2


def test_a_cached_file_that_the_disk_cut_is_fetched_again(near, far, plain):
    store = opened(near, keep=1)
    store.view(0)
    path = store.cache/NAMES[0]
    path.write_bytes(path.read_bytes()[:1000])
    store.view(5)
    same_records(store, plain, [0])
    assert fetched(near) == [NAMES[0], NAMES[1], NAMES[0]]


READ = '''
import sys
from vlground.webstore import StreamedStore
store = StreamedStore(sys.argv[1], sys.argv[2], sys.argv[3], keep=2, cached=20)
for i in range(0, 46, 5) if sys.argv[4] == 'up' else range(45, -1, -5): store.view(i)
print(store.loads)
'''


def test_two_processes_fetch_each_shard_once(near, far):
    running = [begin(READ, near, command(near, .05), near.parent/'cache', way) for way in ('up', 'up', 'down')]
    assert [finish(each).strip() for each in running] == ['10']*3
    assert sorted(fetched(near)) == NAMES and files(near.parent/'cache') == NAMES


def test_killed_in_the_middle_of_a_fetch(near, far, plain):
    (near.parent/'slow.sh').write_text(f'head -c 2000 {shlex.quote(str(far))}/$1 > "$2"; sleep 60; cp {shlex.quote(str(far))}/$1 "$2"\n')
    slow = f'sh {shlex.quote(str(near.parent/"slow.sh"))} {{name}} {{path}}'
    process = begin(READ, near, slow, near.parent/'cache', 'up')
    wait_until(process, lambda: any(path.stat().st_size == 2000 for path in (near.parent/'cache').glob('*/.*.part*')))
    kill(process)
    assert [name for name in files(near.parent/'cache') if not name.startswith('.')] == []
    same_records(opened(near, cached=20), plain) # the lock is free, and the half is swept away
    assert files(near.parent/'cache') == NAMES


def test_loader_workers_share_the_cache(near, far, plain):
    store, sampler = opened(near, cached=20), ShardSampler(np.arange(46)//5, 4, 0, lanes=2)
    def make(step): return store.batch([i for _, i in sampler.step(step)]).features
    with batches_ahead(make, [(step,) for step in range(2*sampler.steps)], workers=2) as ahead: found = list(ahead)
    assert all(torch.equal(features, plain.batch([i for _, i in sampler.step(step)]).features) for step, features in enumerate(found))
    assert max(Counter(fetched(near)).values()) == 1


# the order

collections = st.lists(st.integers(1, 12), min_size=1, max_size=40)


def build(counts, lanes, piece, block=1, seed=0, buckets=False, gaps=1, window=0):
    shards = np.repeat(np.arange(len(counts))*gaps, counts)
    shards = shards[np.random.default_rng(seed).permutation(len(shards))] # captions of a shard need not stand together
    lengths = (lambda epoch: (np.arange(len(shards))*(7 + epoch)) % 13) if buckets else None
    return shards, ShardSampler(shards, lanes*piece, seed, lanes, block, lengths, window)


@given(collections, st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99), st.booleans(), st.integers(0, 9))
@settings(max_examples=200)
def test_each_sample_at_most_once_an_epoch_and_epochs_of_one_length(counts, lanes, piece, block, seed, buckets, window):
    assume(lanes <= len(counts) and least_in_lane(np.array(counts), lanes) >= piece)
    shards, sampler = build(counts, lanes, piece, block, seed, buckets, 3, window)
    assert sampler.steps == least_in_lane(np.array(counts), lanes)//piece and sampler.samples == sampler.steps*lanes*piece
    for epoch in range(3):
        order = sampler.order(epoch)
        assert len(order) == sampler.samples == len(set(order.tolist())) and 0 <= order.min() and order.max() < len(shards)
        steps = [sampler.step(epoch*sampler.steps + step) for step in range(sampler.steps)]
        assert [i for step in steps for _, i in step] == order.tolist() and {each for step in steps for each, _ in step} == {epoch}
        lane_of = {}
        for step in range(sampler.steps): # a shard belongs to one lane
            for lane, samples in enumerate(order.reshape(sampler.steps, lanes, piece)[step]):
                for sample in samples: assert lane_of.setdefault(shards[sample], lane) == lane


@given(collections, st.integers(1, 6))
@settings(max_examples=200)
def test_what_every_lane_surely_holds(counts, lanes):
    assume(lanes <= len(counts))
    counts = np.array(counts)
    shards = np.repeat(np.arange(len(counts)), counts)
    least = least_in_lane(counts, lanes)
    assert 0 < least*lanes <= len(shards)
    sampler = ShardSampler(shards, lanes, 0, lanes) # would fail to fill a lane that holds less
    for epoch in range(5): assert len(sampler.order(epoch)) == least*lanes
    if len(set(counts.tolist())) == 1: assert least == len(counts)//lanes*counts[0] # equal shards: whole rounds


@given(st.lists(st.integers(1, 12), min_size=8, max_size=40), st.sampled_from([1, 2, 4, 8, 16]), st.booleans(), st.integers(0, 99))
@settings(max_examples=60)
def test_a_process_touches_its_own_shards_and_all_see_the_same_batches(counts, parts, buckets, seed):
    assume(least_in_lane(np.array(counts), 8) >= 2)
    shards, sampler = build(counts, 8, 2, seed=seed, buckets=buckets)
    own = [set() for _ in range(parts)]
    for step in range(sampler.steps):
        pieces = [sampler.step(step, part, parts) for part in range(parts)]
        assert sum(pieces, []) == sampler.step(step)
        for part, piece in enumerate(pieces): own[part] |= {int(shards[i]) for _, i in piece}
    if parts <= 8: assert sum(map(len, own)) == len(set.union(*own))
    else: # two processes share a lane, and only they
        for a in range(16): assert all(not own[a] & own[b] for b in range(16) if a//2 != b//2)


def test_epochs_and_seeds_differ_and_every_sample_has_its_turn():
    shards = np.arange(460)//10
    sampler = ShardSampler(shards, 16, 0)
    assert not np.array_equal(sampler.order(0), sampler.order(1)) and not np.array_equal(sampler.order(0), ShardSampler(shards, 16, 1).order(0))
    assert np.array_equal(sampler.order(0), ShardSampler(shards, 16, 0).order(0))
    counts = np.bincount(np.concatenate([sampler.order(epoch) for epoch in range(60)]), minlength=460)
    assert counts.min() > 35 and abs(counts.mean() - 60*sampler.samples/460) < 1e-9


def loads_of(shards, sampler, keep, part=0, parts=1, epoch=0):
    memory, loads = [], 0
    for step in range(epoch*sampler.steps, (epoch + 1)*sampler.steps):
        for number in sorted({int(shards[i]) for _, i in sampler.step(step, part, parts)}):
            loads += number not in memory
            memory = [*(each for each in memory if each != number), number][-keep:]
    return loads


@given(st.integers(2, 20), st.integers(1, 20), st.integers(24, 60), st.sampled_from([1, 2, 4]), st.integers(1, 3), st.sampled_from([1, 2, 4]), st.booleans(), st.integers(0, 9))
@settings(max_examples=60)
def test_shards_at_once_suffice_to_read_each_shard_once(size, last, shards, lanes, block, parts, buckets, seed):
    counts = [size]*(shards - 1) + [min(size, last)]
    assume(least_in_lane(np.array(counts), lanes) >= 4)
    shards, sampler = build(counts, lanes, 4, block, seed, buckets)
    for part in range(parts):
        touched = len({int(shards[i]) for step in range(sampler.steps) for _, i in sampler.step(step, part, parts)})
        loads = loads_of(shards, sampler, sampler.shards_at_once(parts), part, parts)
        assert loads == touched if last >= size else touched <= loads <= 1.3*touched # a short shard shifts a lane against the others


def test_memory_falls_with_the_processes():
    shards = np.arange(512*80)//512
    plain, bucketed = ShardSampler(shards, 512, 0), ShardSampler(shards, 512, 0, lengths=lambda epoch: np.arange(len(shards)) % 30)
    assert [plain.shards_at_once(n) for n in (1, 2, 4, 8, 16, 3)] == [16, 8, 4, 2, 2, 8]
    assert [bucketed.shards_at_once(n) for n in (1, 8)] == [24, 3] and bucketed.window == 8
    assert loads_of(shards, plain, 16) == 80 and loads_of(shards, bucketed, 24) == 80
    assert [loads_of(shards, bucketed, 3, part, 8) for part in range(8)] == [10]*8


def test_a_global_shuffle_reads_shards_again_and_again(near, far):
    store, sampler = opened(near, keep=2, cached=2), Sampler(46, 8, 0)
    for step in range(5): store.batch([i for _, i in sampler.step(step)])
    assert len(fetched(near)) > 2*10


def test_fetches_of_an_epoch_are_as_many_as_shards(near, far):
    sampler = ShardSampler(np.arange(46)//5, 4, 0, lanes=2)
    store = opened(near, keep=sampler.shards_at_once(), cached=4)
    for step in range(sampler.steps): store.batch([i for _, i in sampler.step(step)])
    assert sorted(fetched(near)) == sorted({NAMES[i//5] for _, i in sum(map(sampler.step, range(sampler.steps)), [])}) and store.loads == len(fetched(near)) >= 9


@given(st.integers(0, 20))
@settings(max_examples=10)
def test_like_lengths_meet(seed):
    lengths = np.random.default_rng(seed).integers(5, 31, 6400)
    bucketed, other = (ShardSampler(np.arange(6400)//64, 64, seed, lengths=given) for given in (lambda epoch: lengths, None))
    def padding(order): return 1 - (lengths[order].reshape(-1, 64)/lengths[order].reshape(-1, 64).max(1, keepdims=True)).mean()
    assert padding(bucketed.order(0)) < padding(other.order(0))*.6
    firsts = lengths[bucketed.order(0)].reshape(-1, 64).mean(1)
    assert abs(np.corrcoef(firsts[:-1], firsts[1:])[0, 1]) < .5 # and in no order


@pytest.mark.parametrize('wrong, told', [
    (dict(shards=np.zeros((2, 2), int)), 'expected the shard number of each sample'), (dict(shards=[]), 'expected the shard number'), (dict(shards=[.5, 1.]), 'expected the shard number'),
    (dict(batch_size=6), '6 samples cannot be taken from 4 lanes'), (dict(lanes=0), 'must be at least 1'), (dict(block=0), 'must be at least 1'), (dict(window=-1), 'window at least 0'),
    (dict(batch_size=0), 'must be at least 1'), (dict(shards=np.arange(40)//20), '2 shards do not suffice for 4 lanes'), (dict(batch_size=100), 'may hold as few as 20 samples, and a batch takes 25')])
def test_orders_that_cannot_be(wrong, told):
    arguments = dict(shards=np.arange(80)//10, batch_size=8, seed=0, lanes=4) | wrong
    with pytest.raises(ValueError, match=told): ShardSampler(**arguments)


def test_lengths_of_other_samples_are_refused():
    with pytest.raises(ValueError, match=r'lengths\(0\): expected one for each of the 80 samples'): ShardSampler(np.arange(80)//10, 8, 0, 4, lengths=lambda epoch: np.ones(79)).order(0)
    with pytest.raises(ValueError, match='cannot be cut into 3 equal parts'): ShardSampler(np.arange(80)//10, 8, 0, 4).step(0, 0, 3)


@given(st.integers(1, 600), st.integers(1, 50), st.integers(1, 16))
def test_lanes_for(batch_size, shards, most):
    lanes = lanes_for(batch_size, shards, most)
    assert batch_size % lanes == 0 and lanes <= min(most, shards) and not any(batch_size % more == 0 for more in range(lanes + 1, min(most, shards) + 1))


# a pre-training

@pytest.fixture(scope='module')
def world(small_world, small_labels, tmp_path_factory):
    "The small world's regions in many small shards, as a store and as tar files far away."
    from vlground.store import extract_regions
    folder = tmp_path_factory.mktemp('streamed')
    store = extract_regions(small_world/'images', folder/'regions', keep=8, shard_size=4, quiet=True)
    near, far = export_tar(Store(store), folder/'near', quiet=True), folder/'far'
    far.mkdir()
    for path in near.glob('*.tar'): path.rename(far/path.name)
    return store, near, far, small_labels


@pytest.mark.parametrize('workers', [0, 2])
def test_a_pretraining_from_far_away_comes_to_the_same_bits(world, tmp_path, monkeypatch, workers):
    store, near, far, labels = world
    config = replace(PRESETS['mini'], steps=6, batch_size=8, regions=8, save_every=3)
    streamed = pretrain(near, labels, tmp_path/'streamed', config, progress='none', workers=workers, fetch=f'cp {far}/{{name}} {{path}}', cache=tmp_path/'cache')
    assert 0 < len(files(tmp_path/'cache')) <= 64
    # the same order over the store on the disk: let the batches take it for one that streams
    monkeypatch.setattr(batches_module, 'StreamedStore', Store)
    plain = pretrain(store, labels, tmp_path/'plain', config, progress='none')
    ours, theirs = streamed.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    monkeypatch.undo()
    other = pretrain(store, labels, tmp_path/'other', config, progress='none').state_dict() # the global shuffle is another order
    assert not all(torch.equal(ours[name], other[name]) for name in theirs)


def test_a_pretraining_with_two_files_in_the_cache(world, tmp_path, monkeypatch):
    store, near, far, labels = world
    config = replace(PRESETS['mini'], steps=8, batch_size=8, regions=8)
    monkeypatch.setattr('vlground.pretrain.open_store', lambda folder, fetch, cache: StreamedStore(folder, fetch, cache, cached=2))
    streamed = pretrain(near, labels, tmp_path/'streamed', config, progress='none', fetch=f'cp {far}/{{name}} {{path}}', cache=tmp_path/'cache')
    assert len(files(tmp_path/'cache')) == 2
    monkeypatch.undo()
    monkeypatch.setattr(batches_module, 'StreamedStore', Store)
    plain = pretrain(store, labels, tmp_path/'plain', config, progress='none').state_dict()
    assert all(torch.equal(streamed.state_dict()[name], value) for name, value in plain.items())
