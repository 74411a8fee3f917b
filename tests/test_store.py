"The store: what goes in comes out, bad regions stay out, and a killed writer leaves nothing that counts by mistake."
import filecmp
import hashlib
import json
import multiprocessing
import os
import pickle
import random
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from safetensors.torch import load_file, save

from vlground import store as store_module
from vlground.core import load_json, rng, save_json, torch_rng
from vlground.regions import Regions, load_detector
from vlground.scenes import CAPTIONS, make_scene, render
from vlground.shards import ShardWriter, find_damage, read_manifest
from vlground.store import Store, StoreWriter, check_regions, check_shard, dense_probs, describe_pictures, extract_regions

WIDTH, CLASSES = 8, tuple(f'class {i}' for i in range(6))

def some_regions(index, n=None, width=WIDTH, classes=len(CLASSES)): # regions of a picture of 200 x 100
    generator = torch_rng('store', index)
    n = int(rng('count', index).integers(0, 9)) if n is None else n
    corners = torch.rand(n, 2, 2, generator=generator).sort(dim=1).values*torch.tensor([199., 99.])
    corners[:, 1] += 1
    return Regions(corners.flatten(1), torch.randn(n, width, generator=generator), torch.randn(n, classes, generator=generator).softmax(1), (200, 100))

def write_store(folder, records, shard_size=4, top_k=16, ids=None):
    ids = ids or [f'{i}.jpg' for i in range(len(records))]
    writer = StoreWriter(folder, ids, WIDTH, CLASSES, {'detector': 'test', 'version': 1}, shard_size, top_k)
    for number, part in writer.missing(): writer.write(number, [records[ids.index(id)] for id in part])
    return Store(folder)

def reference_batch(records, max_regions):
    "What `Store.batch` promises, region by region."
    features, locations, targets, boxes = [], [], [], []
    for record in records:
        n, (width, height) = min(len(record.boxes), max_regions), record.size
        stored = record.features[:n].half().float()
        features.append(torch.cat([stored.mean(0, keepdim=True) if n else torch.zeros(1, WIDTH), stored]))
        locations.append(torch.tensor([[0., 0, 1, 1, 1]] + [[x1/width, y1/height, x2/width, y2/height, (x2 - x1)*(y2 - y1)/(width*height)] for x1, y1, x2, y2 in record.boxes[:n].tolist()]))
        targets.append(torch.cat([torch.zeros(1, len(CLASSES)), record.class_probs[:n]]))
        boxes.append(torch.cat([torch.tensor([[0., 0, width, height]]), record.boxes[:n]]))
    def pad(rows): return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return pad(features), pad(locations), pad([torch.ones(len(row), dtype=torch.bool) for row in boxes]), pad(targets), pad(boxes)


# what goes in comes out

@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.integers(1, 5), st.data())
def test_round_trip(tmp_path, counts, shard_size, data):
    ids = data.draw(st.lists(st.text(min_size=1), min_size=len(counts), max_size=len(counts), unique=True))
    records = [some_regions(i, n) for i, n in enumerate(counts)]
    store = write_store(tmp_path/str(len(list(tmp_path.iterdir()))), records, shard_size, ids=ids)
    assert len(store) == len(counts) and store.ids == ids and store.classes == CLASSES and store.verify() == [] and store.errors == {}
    for i, (id, record) in enumerate(zip(ids, records)):
        for found in (store[i], store.get(id), store[i - len(ids)], Store(store.folder, in_memory=True)[i]):
            assert torch.equal(found.boxes, record.boxes) and found.size == (200, 100)
            assert torch.equal(found.features, record.features.half())
            torch.testing.assert_close(found.class_probs, record.class_probs)
    assert len(list(store)) == len(ids)

@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 11), max_size=8), st.integers(1, 6), st.booleans())
def test_batch_equals_the_loop(batch_store, indices, max_regions, in_memory):
    records, stores = batch_store
    got, expected = stores[in_memory].batch(indices, max_regions), reference_batch([records[i] for i in indices], max_regions) if indices else None
    if not indices:
        assert got.features.shape == (0, 1, WIDTH)
        return
    for name, a, b in zip(got._fields, (got.features, got.locations, got.mask, got.targets, got.boxes), expected): torch.testing.assert_close(a, b, msg=name)
    assert torch.equal(got.features[:, 1:], expected[0][:, 1:]) and stores[in_memory].batch(torch.tensor(indices), max_regions, targets=False).targets is None

