"What others left: every layout that we write is read back the same, nothing in a file is ever executed, and a bad record is one bad record."
import base64
import csv
import json
import os
import pickle
import subprocess
import sys
from collections import OrderedDict

import h5py
import lmdb
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from vlground.core import rng
from vlground.datasets import read_captions
from vlground.shards import read_manifest
from vlground.store import Store
from vlground.transfer import (DOWNSTREAM, LAYOUTS, PRETRAINING, TSV, UNKNOWN, VOLTA, Record, decode_array, find_layout, from_top_class, import_features, make_record, need_extra, open_database,
                               text_row, to_regions, unique_ids, unpack_record, write_downstream_lmdb, write_h5, write_pretraining_lmdb, write_tsv)

WIDTH, CLASSES = 16, 12


def some_record(i, n=None, classes=CLASSES, width=WIDTH):
    generator = rng('transfer', i)
    n = int(generator.integers(1, 6)) if n is None else n
    corners = np.sort(generator.random((n, 2, 2)), axis=1).reshape(n, 4)*[200, 100, 200, 100]*.9
    corners[:, 2:] += 1
    scores = np.exp(2*generator.standard_normal((n, classes)))
    probs = (scores/scores.sum(1, keepdims=True)).astype(np.float32)
    return Record(str(500 + i), (200, 100), corners.astype(np.float32), generator.standard_normal((n, width)).astype(np.float32), probs, f'caption {i}, "quoted"\tü')


RECORDS = [some_record(i) for i in range(7)]


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "One file of each layout, and variants."
    folder = tmp_path_factory.mktemp('files')
    write_pretraining_lmdb(RECORDS, folder/'train.lmdb')
    write_downstream_lmdb(RECORDS, folder/'text.lmdb')
    write_downstream_lmdb(RECORDS, folder/'arrays.lmdb', arrays=True)
    write_tsv(RECORDS, folder/'all.tsv')
    write_tsv([record._replace(class_probs=None) for record in RECORDS], folder/'bare.tsv')
    write_h5(RECORDS, folder/'volta.h5')
    return folder


def read_all(path, layout=None):
    layout = layout or find_layout(path)
    places = list(layout.index(path))
    with layout.opened(path) as read: return [read(place) for _, place in places]


def same(a, b): return a[:2] == b[:2] and all(x is None if y is None else np.array_equal(x, y) for x, y in zip(a[2:5], b[2:5]))


# round trips

@pytest.mark.parametrize('name, layout', [('train.lmdb', PRETRAINING), ('text.lmdb', DOWNSTREAM), ('arrays.lmdb', DOWNSTREAM), ('all.tsv', TSV), ('bare.tsv', TSV), ('volta.h5', VOLTA)])
def test_round_trip(files, name, layout):
    assert find_layout(files/name) is layout is LAYOUTS[layout.name]
    found = read_all(files/name)
    assert len(found) == len(RECORDS)
    for a, b in zip(found, RECORDS):
        if layout is VOLTA: assert same(a._replace(class_probs=None), b._replace(class_probs=None)) and (a.class_probs.argmax(1) == b.class_probs[:, 1:].argmax(1) + 1)[b.class_probs.argmax(1) > 0].all()
        else: assert same(a, b._replace(class_probs=None) if name == 'bare.tsv' else b)
        assert a.caption == (b.caption if layout is PRETRAINING else None)


@pytest.mark.parametrize('name', ['train.lmdb', 'text.lmdb', 'arrays.lmdb', 'all.tsv'])
def test_import(files, tmp_path, name):
    store = Store(import_features(files/name, tmp_path/'s', shard_size=3, quiet=True))
    assert store.ids == [record.id for record in RECORDS] and store.errors == {} and store.verify() == []
    assert store.classes == ('background', *(f'class {i}' for i in range(1, CLASSES))) and store.manifest['made_by']['class_probs'] == 'all classes'
    for record, found in zip(RECORDS, store):
        assert found.size == record.size and np.array_equal(found.boxes, record.boxes) and np.array_equal(found.features, record.features.astype(np.float16))
        np.testing.assert_allclose(found.class_probs, record.class_probs, atol=1e-6)
    assert not (tmp_path/'s'/'index.json').exists()
    assert (tmp_path/'s'/'captions.jsonl').exists() == (name == 'train.lmdb')