@pytest.fixture(scope='module')
def batch_store(tmp_path_factory):
    records, folder = [some_regions(i) for i in range(12)], tmp_path_factory.mktemp('batch')/'s'
    return records, (write_store(folder, records), Store(folder, in_memory=True))

def test_largest_probabilities_are_kept(tmp_path):
    store = write_store(tmp_path/'s', [some_regions(1, 5)], top_k=2)
    given_, found = some_regions(1, 5).class_probs, store[0].class_probs
    torch.testing.assert_close(found.sum(1), torch.ones(5))
    kept = given_.topk(2).indices
    torch.testing.assert_close(found.gather(1, kept), given_.gather(1, kept))
    others = torch.ones(5, 6, dtype=torch.bool).scatter_(1, kept, False)
    torch.testing.assert_close(found[others].view(5, 4), ((1 - given_.gather(1, kept).sum(1))/4)[:, None].expand(5, 4))

@given(st.integers(1, 8), st.integers(1, 8))
def test_dense_probs_sum_to_one(k, classes):
    k = min(k, classes)
    best = torch.randn(4, classes, generator=torch_rng('p', k, classes)).softmax(1).topk(k)
    rest = (1 - best.values.sum(1)).clamp(min=0)/max(classes - k, 1)
    torch.testing.assert_close(dense_probs(best.values, best.indices, rest, classes).sum(1), torch.ones(4))

def test_pictures_that_failed(tmp_path):
    store = write_store(tmp_path/'s', [some_regions(0, 3), 'cut short', 'not a picture', some_regions(3, 2), 'empty'])
    assert store.errors == {'1.jpg': 'cut short', '2.jpg': 'not a picture', '4.jpg': 'empty'}
    assert [len(record.boxes) for record in store] == [3, 0, 0, 2, 0]
    batch = store.batch([1, 3])
    assert batch.mask.tolist() == [[True, False, False], [True, True, True]] and all(tensor.isfinite().all() for tensor in batch)

def test_works_in_worker_processes(batch_store):
    _, (mapped, _) = batch_store
    mapped[0]
    again = pickle.loads(pickle.dumps(mapped))
    assert torch.equal(again[3].features, mapped[3].features) and len(pickle.dumps(mapped)) < 500

def test_unknown_pictures(batch_store):
    store = batch_store[1][0]
    with pytest.raises(KeyError, match="no picture with the id 'x.jpg' among 12; the first id is '0.jpg'"): store.get('x.jpg')
    for i in (12, -13):
        with pytest.raises(IndexError, match='no record'): store[i]
    for indices in ([0, 12], [-1]):
        with pytest.raises(IndexError, match='0 … 11'): store.batch(indices)

def test_slices(batch_store):
    for store in batch_store[1]:
        for part in (slice(2), slice(-3, None), slice(None, None, -4), slice(5, 5)):
            assert all(torch.equal(a.features, b.features) for a, b in zip(store[part], list(store)[part], strict=True))

def test_counts_below_zero_are_refused_at_once(batch_store, tmp_path):
    with pytest.raises(ValueError, match='max_regions must be at least 0, got -1'): batch_store[1][0].batch([0], max_regions=-1)
    with pytest.raises(ValueError, match='s: top_k must be at least 1, got -1'): StoreWriter(tmp_path/'s', ['a'], WIDTH, CLASSES, {}, top_k=-1)
    assert batch_store[1][0].batch([0, 1], max_regions=0).features.shape == (2, 1, WIDTH)

def test_features_of_half_precision_are_stored_as_they_are(tmp_path):
    record = some_regions(0, 4)
    store = write_store(tmp_path/'s', [Regions(record.boxes.double(), record.features.half(), record.class_probs.double(), record.size)])
    assert torch.equal(store[0].features, record.features.half()) and store[0].boxes.dtype == store[0].class_probs.dtype == torch.float32


# bad regions stay out

def bad(**changes):
    values = {name: getattr(some_regions(0, 3), name).clone() for name in ('boxes', 'features', 'class_probs')}
    for name, (place, value) in changes.items(): values[name][place] = torch.as_tensor(value)
    return Regions(**values, size=(200, 100))

@pytest.mark.fault(13)
@pytest.mark.parametrize('box', [(10, 10, 10, 20), (10, 10, 20, 10), (20, 10, 10, 20), (10, 20, 20, 10), (-3, 10, 20, 20), (10, 10, 201, 20), (10, 10, 20, 101),
                                 (10, float('nan'), 20, 20), (10, 10, float('inf'), 20), (float('-inf'), 10, 20, 20)])
def test_bad_boxes_are_refused(tmp_path, box):
    with pytest.raises(ValueError, match=r'1.jpg: box 2, .* 200 x 100'): write_store(tmp_path/'s', [some_regions(0, 3), bad(boxes=(2, box))])
    assert not list((tmp_path/'s').glob('shard*'))

@pytest.mark.parametrize('changes, told', [
    (dict(features=((1, 2), float('nan'))), 'feature'), (dict(features=((1, 2), 1e5)), '65504'), (dict(class_probs=((0, 0), float('nan'))), 'distribution'),
    (dict(class_probs=(0, torch.tensor([1.5, -.5, 0, 0, 0, 0]))), 'distribution'), (dict(class_probs=(0, torch.full((6,), .3))), 'distribution')])
def test_other_bad_numbers_are_refused(changes, told):
    with pytest.raises(ValueError, match=f'my.jpg.*{told}'): check_regions(bad(**changes), 'my.jpg', WIDTH, len(CLASSES))

def test_wrong_shapes_are_refused(tmp_path):
    for record, told in ((some_regions(0, 3, width=7), r'features have the shape \(3, 7\), expected \(3, 8\)'), (some_regions(0, 3, classes=5), 'class_probs have the shape')):
        with pytest.raises(ValueError, match='0.jpg: ' + told): write_store(tmp_path/'s', [record])
    writer = StoreWriter(tmp_path/'s', ['0.jpg'], WIDTH, CLASSES, {'detector': 'test', 'version': 1}, 4)
    with pytest.raises(ValueError, match='shard 0 takes 1 records, got 2'): writer.write(0, [some_regions(0), some_regions(1)])

@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_good_regions_pass(index): check_regions(some_regions(index, 4), 'x', WIDTH, len(CLASSES))


# plans

def test_another_plan_is_refused(tmp_path):
    write_store(tmp_path/'s', [some_regions(i) for i in range(3)])
    ids, made_by = [f'{i}.jpg' for i in range(3)], {'detector': 'test', 'version': 1}
    for plan, told in (((ids[::-1], WIDTH, CLASSES, made_by, 4), 'ids_sha256'), ((ids, WIDTH, CLASSES, made_by, 5), 'shard_size'), ((ids, 9, CLASSES, made_by, 4), 'feature_width'),
                       ((ids, WIDTH, CLASSES, made_by | {'version': 2}, 4), 'made_by'), ((ids, WIDTH, CLASSES[::-1], made_by, 4), 'classes')):
        with pytest.raises(ValueError, match=rf'begun with another plan \(.*{told}.* differ\)'): StoreWriter(tmp_path/'s', *plan)
    assert StoreWriter(tmp_path/'s', ids, WIDTH, CLASSES, made_by, 4).missing() == []

@pytest.mark.parametrize('ids', [[], ['a', 'b', 'a']])
def test_ids_must_differ(tmp_path, ids):
    with pytest.raises(ValueError, match='none twice'): ShardWriter(tmp_path/'s', 'words', ids, 2, {})