def test_captions_can_be_read(files, tmp_path):
    out = import_features(files/'train.lmdb', tmp_path/'s', quiet=True)
    rows = [json.loads(line) for line in (out/'captions.jsonl').read_text().splitlines()]
    assert rows == [{'id': record.id, 'image': record.id, 'caption': record.caption} for record in RECORDS]
    (tmp_path/'images').mkdir()
    with pytest.raises(FileNotFoundError, match='7 of 7 pictures'): read_captions(out/'captions.jsonl', tmp_path/'images')


def test_volta_gives_the_top_class(files, tmp_path):
    store = Store(import_features(files/'volta.h5', tmp_path/'s', quiet=True))
    assert len(store.classes) == 1601 and store.manifest['made_by']['class_probs'] == 'top class' and store.verify() == []
    for record, found in zip(RECORDS, store):
        np.testing.assert_allclose(found.class_probs[:, 1:].max(1).values, record.class_probs[:, 1:].max(1), atol=1e-6)
        np.testing.assert_allclose(found.class_probs.sum(1), 1, atol=1e-4)


def test_without_classes(files, tmp_path):
    store = Store(import_features(files/'bare.tsv', tmp_path/'s', quiet=True))
    assert store.classes == UNKNOWN and 'not fit for pre-training' in store.manifest['made_by']['class_probs']
    assert store.verify() == [] and store.batch([0, 1]).features.shape[0] == 2


def test_names_of_classes(files, tmp_path):
    names = ['background', *(f'kind {i}' for i in range(11))]
    assert Store(import_features(files/'all.tsv', tmp_path/'s', classes=names, quiet=True)).classes == tuple(names)
    with pytest.raises(ValueError, match='over 12 classes, and 3 names'): import_features(files/'all.tsv', tmp_path/'t', classes=['a', 'b', 'c'], quiet=True)


# the layouts of the references, written here by other means

def reference_rows(): return [dict(image_id=r.id, image_w=str(r.size[0]), image_h=str(r.size[1]), num_boxes=str(len(r.boxes)), **{
    name: base64.b64encode(array.tobytes()).decode() for name, array in (('boxes', r.boxes), ('features', r.features), ('cls_prob', r.class_probs))}) for r in RECORDS]


def test_tsv_is_what_csv_writes(files, tmp_path):
    "Python's csv, with the field limit raised as the references do, reads our file and writes one that we read."
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with open(files/'all.tsv', newline='') as file: rows = list(csv.DictReader(file, 'image_id image_w image_h num_boxes boxes features cls_prob'.split(), delimiter='\t'))
        assert rows == reference_rows()
        with open(tmp_path/'theirs.tsv', 'w', newline='') as file: csv.DictWriter(file, rows[0], delimiter='\t').writerows(rows)
    finally: csv.field_size_limit(limit)
    assert (tmp_path/'theirs.tsv').read_bytes() == (files/'all.tsv').read_bytes()


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('kind', [dict, OrderedDict])
def test_downstream_pickles_of_every_protocol(tmp_path, protocol, kind):
    with lmdb.open(str(tmp_path/'d.lmdb'), map_size=2**24) as database, database.begin(write=True) as t:
        for row in reference_rows(): t.put(row['image_id'].encode(), pickle.dumps(kind(row), protocol))
        t.put(b'keys', pickle.dumps([row['image_id'].encode() for row in reference_rows()], protocol))
    assert all(map(same, read_all(tmp_path/'d.lmdb'), RECORDS))