def test_folders_that_are_no_store(tmp_path):
    with pytest.raises(FileNotFoundError, match='manifest.json: no such file'): Store(tmp_path)
    ShardWriter(tmp_path/'words', 'words', ['a'], 2, {})
    with pytest.raises(ValueError, match='store of words, expected regions'): Store(tmp_path/'words')
    (tmp_path/'manifest.json').write_text('{"a": 1}')
    with pytest.raises(ValueError, match='not the manifest of a store'): Store(tmp_path)
    (tmp_path/'manifest.json').write_text('{"a": ')
    with pytest.raises(ValueError, match='manifest.json.*JSON'): Store(tmp_path)
    (tmp_path/'manifest.json').write_text('{"format": 1, "kind": "regions", "records": 1, "shard_size": 1, "shard_count": 1, "shards": []}')
    with pytest.raises(ValueError, match='must be whole numbers, shards an object'): Store(tmp_path)

@pytest.mark.fault(21)
def test_newer_format_is_refused(tmp_path):
    store = write_store(tmp_path/'s', [some_regions(0)])
    (tmp_path/'s'/'manifest.json').write_text(json.dumps(store.manifest | {'format': 9}))
    with pytest.raises(ValueError, match='version 9 is newer than version 1'): Store(tmp_path/'s')
    with pytest.raises(ValueError, match='version 9 is newer than version 1'): write_store(tmp_path/'s', [some_regions(0)])

def test_unfinished_store_is_refused(tmp_path):
    writer = StoreWriter(tmp_path/'s', list('abc'), WIDTH, CLASSES, {}, shard_size=1)
    writer.write(1, [some_regions(0)])
    with pytest.raises(ValueError, match='2 of 3 shards are still to be written'): Store(tmp_path/'s')
    assert writer.missing() == [(0, ['a']), (2, ['c'])] and len(find_damage(tmp_path/'s')) == 2


# faults

@pytest.mark.fault(2)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_one_flipped_bit_is_found(flip_store, data):
    folder = flip_store
    path = data.draw(st.sampled_from(sorted(folder.glob('shard*'))))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:place] + bytes([content[place] ^ 1 << data.draw(st.integers(0, 7))]) + content[place + 1:])
    faults = find_damage(folder)
    path.write_bytes(content)
    assert len(faults) == 1 and path.name in faults[0] and find_damage(folder) == []

@pytest.fixture(scope='module')
def flip_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp('flip')/'s'
    write_store(folder, [some_regions(i) for i in range(6)])
    return folder

@pytest.mark.fault(2)
def test_cut_and_missing_files_are_named(tmp_path):
    store = write_store(tmp_path/'s', [some_regions(i, 3) for i in range(8)])
    path = tmp_path/'s'/'shard-00001.safetensors'
    path.write_bytes(path.read_bytes()[:-10])
    fresh = Store(tmp_path/'s')
    assert len(fresh[0].boxes) == 3
    with pytest.raises(ValueError, match='shard-00001.safetensors: missing, or not'): fresh[5]
    path.unlink()
    assert [fault.rpartition(': ')[2] for fault in store.verify()] == ['missing']

# a job runs in a process of its own, forked from this one: what kills it is a real signal
FORK = multiprocessing.get_context('fork')