def test_the_multi_task_converter_and_volta_s(tmp_path):
    "Arrays and numbers instead of text; VOLTA's own names; no num_boxes."
    for name, make in (('mt', lambda r: dict(image_id=int(r.id), image_h=r.size[1], image_w=r.size[0], num_boxes=len(r.boxes), boxes=r.boxes, features=r.features)),
                       ('volta', lambda r: dict(img_id=r.id, img_h=np.int64(r.size[1]), img_w=np.int64(r.size[0]), boxes=r.boxes, features=r.features)),
                       ('volta as text', lambda r: dict(img_id=r.id, img_h='100', img_w='200', boxes=base64.b64encode(r.boxes.tobytes()), features=base64.b64encode(r.features.tobytes())))):
        with lmdb.open(str(tmp_path/name), map_size=2**24) as database, database.begin(write=True) as t:
            for r in RECORDS: t.put(r.id.encode(), pickle.dumps(make(r)))
            t.put(b'keys', pickle.dumps([r.id.encode() for r in RECORDS]))
        assert all(same(a, b._replace(class_probs=None)) for a, b in zip(read_all(tmp_path/name), RECORDS, strict=True))


def test_a_list_of_keys_as_text(tmp_path):
    with lmdb.open(str(tmp_path/'d.lmdb'), map_size=2**24) as database, database.begin(write=True) as t:
        for row in reference_rows(): t.put(row['image_id'].encode(), pickle.dumps(row))
        t.put(b'keys', pickle.dumps([row['image_id'] for row in reference_rows()]))
    assert all(map(same, read_all(tmp_path/'d.lmdb'), RECORDS))


def test_hdf5_without_classes_and_with_a_slash(tmp_path):
    write_h5([record._replace(class_probs=None) for record in RECORDS], tmp_path/'bare.h5')
    assert all(same(a, b._replace(class_probs=None)) for a, b in zip(read_all(tmp_path/'bare.h5'), RECORDS, strict=True))
    with pytest.raises(ValueError, match="x.h5: the id 'album/1' has a slash"): write_h5([RECORDS[0]._replace(id='album/1')], tmp_path/'x.h5')


def packed(array, text=False):
    key = (lambda name: name) if text else str.encode
    return {key('nd'): True, key('type'): array.dtype.str, key('kind'): b'', key('shape'): array.shape, key('data'): array.tobytes()}


@pytest.mark.parametrize('text', [False, True])
def test_pretraining_records_of_old_and_new_msgpack_numpy(text):
    r = RECORDS[0]
    row = [packed(r.features, text), packed(r.class_probs, text), packed(r.boxes, text), str(len(r.boxes)), '100', '200', r.id, r.caption]
    found = make_record(unpack_record(msgpack.packb(row, use_bin_type=True), 'x'), 'x')
    assert same(found, r) and found.caption == r.caption


def test_pretraining_records_that_were_pickled_and_volta_s_thirteen_fields():
    r, none = RECORDS[1], np.zeros(3, np.float32)
    for row in ([r.features, r.class_probs, r.boxes, str(len(r.boxes)), '100', '200', r.id, r.caption],
                [r.features, r.class_probs, none, none, none, none, none, r.boxes, str(len(r.boxes)), '100', '200', r.id, r.caption]):
        found = make_record(unpack_record(pickle.dumps(row), 'x'), 'x')
        assert same(found, r) and found.caption == r.caption


def test_our_database_is_laid_out_as_tensorpack_s(files):
    with open_database(files/'train.lmdb') as database:
        keys = msgpack.unpackb(database.get(b'__keys__'))
        assert keys == [f'{i:08}'.encode() for i in range(7)] and [key for key, _ in database.cursor()] == keys + [b'__keys__']
        row = msgpack.unpackb(database.get(keys[2]))
        assert [type(value) for value in row] == [dict]*3 + [str]*5 and row[3:] == [str(len(RECORDS[2].boxes)), '100', '200', '502', RECORDS[2].caption]
        assert row[0].keys() == {b'nd', b'type', b'kind', b'shape', b'data'} and row[0][b'type'] == '<f4' and row[0][b'shape'] == list(RECORDS[2].features.shape)
    with open_database(files/'text.lmdb') as database:
        assert pickle.loads(database.get(b'keys')) == [r.id.encode() for r in RECORDS] and pickle.loads(database.get(b'503')) == reference_rows()[3]
    with h5py.File(files/'volta.h5') as file:
        assert set(file) == {r.id for r in RECORDS} and set(file['500']) == {'features', 'boxes', 'img_w', 'img_h', 'obj_id', 'obj_conf', 'attr_id', 'attr_conf'} and file['500/img_w'][()] == 200


def test_tsv_in_parts(files, tmp_path):
    (tmp_path/'parts').mkdir()
    for i, part in enumerate((RECORDS[:3], RECORDS[3:4], RECORDS[4:])): write_tsv(part, tmp_path/'parts'/f'x.tsv.{i}')
    assert find_layout(tmp_path/'parts') is TSV and all(map(same, read_all(tmp_path/'parts'), RECORDS))
    assert Store(import_features(tmp_path/'parts', tmp_path/'s', quiet=True)).ids == [r.id for r in RECORDS]


# nothing is executed

class Bomb:
    def __init__(self, folder): self.folder = folder
    def __reduce__(self): return os.system, (f'echo boom > {self.folder}/boom',)


def bombs(folder, r=RECORDS[0]):
    "Records with a bomb in many places."
    bomb = Bomb(folder)
    row = dict(image_id=r.id, image_w='200', image_h='100', num_boxes=str(len(r.boxes)), boxes=r.boxes, features=r.features)
    objects = np.empty(1, object)
    objects[0] = bomb
    return {'itself': bomb, 'a value': row | {'features': bomb}, 'a key': {1: row, 'x': [bomb]}, 'an array of objects': row | {'features': objects}}


@pytest.mark.fault(7)
@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
@pytest.mark.parametrize('place', ['itself', 'a value', 'a key', 'an array of objects'])
def test_bombs_in_the_downstream_database(tmp_path, place, protocol):
    bomb = pickle.dumps(bombs(tmp_path)[place], protocol)
    with lmdb.open(str(tmp_path/'d.lmdb'), map_size=2**24) as database, database.begin(write=True) as t:
        t.put(b'500', bomb), t.put(b'501', pickle.dumps(reference_rows()[1]))
        t.put(b'keys', pickle.dumps([b'500', b'501']))
    store = Store(import_features(tmp_path/'d.lmdb', tmp_path/'s', max_errors=.5, quiet=True))
    assert list(store.errors) == ['500'] and 'not a pickle of plain data' in store.errors['500'] and not (tmp_path/'boom').exists()
    os.system(f'echo boom > {tmp_path}/boom')
    assert (tmp_path/'boom').exists() # it would have been seen


@pytest.mark.fault(7)
def test_a_bomb_as_the_list_of_keys(tmp_path):
    with lmdb.open(str(tmp_path/'d.lmdb'), map_size=2**24) as database, database.begin(write=True) as t: t.put(b'keys', pickle.dumps([Bomb(tmp_path)]))
    with pytest.raises(ValueError, match='key keys: not a pickle of plain data'): import_features(tmp_path/'d.lmdb', tmp_path/'s', quiet=True)
    assert not (tmp_path/'boom').exists()


@pytest.mark.fault(7)
@pytest.mark.parametrize('hidden', ['a pickle', 'an array of objects', 'an array of records', 'a subclass'])
def test_bombs_in_the_pretraining_database(tmp_path, hidden):
    bomb, r = pickle.dumps(Bomb(tmp_path)), RECORDS[0]
    kind = {'an array of objects': '|O', 'an array of records': [['a', '|O']], 'a subclass': '|V8'}.get(hidden)
    array = {b'nd': True, b'type': kind, b'kind': b'V' if hidden == 'an array of records' else b'O', b'shape': (1,), b'data': bomb}
    data = bomb if hidden == 'a pickle' else msgpack.packb([array, array, array, '1', '100', '200', r.id, 'x'])
    with lmdb.open(str(tmp_path/'d.lmdb'), subdir=False, map_size=2**24) as database, database.begin(write=True) as t:
        t.put(b'00000000', data), t.put(b'00000001', msgpack.packb([packed(r.features), packed(r.class_probs), packed(r.boxes), str(len(r.boxes)), '100', '200', r.id, 'x']))
        t.put(b'__keys__', msgpack.packb([b'00000000', b'00000001']))
    store = Store(import_features(tmp_path/'d.lmdb', tmp_path/'s', max_errors=.5, quiet=True))
    assert store.ids == ['00000000', '500'] and list(store.errors) == ['00000000'] and not (tmp_path/'boom').exists()