def write_on_a_full_disk(folder):
    writer = StoreWriter(folder, ['a', 'b'], WIDTH, CLASSES, {}, shard_size=1)
    writer.write(0, [some_regions(0, 5)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    writer.write(1, [some_regions(1, 2000)])

@pytest.mark.fault(3)
def test_disk_full_leaves_no_shard_that_counts(tmp_path):
    "A limit on the size of files stands for the full disk: the write fails half way."
    process = FORK.Process(target=write_on_a_full_disk, args=(tmp_path/'s',))
    process.start(), process.join()
    assert process.exitcode == 1
    assert StoreWriter(tmp_path/'s', ['a', 'b'], WIDTH, CLASSES, {}, shard_size=1).missing() == [(1, ['b'])]
    assert {path.name for path in (tmp_path/'s').iterdir()} <= {'manifest.json', '.lock', 'shard-00000.jsonl', 'shard-00000.safetensors'}

def work(folder, pause, share, made, most=None):
    "Write the missing shards, or every other one of them, and count what was made; after the `most`-th wait to be killed."
    writer = StoreWriter(folder, [str(i) for i in range(80)], WIDTH, CLASSES, {'detector': 'test'}, shard_size=2)
    for number, ids in writer.missing():
        if share is not None and number % 2 != share: continue
        time.sleep(pause)
        writer.write(number, [some_regions(int(id)) for id in ids])
        made.value += 1
        if made.value == most: time.sleep(600)

def start(folder, pause=0., share=None, most=None):
    made = FORK.Value('i', lock=False)
    process = FORK.Process(target=work, args=(folder, pause, share, made, most), daemon=True)
    process.start()
    return process, made

def same_files(a, b):
    names = {path.name for path in a.iterdir()} - {'.lock'}
    assert names == {path.name for path in b.iterdir()} - {'.lock'}
    return filecmp.cmpfiles(a, b, names, shallow=False)[1:] == ([], [])

@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('undisturbed')/'s'
    work(folder, 0, None, FORK.Value('i'))
    assert find_damage(folder) == []
    return folder

@pytest.mark.fault(1)
def test_killed_writer_goes_on_and_ends_with_the_same_bytes(tmp_path, undisturbed):
    "SIGKILL six times while shards are written, often with two writers at once."
    moments, folder, done = random.Random(3), tmp_path/'s', [0]
    for shares in ((None,), (0, 1), (0, 1), (None,), (0, 1), (0, 1)):
        jobs = [start(folder, 0.005, share, most=3) for share in shares]
        while sum(made.value for _, made in jobs) < 2: time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.015))
        for process, _ in jobs: process.kill()
        for process, _ in jobs: process.join()
        assert [process.exitcode for process, _ in jobs] == [-signal.SIGKILL]*len(jobs)
        done.append(len(read_manifest(folder, 'regions')['shards']))
        assert done[-2] < done[-1] < 40
        assert not [fault for fault in find_damage(folder) if 'not been written' not in fault]
    last, made = start(folder)
    last.join()
    assert made.value == 40 - done[-1] # nothing is made twice
    assert same_files(folder, undisturbed)

def test_two_writers_at_once(tmp_path, undisturbed):
    jobs = [start(tmp_path/'s', 0, share) for share in (0, 1)]
    for process, _ in jobs: process.join()
    assert [process.exitcode for process, _ in jobs] == [0, 0]
    assert same_files(tmp_path/'s', undisturbed)

@pytest.mark.fault(19)
@pytest.mark.parametrize('name', ['with spaces', 'größe ☂'])
def test_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert len(write_store(Path(name), [some_regions(0, 2)])[0].boxes) == 2

def growth(folder): # kB of memory that opening a store and reading one picture takes
    store = Store(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert store[500].features.shape == (20, 1000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

def test_features_are_mapped_not_read(tmp_path):
    "Reading one picture from a shard of 40 MB takes less than half of its size in memory (the system reads ahead)."
    record = some_regions(0, 20, width=1000)
    writer = StoreWriter(tmp_path/'s', [str(i) for i in range(1000)], 1000, CLASSES, {}, shard_size=1000)
    writer.write(0, [record]*1000)
    with FORK.Pool(1) as pool: grown = pool.apply(growth, (tmp_path/'s',))
    assert (tmp_path/'s'/'shard-00000.safetensors').stat().st_size > 40e6 and grown < 20_000 # kB


# what is stored is given without a copy

def test_views(batch_store):
    records, (mapped, in_memory) = batch_store
    for store in (mapped, in_memory):
        for i in (0, 5, -1):
            view, whole = store.view(i), store[i]
            assert view.size == whole.size and torch.equal(view.boxes, whole.boxes) and torch.equal(view.features, whole.features) and view.features.dtype == torch.float16
            torch.testing.assert_close(dense_probs(view.class_values, view.class_indices, view.class_rest, len(CLASSES)), whole.class_probs)
            if len(view.boxes): assert view.features.data_ptr() == store.view(i).features.data_ptr()
    with pytest.raises(IndexError, match='no record 12'): mapped.view(12)


# the checker

def rewrite(folder, change, number=0):
    "Change the tensors or the lines of a shard as a faulty program would, checksums included."
    path, lines, manifest = folder/f'shard-{number:05}.safetensors', folder/f'shard-{number:05}.jsonl', load_json(folder/'manifest.json')
    tensors, rows = load_file(path), [json.loads(line) for line in lines.read_text().splitlines()]
    change(tensors, rows)
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    lines.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    for file in (path, lines): manifest['shards'][str(number)][file.name] = {'bytes': file.stat().st_size, 'sha256': hashlib.sha256(file.read_bytes()).hexdigest()}
    save_json(manifest, folder/'manifest.json')

def put(name, place, value):
    def change(tensors, rows): tensors[name][place] = torch.tensor(value, dtype=tensors[name].dtype)
    return change

def cast(name, dtype):
    def change(tensors, rows): tensors[name] = tensors[name].to(dtype)
    return change

def say(row, **values):
    def change(tensors, rows): rows[row].update(values)
    return change

def drop(name):
    def change(tensors, rows): del tensors[name]
    return change

@pytest.mark.parametrize('change, id, told', [
    (put('boxes', (4, 2), 999.), '1.jpg', 'no area, or does not lie'), (put('boxes', (4, 0), float('nan')), '1.jpg', 'no area, or does not lie'),
    (put('boxes', 3, [5., 5, 5, 9]), '1.jpg', 'no area, or does not lie'), (put('features', (7, 2), float('inf')), '2.jpg', 'not finite'),
    (put('class_values', (0, 0), -.5), '0.jpg', 'no distribution'), (put('class_values', (0, 0), float('nan')), '0.jpg', 'no distribution'), (put('class_rest', 0, .5), '0.jpg', 'no distribution'),
    (put('class_indices', (1, 0), 6), '0.jpg', 'does not exist'), (put('class_indices', 1, [2, 2]), '0.jpg', 'is there twice'), (put('sizes', 2, [3, 3]), '2.jpg', 'does not lie'),
    (put('offsets', 1, 99), 'offsets', 'must rise from 0 to 12'), (put('offsets', 0, 1), 'offsets', 'must rise'), (cast('features', torch.float32), 'features', 'torch.float16'),
    (cast('boxes', torch.float64), 'boxes', 'torch.float32'), (drop('class_rest'), 'class_rest', 'missing'), (say(2, error='cut short'), '2.jpg', 'failed, and yet has regions'),
    (say(3, id='1.jpg'), '1.jpg', 'stands in')])
def test_contents_that_no_writer_would_write(tmp_path, change, id, told):
    write_store(tmp_path/'s', [some_regions(i, 3) for i in range(8)], top_k=2)
    rewrite(tmp_path/'s', change)
    assert find_damage(tmp_path/'s') == []
    faults = Store(tmp_path/'s').verify()
    assert len(faults) == 1 and 'shard-00000.safetensors' in faults[0] and id in faults[0] and told in faults[0]

def test_a_record_too_few(tmp_path):
    write_store(tmp_path/'s', [some_regions(i, 3) for i in range(8)])
    rewrite(tmp_path/'s', lambda tensors, rows: rows.pop(), 1)
    fault, *more = Store(tmp_path/'s').verify()
    assert 'shard-00001.jsonl: 3 lines, expected 4, one for each record' in fault and not more
    with pytest.raises(ValueError, match='shard-00001.jsonl: 3 lines'): Store(tmp_path/'s').ids

def test_ids_of_another_plan(tmp_path):
    write_store(tmp_path/'s', [some_regions(i, 3) for i in range(3)])
    rewrite(tmp_path/'s', say(1, id='9.jpg'))
    assert [fault.partition(': ')[2] for fault in Store(tmp_path/'s').verify()] == ['its ids are not those that it was begun with']

@settings(max_examples=20)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 6))
def test_what_a_writer_writes_is_in_order(tmp_path, counts, top_k):
    folder = tmp_path/str(len(list(tmp_path.iterdir())))
    store = write_store(folder, [some_regions(i, n) if n else 'failed' for i, n in enumerate(counts)], shard_size=9, top_k=top_k)
    assert check_shard(load_file(folder/'shard-00000.safetensors'), store.rows, store.manifest) == store.verify() == []

def test_damage_and_nonsense_together(tmp_path):
    "A shard whose bytes changed is not looked into, the others are."
    write_store(tmp_path/'s', [some_regions(i, 3) for i in range(8)])
    rewrite(tmp_path/'s', put('features', (7, 2), float('inf')))
    (tmp_path/'s'/'shard-00001.jsonl').write_text('{"id": ')
    first, second = Store(tmp_path/'s').verify()
    assert 'shard-00001.jsonl: 7 bytes' in first and '2.jpg: a feature is not finite' in second