@settings(max_examples=60)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_a_clear_error(data):
    try: make_record(unpack_record(data, 'key 1'), 'key 1')
    except ValueError as error: assert str(error).startswith('key 1')


# bad records

def row(**changes): return text_row(RECORDS[0]) | changes


@pytest.mark.parametrize('changes, told', [
    (dict(boxes='AAA!'), 'boxes: not base64'), (dict(features='AAAA'), 'features: not base64 of 32-bit floats'), (dict(num_boxes='99'), 'do not fill 99 rows'), (dict(num_boxes='many'), 'whole numbers'),
    (dict(image_w=None), 'whole numbers'), (dict(image_w=float('inf')), 'whole numbers'), (dict(num_boxes='-1'), 'num_boxes must be at least 0, got -1'),
    (dict(cls_prob=None, obj_id=[1, 2], obj_conf=[.5]), 'obj_id and obj_conf must be equally many, got 2 and 1'), (dict(cls_prob=None, obj_id=None, obj_conf=[.5]), 'int'), (dict(boxes=7), 'expected base64 text or an array, got int'), (dict(boxes=np.array(['a'])), 'expected base64 text or an array'),
    (dict(boxes=text_row(RECORDS[0])['features']), 'are not .* boxes')])
def test_bad_values_are_named(changes, told):
    with pytest.raises(ValueError, match=f'line 7.*{told}'): make_record(row(**changes), 'line 7')


def test_missing_values_are_named():
    with pytest.raises(ValueError, match='line 7: no image_w, features; it has image_id, image_h, num_boxes, boxes, cls_prob'):
        make_record({name: value for name, value in row().items() if name not in ('image_w', 'features')}, 'line 7')
    with pytest.raises(ValueError, match='line 7: expected named values, got list'): make_record([1], 'line 7')


def broken_tsv(folder):
    nan = RECORDS[3].features.copy()
    nan[0, 0] = np.nan
    outside, reversed_ = RECORDS[1].boxes + 300, RECORDS[5].boxes[:, [2, 3, 0, 1]]
    write_tsv([RECORDS[0], RECORDS[1]._replace(boxes=outside), RECORDS[2], RECORDS[3]._replace(features=nan), RECORDS[4]._replace(class_probs=None), RECORDS[5]._replace(boxes=reversed_), RECORDS[6]], folder/'b.tsv')
    with open(folder/'b.tsv', 'a') as file: file.write('600\t200\t100\n601\t200\t100\t1\tAAAA\tAAAA\tAAAA\n')
    return folder/'b.tsv'


def test_bad_records_are_counted_and_listed(tmp_path):
    path = broken_tsv(tmp_path)
    with pytest.raises(ValueError, match=r'could not be used, more than the share of 0.1 .*the first: 501: box 0'): import_features(path, tmp_path/'s', shard_size=2, quiet=True)
    assert read_manifest(tmp_path/'s')['shards'] # finished shards stay
    store = Store(import_features(path, tmp_path/'s', shard_size=2, quiet=True, max_errors=.7))
    told = {'501': 'lie in the picture', '503': 'not finite', '504': 'no class distributions', '505': 'x1 < x2', '600': '3 cells', '601': 'not base64'}
    assert store.errors.keys() == told.keys() and all(told[id] in why for id, why in store.errors.items()) and store.verify() == []
    assert [len(store.get(r.id).boxes) for r in (RECORDS[0], RECORDS[2], RECORDS[6])] == [len(r.boxes) for r in (RECORDS[0], RECORDS[2], RECORDS[6])]


def test_a_record_without_regions(tmp_path):
    empty = some_record(0, 0)
    for write, name in ((write_pretraining_lmdb, 'a.lmdb'), (write_downstream_lmdb, 'b.lmdb'), (write_tsv, 'c.tsv'), (write_h5, 'd.h5')):
        write([empty, *RECORDS[1:]], tmp_path/name)
        store = Store(import_features(tmp_path/name, tmp_path/f's {name}', quiet=True))
        assert store.errors == {} and len(store[0].boxes) == 0 and len(store[1].boxes) == len(RECORDS[1].boxes) and store.verify() == []


def test_boxes_a_pixel_beyond_the_edge_are_cut():
    r = RECORDS[0]._replace(boxes=np.array([[-.9, 0, 200.9, 100.5]], np.float32), features=RECORDS[0].features[:1], class_probs=RECORDS[0].class_probs[:1])
    assert to_regions(r, WIDTH, CLASSES).boxes.tolist() == [[0, 0, 200, 100]]
    with pytest.raises(ValueError, match='500: box 0'): to_regions(r._replace(boxes=np.array([[-1.5, 0, 9, 9]], np.float32)), WIDTH, CLASSES)


# ids

@given(st.lists(st.sampled_from(['7', '8', '7#1', '8#2', '7#1#1', '9']), max_size=14))
def test_unique_ids(ids):
    found = unique_ids(ids)
    assert len(found) == len(set(found)) == len(ids) and all(name == id or name.startswith(f'{id}#') for name, id in zip(found, ids))
    assert all(name == id for i, (name, id) in enumerate(zip(found, ids)) if id not in ids[:i]) # the first keeps its name


def test_two_pictures_with_one_id_are_both_kept(tmp_path):
    write_pretraining_lmdb([RECORDS[0], RECORDS[1], RECORDS[2]._replace(id='500')], tmp_path/'t.lmdb')
    store = Store(import_features(tmp_path/'t.lmdb', tmp_path/'s', quiet=True))
    assert store.ids == ['500', '501', '500#1'] and np.array_equal(store.get('500#1').boxes, RECORDS[2].boxes)


# going on, workers, arrays of jobs

def contents(folder): return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != '.lock'}


@pytest.mark.parametrize('name', ['train.lmdb', 'arrays.lmdb', 'all.tsv', 'volta.h5'])
def test_jobs_of_an_array_and_one_run_give_the_same_bytes(files, tmp_path, name):
    whole = import_features(files/name, tmp_path/'whole', shard_size=2, quiet=True)
    parts = tmp_path/'parts'
    import_features(files/name, parts, shard_size=2, quiet=True, shard=(2, 2))
    assert list(read_manifest(parts)['shards']) == ['1', '3'] and (parts/'index.json').exists() and not (parts/'captions.jsonl').exists()
    import_features(files/name, parts, shard_size=2, quiet=True, shard=(1, 2))
    assert contents(parts) == contents(whole)


def test_another_source_of_the_same_name_is_not_mixed_in(tmp_path):
    write_tsv(RECORDS, tmp_path/'all.tsv')
    import_features(tmp_path/'all.tsv', tmp_path/'s', shard_size=2, quiet=True, shard=(1, 2))
    (tmp_path/'all.tsv').unlink()
    write_tsv([some_record(i, 9)._replace(id=record.id) for i, record in enumerate(RECORDS)], tmp_path/'all.tsv')
    with pytest.raises(ValueError, match='made_by.files_sha256 differ'): import_features(tmp_path/'all.tsv', tmp_path/'s', shard_size=2, quiet=True)