# filling

@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "Twelve pictures of the small world, the fourth and the ninth broken."
    folder = tmp_path_factory.mktemp('pictures')
    for i in range(12):
        path = folder/f'{i:02}.jpg'
        render(make_scene(5, i, CAPTIONS)).save(path)
        if i in (3, 8): path.write_bytes(path.read_bytes()[:2000] if i == 3 else b'')
    return folder

def fill(pictures, out, **options): return extract_regions(pictures, out, **dict(keep=4, shard_size=3, batch_size=2, quiet=True, max_errors=.2) | options)

@pytest.fixture(scope='module')
def filled(pictures, tmp_path_factory): return fill(pictures, tmp_path_factory.mktemp('filled')/'s')

@pytest.mark.fault(8)
def test_broken_pictures_are_recorded(filled):
    store = Store(filled)
    assert [id[:2] for id in store.errors] == ['03', '08'] and len(store) == 12 and store.verify() == []
    assert all(len(store[i].boxes) for i in range(12) if i not in (3, 8)) and all(store.errors.values())

@pytest.mark.fault(8)
def test_too_many_broken_pictures_stop_the_run(pictures, filled, tmp_path):
    with pytest.raises(ValueError, match=r'2 of 12 could not be used, more than the share of 0.1 that max_errors allows; the first: 03'): fill(pictures, tmp_path/'s', max_errors=.1)
    done = read_manifest(tmp_path/'s', 'regions')['shards']
    assert list(done) == ['0', '1', '2'] # finished shards stay, the fourth was not begun
    with pytest.raises(ValueError, match='2 of 12'): fill(pictures, tmp_path/'s', max_errors=.1)
    assert read_manifest(tmp_path/'s', 'regions')['shards'] == done
    assert same_files(fill(pictures, tmp_path/'s'), filled)

def test_workers_end_when_the_run_is_stopped(pictures, tmp_path):
    with pytest.raises(ValueError, match='could not be used'): fill(pictures, tmp_path/'s', workers=2, shard_size=1, max_errors=0.)
    assert multiprocessing.active_children() == []

def test_jobs_of_an_array_fill_one_folder(pictures, filled, tmp_path):
    out = tmp_path/'s'
    fill(pictures, out, shard=(2, 3))
    assert list(read_manifest(out, 'regions')['shards']) == ['1']
    for i in (3, 1): fill(pictures, out, shard=(i, 3))
    assert same_files(out, filled)
    for wrong in ((0, 3), (4, 3)):
        with pytest.raises(ValueError, match='1 <= i <= n'): fill(pictures, tmp_path/'t', shard=wrong)

def test_a_replaced_picture_is_noticed(pictures, tmp_path):
    copies = tmp_path/'copies'
    copies.mkdir()
    for path in pictures.iterdir(): (copies/path.name).write_bytes(path.read_bytes())
    out, first = fill(copies, tmp_path/'s', shard=(1, 4)), sorted(copies.iterdir())[0]
    first.write_bytes(sorted(copies.iterdir())[1].read_bytes())
    with pytest.raises(ValueError, match='copies: pictures were added, removed or replaced since .*s was begun'): fill(copies, out)
    first.write_bytes((pictures/first.name).read_bytes())
    fill(copies, out)
    (copies/f'more{first.suffix}').write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match='added, removed or replaced'): fill(copies, out)

def boxes_file(folder, boxes):
    (folder/'boxes.jsonl').write_text(''.join(json.dumps({'image': id, 'boxes': rows}) + '\n' for id, rows in boxes.items()))
    return folder/'boxes.jsonl'