def test_a_database_cut_short_is_told(files, tmp_path):
    "In a process of its own: without the check, reading beyond the end would end it."
    data = (files/'train.lmdb').read_bytes()
    (tmp_path/'cut.lmdb').write_bytes(data[:len(data)//2])
    code = f'from vlground.transfer import import_features; import_features({str(tmp_path/"cut.lmdb")!r}, {str(tmp_path/"s")!r}, quiet=True)'
    ended = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert ended.returncode == 1 and f'cut.lmdb: {len(data)//2} bytes, but its pages take' in ended.stderr


def test_the_index_is_made_once(files, tmp_path, monkeypatch):
    import vlground.transfer as transfer
    import_features(files/'all.tsv', tmp_path/'s', shard_size=2, quiet=True, shard=(1, 2))
    def fails(path): raise AssertionError('indexed again')
    monkeypatch.setitem(transfer.LAYOUTS, TSV.name, transfer.Layout(TSV.name, fails, TSV.opened, TSV.write))
    monkeypatch.setattr(transfer, 'find_layout', lambda path: transfer.LAYOUTS[TSV.name])
    import_features(files/'all.tsv', tmp_path/'s', shard_size=2, quiet=True)
    assert Store(tmp_path/'s').verify() == []


def test_workers(files, tmp_path):
    whole = import_features(files/'train.lmdb', tmp_path/'whole', shard_size=2, quiet=True)
    assert contents(import_features(files/'train.lmdb', tmp_path/'two', shard_size=2, workers=2, quiet=True)) == contents(whole)


def test_memory_is_bounded_by_a_shard(files, tmp_path, monkeypatch):
    "No more records are alive at once than a shard has."
    import vlground.transfer as transfer
    sizes, real = [], transfer.StoreWriter.write
    monkeypatch.setattr(transfer.StoreWriter, 'write', lambda self, number, regions, more: sizes.append(len(regions)) or real(self, number, regions, more))
    import_features(files/'all.tsv', tmp_path/'s', shard_size=2, quiet=True)
    assert sizes == [2, 2, 2, 1]


# other errors

def test_files_that_are_nothing_known(tmp_path, files):
    with pytest.raises(FileNotFoundError, match='nowhere: no such file'): import_features(tmp_path/'nowhere', tmp_path/'s', quiet=True)
    (tmp_path/'a.txt').write_text('hello')
    with pytest.raises(ValueError, match='neither LMDB nor HDF5 nor a TSV'): find_layout(tmp_path/'a.txt')
    (tmp_path/'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=r'no folder with files \*.tsv'): find_layout(tmp_path/'empty')
    with lmdb.open(str(tmp_path/'half.lmdb'), map_size=2**20) as database, database.begin(write=True) as t: t.put(b'1', b'x')
    with pytest.raises(ValueError, match='neither the key __keys__ .* was its writing finished'): find_layout(tmp_path/'half.lmdb')
    (tmp_path/'cut.lmdb').write_bytes((files/'train.lmdb').read_bytes()[:3000])
    with pytest.raises(ValueError, match='cut.lmdb: not an LMDB database'): find_layout(tmp_path/'cut.lmdb')
    (tmp_path/'none.tsv').write_text('1\t2\t3\t4\t5\t6\n')
    with pytest.raises(ValueError, match='none of 1 records can be used; the last: .*not base64'): import_features(tmp_path/'none.tsv', tmp_path/'s', quiet=True)


def test_nothing_is_overwritten(files):
    for write, name in ((write_pretraining_lmdb, 'train.lmdb'), (write_downstream_lmdb, 'text.lmdb'), (write_tsv, 'all.tsv'), (write_h5, 'volta.h5')):
        with pytest.raises((FileExistsError, OSError), match='exists'): write(RECORDS, files/name)


@pytest.mark.parametrize('library, name', [('lmdb', 'train.lmdb'), ('msgpack', 'train.lmdb'), ('h5py', 'volta.h5')])
def test_an_absent_extra_is_told_with_the_command(files, tmp_path, monkeypatch, library, name):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=rf'{library} is not installed: pip install "vlground\[transfer\]"'): import_features(files/name, tmp_path/'s', quiet=True)
    with pytest.raises(ModuleNotFoundError, match='pip install'): need_extra(library)


@pytest.mark.parametrize('top, confidence', [([-1], [.5]), ([1600], [.5]), ([3], [1.5]), ([3], [float('nan')])])
def test_top_classes_that_cannot_be(top, confidence):
    with pytest.raises(ValueError, match='obj_id must be'): from_top_class(np.array(top), np.array(confidence))


@given(st.integers(0, 5), st.integers(0, 6))
def test_arrays_of_any_size(rows, columns):
    array = np.arange(rows*columns, dtype=np.float32).reshape(rows, columns)
    found = decode_array(base64.b64encode(array.tobytes()), rows, 'x')
    assert found.shape == (rows, columns if rows else 0) and np.array_equal(found.ravel(), array.ravel())