def test_boxes_from_a_file(pictures, tmp_path):
    a, b, broken, c = (sorted(path.name for path in pictures.iterdir())[i] for i in (0, 5, 8, 11))
    boxes = {c: [[10., 20, 60, 90], [0, 0, 256, 256]], a: [[100., 100, 140, 160]], b: [], broken: [[1., 1, 9, 9]], 'gone.jpg': [[1., 1, 9, 9]]}
    store = Store(fill(pictures, tmp_path/'s', boxes=boxes_file(tmp_path, boxes), max_errors=.5))
    assert store.ids == sorted(boxes) and set(store.errors) == {broken, 'gone.jpg'} and 'no such picture' in store.errors['gone.jpg']
    detector = load_detector('world')
    for id in (a, b, c):
        assert store.get(id).boxes.tolist() == boxes[id]
        if boxes[id]:
            described, = detector([Image.open(pictures/id).convert('RGB')], [torch.tensor(boxes[id])])
            torch.testing.assert_close(store.get(id).features.float(), described.features, atol=.02, rtol=.02)
    boxes_file(tmp_path, boxes | {a: [[100., 100, 140, 161]]})
    with pytest.raises(ValueError, match='made_by.boxes_sha256 differ'): fill(pictures, tmp_path/'s', boxes=tmp_path/'boxes.jsonl')

@pytest.mark.fault(13)
def test_a_box_outside_its_picture_is_refused(pictures, tmp_path):
    a = sorted(path.name for path in pictures.iterdir())[0]
    with pytest.raises(ValueError, match=f'{a}: boxes file: box 1, .*is outside the picture'): fill(pictures, tmp_path/'s', boxes=boxes_file(tmp_path, {a: [[1., 1, 9, 9], [200., 200, 300, 250]]}))

def test_the_device_reaches_the_detector(pictures, tmp_path, monkeypatch):
    asked, real = [], store_module.cached_detector
    def spy(name, keep, device):
        asked.append((name, keep, device))
        return real(name, keep, 'cpu')
    monkeypatch.setattr(store_module, 'cached_detector', spy)
    fill(pictures, tmp_path/'s', device='cuda:1')
    assert set(asked) == {('world', 4, 'cuda:1')}

def test_nothing_usable_in_a_batch():
    assert describe_pictures([None, None], load_detector('world', 4)) == ['there is no such picture']*2

@pytest.mark.parametrize('answer, told', [
    (lambda images, found: found + found[:1], 'pictures a.jpg to b.jpg: expected a list with an answer for each of 2 pictures, got 3 answers'), (lambda images, found: found[:1], 'got 1 answers'),
    (lambda images, found: found[5], r'IndexError: .* \(test_store.py, line [0-9]+\)'), (lambda images, found: images, r'picture a.jpg: expected Regions of size \(60, 40\), got Image'),
    (lambda images, found: [replace(each, size=each.size[::-1]) for each in found], r'picture a.jpg: expected Regions of size \(60, 40\), got regions of \(40, 60\)')])
def test_a_detector_that_fails_is_named_with_the_pictures(tmp_path, answer, told):
    class Detector:
        name, classes, width = 'mine-1', CLASSES, WIDTH
        def __call__(self, images, boxes=None): return answer(images, [replace(some_regions(i, 3), size=image.size) for i, image in enumerate(images)])
    for name in 'ab': Image.new('RGB', (60, 40)).save(tmp_path/f'{name}.jpg')
    with pytest.raises(ValueError, match=f'detector mine-1, {told}' if told.startswith('picture') else told): describe_pictures([tmp_path/'a.jpg', tmp_path/'b.jpg'], Detector())


def write_as_nobody(folder, said):
    os.setuid(65534)
    try: StoreWriter(folder, ['a'], WIDTH, CLASSES, {})
    except OSError as error: said.put(str(error))

@pytest.mark.fault(19)
@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() != 0, reason='only root can become somebody else')
def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path/'s').mkdir(mode=0o755)
    for folder in (tmp_path, *tmp_path.parents[:3]): os.chmod(folder, os.stat(folder).st_mode | 0o55)
    said = FORK.Queue()
    process = FORK.Process(target=write_as_nobody, args=(tmp_path/'s', said))
    process.start(), process.join()
    assert process.exitcode == 0 and str(tmp_path/'s') in said.get(timeout=5)

def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path/'s').write_text('')
    with pytest.raises(NotADirectoryError, match='s: a file; name a folder'): write_store(tmp_path/'s', [some_regions(0)])
