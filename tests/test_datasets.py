"Readers and writers of captions, rows, pickles and parts: round trips, files as the tools leave them, files that lie, files that bite."
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from files import jpeg, write_tar
from hypothesis import assume, example, given, settings, strategies as st

from vlground.albums import find_images, read_picture
from vlground.datasets import (Captions, CaptionedImage, Missing, fields_of, fraction_of, plain_unpickle, read_captions, read_fraction, read_pickle, typed_fields,
                               write_captions, write_fraction, write_img2dataset)

CHARACTERS = st.characters(codec='utf-8') | st.sampled_from('\\\t\n\r\0\ufeff\u2028\u2029\x0b\x0c\x85"\'#')
NAMES = ('a.jpg', 'b.PNG', 'deep/er/a.jpg', 'with space.webp', 'ünï#1.jpeg', '100%.gif')


def quietly(*arguments, **keywords):
    "What `read_captions` reads, without its warning."
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        return read_captions(*arguments, **keywords)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')/'images'
    for name in NAMES:
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/name).write_bytes(b'')
    (folder/'notes.txt').write_bytes(b'')
    return folder


# captions in a list

@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.text(CHARACTERS)), max_size=6), st.sampled_from(['tsv', 'jsonl']))
@example([('a.jpg', '\ufeffa\tb\nc\rd\\t\\\\n'), ('a.jpg', '')], 'tsv')
@example([('a.jpg', 'caption')], 'tsv')
def test_captions_round_trip(images, rows, suffix):
    items, count = [], {}
    for name, caption in rows:
        number = count[name] = count.get(name, -1) + 1
        items.append(CaptionedImage(f'{name}#{number}' if number else name, images/name, caption, name))
    file = images.parent/f'captions.{suffix}'
    write_captions(items, file)
    assert read_captions(file) == items
    assert read_captions(file, images) == items

@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters=''), min_size=1), unique=True, max_size=4), st.text())
def test_jsonl_keeps_any_id_and_half_surrogates(images, ids, caption):
    items = [CaptionedImage(id, images/'a.jpg', caption + '\ud800', 'a.jpg') for id in ids]
    write_captions(items, images.parent/'own.jsonl')
    assert read_captions(images.parent/'own.jsonl') == items

@given(st.text(st.characters(codec='utf-8', exclude_characters='\t\n\r\ufeff')))
@settings(deadline=None)
@example(r'3 \times 4, C:\new \\ \ufeff')
def test_published_lines_are_taken_as_they_stand(images, caption):
    (images.parent/'published.tsv').write_bytes(f'{caption}\thttp://host/a.jpg\n'.encode())
    assert [item.caption for item in read_captions(images.parent/'published.tsv')] == [caption]

@pytest.mark.parametrize('url, key', [
    ('a.jpg', 'a.jpg'), ('images/a.jpg', 'a.jpg'), ('deep/er/a.jpg', 'deep/er/a.jpg'), ('./images/deep/er/a.jpg', 'deep/er/a.jpg'), ('../elsewhere/images/a.jpg', 'a.jpg'),
    ('https://host.org/p/q/a.jpg?size=3#part', 'a.jpg'), ('https://host.org/with%20space.webp', 'with space.webp'), ('http://host.org/deep/er/a.jpg', 'deep/er/a.jpg'), ('100%.gif', '100%.gif')])
def test_which_picture_an_address_means(images, url, key):
    (images.parent/'one.tsv').write_text(f'hello\t{url}\n')
    (item,) = read_captions(images.parent/'one.tsv')
    assert item == CaptionedImage(key, images/key, 'hello', key)

def test_a_missing_picture_is_not_replaced_by_one_of_the_same_name(images):
    (images.parent/'one.tsv').write_text('hello\tcats/b.jpg\n')
    with pytest.raises(FileNotFoundError, match='one.tsv, line 1: cats/b.jpg'): read_captions(images.parent/'one.tsv')

def test_windows_line_ends_mark_and_empty_lines(images):
    (images.parent/'w.tsv').write_bytes('\ufeffhello\ta.jpg\r\n\r\nagain\ta.jpg'.encode())
    assert [item.caption for item in read_captions(images.parent/'w.tsv')] == ['hello', 'again']

def test_missing_pictures_up_to_a_share(images):
    file = images.parent/'m.tsv'
    file.write_text('x\ta.jpg\ny\thttp://h/gone.jpg\nz\ta.jpg\nw\tb.PNG\n')
    with pytest.raises(FileNotFoundError, match=r'1 of 4 pictures.*m.tsv, line 2: http://h/gone.jpg.*max_missing'): read_captions(file, max_missing=0.24)
    with pytest.warns(UserWarning, match='1 of 4'): assert [item.id for item in read_captions(file, max_missing=0.25)] == ['a.jpg', 'a.jpg#1', 'b.PNG']

@pytest.mark.parametrize('name, content, told', [
    ('x.tsv', b'fine\ta.jpg\nno tab here\n', r'x.tsv, line 2: expected caption<TAB>url, got 1 column'),
    ('x.tsv', b'one\ttwo\tthree\n', r'line 1: .*got 3 column'),
    ('x.tsv', b'fine\ta.jpg\ncaf\xe9\ta.jpg\n', r'x.tsv, line 2: not UTF-8'),
    ('x.jsonl', b'{"caption": "x", "image": "a.jpg"}\n{"caption"', r'x.jsonl, line 2: not JSON'),
    ('x.jsonl', b'{"caption": "x", "picture": "a.jpg"}', r'line 1: expected an object with the texts "caption" and "image"'),
    ('x.jsonl', b'{"caption": null, "image": "a.jpg"}', r'line 1: expected'),
    ('x.jsonl', b'["x", "a.jpg"]', r'line 1: expected'),
    ('x.jsonl', b'{"caption": "x", "image": "a.jpg", "id": "i"}\n{"caption": "y", "image": "b.PNG", "id": "i"}', r"line 2: the id 'i' was already used in .*line 1")])
def test_bad_lines_are_named(images, name, content, told):
    (images.parent/name).write_bytes(content)
    with pytest.raises(ValueError, match=told): read_captions(images.parent/name)

def test_what_a_table_cannot_carry_is_refused(images, tmp_path):
    own = CaptionedImage('my id', images/'a.jpg', 'x', 'a.jpg')
    with pytest.raises(ValueError, match="cannot keep the id 'my id'.*jsonl"): write_captions([own], tmp_path/'c.tsv')
    with pytest.raises(ValueError, match='surrogate'): write_captions([replace(own, id='a.jpg', caption='\ud800')], tmp_path/'c.tsv')
    with pytest.raises(ValueError, match='c.csv: expected a .tsv or a .jsonl'): write_captions([own], tmp_path/'c.csv')
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match='c.tsv: no such captions file'): read_captions(tmp_path/'c.tsv')
    with pytest.raises(FileNotFoundError, match='nowhere'): (tmp_path/'c.tsv').touch(); read_captions(tmp_path/'c.tsv', tmp_path/'nowhere')
    (tmp_path/'c.csv').write_text('a,b\n')
    with pytest.raises(ValueError, match='c.csv: expected a .tsv file, a .jsonl file or a folder'): read_captions(tmp_path/'c.csv')

CAPTIONS = {'a regular expression': r'(a|b)* [^$] \d{3} .*? \\ C:\new\temp', 'nothing': '', 'blanks': '  \u3000 ', 'NUL': 'a\0b', 'emoji': '👩‍👩‍👧‍👦 and 🐕‍🦺', 'right to left': 'כלב אדום رأى قطة',
            'marks': 'e\u0301 o\u0308 \u0061\u0328\u0301', 'long': 'word '*10_000, 'breaks': 'a\nb\r\nc\u2028d\x85e\x0bf', 'quotes': '"a" \'b\' #1'}

@pytest.mark.fault(9)
@pytest.mark.parametrize('kind', CAPTIONS)
def test_strange_captions_survive_every_layout(images, tmp_path, kind):
    caption = CAPTIONS[kind]
    items = [CaptionedImage('a.jpg', images/'a.jpg', caption, 'a.jpg')]
    for name in ('c.tsv', 'c.jsonl'):
        write_captions(items, tmp_path/name)
        data = (tmp_path/name).read_bytes()
        (tmp_path/name).write_bytes(data.removesuffix(b'\n'))
        assert read_captions(tmp_path/name, images) == items # with no line end at the end of the file
    for layout in ('files', 'webdataset'):
        write_img2dataset([('http://h/a.jpg', caption, jpeg('red'))], tmp_path/layout, layout)
        assert [item.caption for item in read_captions(tmp_path/layout)] == [caption]

def test_the_header_that_img2dataset_wants_is_no_caption(images):
    for text in ('caption\turl\nhello\ta.jpg\n', '\ufeffcaption\turl\r\nhello\ta.jpg\r\n'):
        (images.parent/'h.tsv').write_bytes(text.encode())
        assert [item.caption for item in read_captions(images.parent/'h.tsv')] == ['hello']
    (images.parent/'h.tsv').write_text('hello\ta.jpg\ncaption\turl\n')
    with pytest.raises(FileNotFoundError, match='h.tsv, line 2: url'): read_captions(images.parent/'h.tsv')

@pytest.mark.parametrize('content', [b'{"image": 5, "caption": "x"}', b'{"image": "a.jpg", "caption": ["x"]}', b'{"image": "a.jpg", "caption": "x", "id": 3}', b'"x"', b'7', b'null', b'NaN', b'1' + b'0'*6000, b'['*100_000])
def test_odd_types_in_a_line_are_one_error(images, content):
    (images.parent/'odd.jsonl').write_bytes(b'{"image": "a.jpg", "caption": "x"}\n' + content)
    with pytest.raises(ValueError, match=r'odd.jsonl, line 2: (expected an object|not JSON)'): read_captions(images.parent/'odd.jsonl')

def test_spaces_umlauts_and_relative_paths(tmp_path, monkeypatch):
    folder = tmp_path/'Bilder von früher'
    (folder/'images'/'ein Ordner').mkdir(parents=True)
    (folder/'images'/'ein Ordner'/'été 1.jpg').write_bytes(jpeg('red'))
    monkeypatch.chdir(folder)
    Path('meine captions.jsonl').write_text('{"image": "images/ein Ordner/été 1.jpg", "caption": "x"}')
    (item,) = read_captions('meine captions.jsonl')
    assert item.path == Path('images/ein Ordner/été 1.jpg') and item.image_id == 'ein Ordner/été 1.jpg' and read_picture(item.path).size == (8, 6)
    write_captions([item], 'captions.tsv')
    assert read_captions('.') == read_captions(folder/'captions.tsv', 'images') == [item]

def test_an_accent_that_was_taken_apart(tmp_path):
    (tmp_path/'e\u0301te\u0301.jpg').write_bytes(b'')
    (tmp_path/'c.tsv').write_text('x\t\u00e9t\u00e9.jpg\ny\te\u0301te\u0301.jpg\nz\thttps://h.org/%C3%A9t%C3%A9.jpg\n', 'utf-8')
    assert {item.image_id for item in read_captions(tmp_path/'c.tsv')} == {'e\u0301te\u0301.jpg'}
    (tmp_path/'\u00e9t\u00e9.jpg').write_bytes(b'')
    assert [item.image_id for item in read_captions(tmp_path/'c.tsv')][:2] == ['\u00e9t\u00e9.jpg', 'e\u0301te\u0301.jpg']

def test_a_folder_with_a_list_in_it(images):
    (images.parent/'W').mkdir(exist_ok=True)
    (images.parent/'W'/'captions.tsv').write_text('x\ta.jpg\n')
    assert [item.id for item in read_captions(images.parent/'W', images)] == ['a.jpg']
    (images.parent/'W'/'captions.jsonl').write_text('')
    with pytest.raises(ValueError, match='W: holds both captions.tsv and captions.jsonl'): read_captions(images.parent/'W', images)


# what is missing

def test_paths_are_strict_and_addresses_are_not(tmp_path):
    for name in 'ab': (tmp_path/f'{name}.jpg').write_bytes(b'')
    def read(text, **keywords):
        (tmp_path/'c.tsv').write_text(text)
        return read_captions(tmp_path/'c.tsv', **keywords)
    with pytest.warns(UserWarning, match=r'2 of 4 pictures are missing \(2 × there is no such picture\), first .*c.tsv, line 2: http://h/x.jpg'):
        found = read('1\thttp://h/a.jpg\n2\thttp://h/x.jpg\n3\thttp://h/y.jpg\n4\tb.jpg\n')
    assert [item.id for item in found] == ['a.jpg', 'b.jpg'] and isinstance(found, Captions) and found.lost == 2
    assert found.missing == [Missing(f'{tmp_path}/c.tsv, line {n}', f'http://h/{name}.jpg', 'there is no such picture') for n, name in ((2, 'x'), (3, 'y'))]
    assert found.outcomes() == {'success': 2, 'there is no such picture': 2} and repr(found) == '2 captioned pictures, 2 missing'
    assert pickle.loads(pickle.dumps(found)) == found and pickle.loads(pickle.dumps(found)).missing == found.missing
    with pytest.raises(FileNotFoundError, match='2 of 3 pictures'): read('1\thttp://h/a.jpg\n2\thttp://h/x.jpg\n3\thttp://h/y.jpg\n')
    with pytest.raises(FileNotFoundError, match='1 of 1001 pictures.*line 1001: gone.jpg'): read('x\ta.jpg\n'*1000 + 'x\tgone.jpg\n')
    with pytest.warns(UserWarning): assert len(read('x\ta.jpg\n'*1000 + 'x\tgone.jpg\n', max_missing=.001)) == 1000
    with pytest.raises(FileNotFoundError, match='1 of 4'): read('1\thttp://h/a.jpg\n2\thttp://h/x.jpg\n3\ta.jpg\n4\tb.jpg\n', max_missing=0)
    with pytest.raises(FileNotFoundError, match='if img2dataset fetched them'): read('1\thttp://h/x.jpg\n')
    for share in (-1, 1.5, float('nan')):
        with pytest.raises(ValueError, match='max_missing: expected a share from 0 to 1'): read('1\ta.jpg\n', max_missing=share)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read('1\ta.jpg\n').missing == [] and read('') == []

def test_two_addresses_never_share_a_picture_by_accident(tmp_path):
    (tmp_path/'b.org').mkdir()
    for name in ('1.jpg', '2.jpg', 'b.org/3.jpg', '3.jpg'): (tmp_path/name).write_bytes(b'')
    (tmp_path/'c.tsv').write_text('one\thttp://a.org/1.jpg\nother\thttp://b.org/1.jpg\nsame\thttp://a.org/2.jpg?w=3\nagain\thttps://a.org/2.jpg\nby path\t1.jpg\nhost\thttp://b.org/3.jpg\nflat\thttp://c.org/3.jpg\n')
    found = quietly(tmp_path/'c.tsv')
    assert [(item.caption, item.id) for item in found] == [('same', '2.jpg'), ('again', '2.jpg#1'), ('by path', '1.jpg'), ('host', 'b.org/3.jpg'), ('flat', '3.jpg')]
    assert [each.url for each in found.missing] == ['http://a.org/1.jpg', 'http://b.org/1.jpg'] and 'several addresses end in 1.jpg' in found.missing[0].why

def test_odd_addresses_are_missing_pictures_like_others(tmp_path):
    (tmp_path/'a.jpg').write_bytes(b'')
    odd = ['http://[bad/a.png', 'http://', '://', 'https://h.org:port/%zz.jpg', 'http://h/\x00', '']
    (tmp_path/'c.tsv').write_text('x\thttp://h/a.jpg\n' + ''.join(f'x\t{url}\n' for url in odd))
    assert [each.url for each in quietly(tmp_path/'c.tsv', max_missing=.9).missing] == odd

def test_pictures_in_shards_can_be_named_in_a_list(tmp_path):
    write_tar(tmp_path/'images'/'00000.tar', {'000000000.jpg': jpeg('red'), '000000001.jpg': jpeg('blue')})
    (tmp_path/'captions.tsv').write_text('one\t00000.tar/000000001.jpg\n')
    (item,) = items = read_captions(tmp_path)
    assert item.image_id == '00000.tar/000000001.jpg' and read_picture(item.path).getpixel((0, 0))[2] > 200
    write_captions(items, tmp_path/'again.tsv')
    assert read_captions(tmp_path/'again.tsv') == items


# as img2dataset leaves them

PICTURES = [jpeg(colour, size) for colour in ('red', 'white') for size in ((8, 6), (3, 5))]
ROWS = st.lists(st.tuples(st.integers(0, 10**6).map(lambda n: f'https://h.org/{n}.jpg'), st.text(CHARACTERS), st.sampled_from(PICTURES) |
                st.builds('{}: {}'.format, st.sampled_from(['failed_to_download', 'failed_to_resize']), st.text(st.characters(codec='utf-8'), min_size=1).filter(lambda why: why != 'success'))), min_size=1, max_size=12)

@pytest.mark.parametrize('layout', ['files', 'webdataset'])
@settings(max_examples=40, deadline=None)
@given(ROWS, st.sampled_from([1, 3, 10, 10_000]))
def test_img2dataset_round_trip(tmp_path_factory, layout, rows, shard_size):
    folder = tmp_path_factory.mktemp('cc')/layout
    write_img2dataset(rows, folder, layout, shard_size)
    assume(any(isinstance(picture, bytes) for *_, picture in rows))
    found = quietly(folder, max_missing=1)
    whole = [row for row in rows if isinstance(row[2], bytes)]
    assert [(item.caption, item.path.open('rb').read()) for item in found] == [(caption, data) for _, caption, data in whole]
    assert [(each.url, each.why, each.count) for each in found.missing] == [(url, why, 1) for url, _, why in rows if isinstance(why, str)]
    assert all(item.id == item.image_id and find_images(folder)[item.id] == item.path for item in found)
    # written again from what was read, it is the same folder, byte for byte
    if not found.missing:
        write_img2dataset([(url, item.caption, item.path.open('rb').read()) for (url, *_), item in zip(rows, found)], folder.parent/'again', layout, shard_size)
        for path in folder.rglob('*'): assert path.is_dir() or path.read_bytes() == (folder.parent/'again'/path.relative_to(folder)).read_bytes()

FOUR = [('http://h/0.jpg', 'zero', PICTURES[0]), ('http://h/1.jpg', 'one', 'failed_to_download: HTTP Error 404: Not Found'), ('http://h/2.jpg', 'two', PICTURES[1]), ('http://h/3.jpg', 'three', 'failed_to_resize: image decoding error')]

def test_the_files_are_those_of_img2dataset(tmp_path):
    from pyarrow import parquet
    write_img2dataset(FOUR*2, tmp_path/'files')
    assert sorted(path.relative_to(tmp_path/'files').as_posix() for path in (tmp_path/'files').rglob('*') if path.is_file()) == sorted(
        [f'00000/{key:09}.{kind}' for key in (0, 2, 4, 6) for kind in ('jpg', 'json', 'txt')] + ['00000.parquet', '00000_stats.json'])
    row = json.loads((tmp_path/'files'/'00000'/'000000002.json').read_text())
    assert list(row) == ['caption', 'url', 'key', 'status', 'error_message', 'width', 'height', 'original_width', 'original_height', 'exif', 'sha256']
    assert row | {'sha256': ''} == dict(caption='two', url='http://h/2.jpg', key='000000002', status='success', error_message=None, width=3, height=5, original_width=3, original_height=5, exif='{}', sha256='')
    stats = json.loads((tmp_path/'files'/'00000_stats.json').read_text())
    assert {'count': 8, 'successes': 4, 'failed_to_download': 2, 'failed_to_resize': 2}.items() <= stats.items()
    assert stats['status_dict'] == {'success': 4, 'HTTP Error 404: Not Found': 2, 'image decoding error': 2}
    table = parquet.read_table(tmp_path/'files'/'00000.parquet').to_pylist()
    assert list(table[0]) == list(row) and table[2] == row and table[1]['status'] == 'failed_to_download' and table[1]['width'] is None
    write_img2dataset(FOUR*2, tmp_path/'tars', 'webdataset', shard_size=5)
    with tarfile.open(tmp_path/'tars'/'00001.tar') as tar: # keys are as long as shard and row need
        assert tar.getnames() == [f'{key}.{kind}' for key in ('000011',) for kind in ('jpg', 'json', 'txt')]

def test_webdataset_reads_our_shards(tmp_path):
    webdataset = pytest.importorskip('webdataset', reason='webdataset is an extra')
    write_img2dataset(FOUR, tmp_path/'cc', 'webdataset')
    samples = list(webdataset.WebDataset(str(tmp_path/'cc'/'00000.tar'), shardshuffle=False))
    assert [(sample['__key__'], sample['txt'], sample['jpg']) for sample in samples] == [('000000000', b'zero', PICTURES[0]), ('000000002', b'two', PICTURES[1])]

@pytest.mark.parametrize('layout', ['files', 'webdataset'])
def test_without_pyarrow_the_totals_are_known(tmp_path, monkeypatch, layout):
    write_img2dataset(FOUR, tmp_path/'cc', layout)
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.warns(UserWarning, match=r'2 of 4 pictures.*pip install pyarrow'): found = read_captions(tmp_path/'cc')
    assert [item.caption for item in found] == ['zero', 'two'] and found.lost == 2
    assert [(each.url, each.why, each.count) for each in found.missing] == [('', 'HTTP Error 404: Not Found', 1), ('', 'image decoding error', 1)]
    with pytest.raises(ImportError, match='totals: its tables take pyarrow: pip install pyarrow, or write with parquet=False'): write_img2dataset(FOUR, tmp_path/'totals', layout)
    write_img2dataset(FOUR, tmp_path/'totals', layout, parquet=False) # nothing was left there
    assert quietly(tmp_path/'totals') == quietly(tmp_path/'totals', tmp_path/'totals') and 'pip install' not in quietly(tmp_path/'totals').missing[0].where

@pytest.mark.parametrize('parquet', [True, False])
def test_pictures_that_went_missing_after_the_download(tmp_path, parquet):
    write_img2dataset(FOUR[:1]*4, tmp_path/'cc', parquet=parquet)
    (tmp_path/'cc'/'00000'/'000000001.jpg').unlink()
    found = quietly(tmp_path/'cc')
    assert len(found) == 3 and found.lost == 1 and found.outcomes()['there is no such picture'] == 1
    assert not parquet or found.missing == [Missing(f'{tmp_path}/cc/00000.parquet, key 000000001', 'http://h/0.jpg', 'there is no such picture')]

def test_more_than_half_lost_stops(tmp_path):
    write_img2dataset(FOUR[1:], tmp_path/'cc')
    with pytest.raises(FileNotFoundError, match=r'2 of 3 pictures are missing \(1 × failed_to_download: HTTP Error 404: Not Found, 1 × failed_to_resize: image decoding error\), first .*00000.parquet, key 000000000: http://h/1.jpg'):
        read_captions(tmp_path/'cc')
    assert len(quietly(tmp_path/'cc', max_missing=.7)) == 1

def test_shards_below_a_folder_of_images(tmp_path, monkeypatch):
    write_img2dataset(FOUR, tmp_path/'data'/'part 1', 'webdataset')
    write_img2dataset(FOUR, tmp_path/'data'/'part 2', 'files')
    monkeypatch.chdir(tmp_path)
    found = quietly('data/part 2', tmp_path/'data')
    assert [item.image_id for item in found] == ['part 2/00000/000000000.jpg', 'part 2/00000/000000002.jpg']
    assert [item.image_id for item in quietly('data')] == [id for id in find_images('data')] and quietly('data').lost == 4
    with pytest.raises(ValueError, match='its pictures lie in it and not below elsewhere'): quietly('data', 'elsewhere')

def test_captions_beside_pictures_of_ones_own(tmp_path):
    for name in ('a.jpg', 'b.png', 'c.jpg', 'd.jpg'): (tmp_path/name).write_bytes(jpeg('red'))
    (tmp_path/'a.txt').write_text('from the text')
    (tmp_path/'a.json').write_text('{"caption": "from the JSON"}')
    (tmp_path/'b.json').write_text('{"caption": "from the JSON"}')
    (tmp_path/'c.json').write_text('{"shapes": []}')
    (tmp_path/'notes.json').write_text('not JSON')
    with pytest.warns(UserWarning, match='2 of 4 captions are missing .2 × no caption beside the picture.*first .*c.jpg'): found = read_captions(tmp_path)
    assert [(item.id, item.caption) for item in found] == [('a.jpg', 'from the text'), ('b.png', 'from the JSON')] and [Path(each.where).name for each in found.missing] == ['c.jpg', 'd.jpg']
    for data, told in ((b'\xff', 'b.json: not a caption'), (b'{', 'b.json: not a caption'), (b'['*100_000, 'b.json: not a caption')):
        (tmp_path/'b.json').write_bytes(data)
        with pytest.raises(ValueError, match=told): read_captions(tmp_path)
    (tmp_path/'a.txt').write_bytes(b'caf\xe9')
    with pytest.raises(ValueError, match='a.txt: not a caption'): read_captions(tmp_path)

def test_shards_behind_a_link_are_read_with_their_failures(tmp_path):
    write_img2dataset(FOUR, tmp_path/'elsewhere'/'cc')
    (tmp_path/'data').mkdir()
    (tmp_path/'data'/'part').symlink_to('../elsewhere/cc')
    found = quietly(tmp_path/'data')
    assert [item.id for item in found] == ['part/00000/000000000.jpg', 'part/00000/000000002.jpg'] and found.lost == 2

def test_dead_addresses_and_lacking_captions_are_told_apart(tmp_path):
    write_img2dataset(FOUR, tmp_path/'cc')
    for kind in ('txt', 'json'): (tmp_path/'cc'/'00000'/f'000000002.{kind}').unlink()
    with pytest.warns(UserWarning, match='3 of 4 captions and pictures are missing'): read_captions(tmp_path/'cc', max_missing=.75)

def test_folders_without_captions(tmp_path):
    for make in (lambda: None, lambda: (tmp_path/'a.jpg').write_bytes(jpeg('red'))):
        make()
        with pytest.raises(FileNotFoundError, match='no captions in it: expected captions.tsv, captions.jsonl, or pictures with a .txt beside each'): read_captions(tmp_path)
    with pytest.raises(FileNotFoundError, match='nowhere: no such captions file or folder'): read_captions(tmp_path/'nowhere')

@pytest.mark.parametrize('name, content, told', [
    ('00000.parquet', b'PAR1 but cut', '00000.parquet: not the table of a finished shard'), ('00000_stats.json', b'{"count": 4', '00000_stats.json, line 1: not valid JSON'),
    ('00000_stats.json', b'{"count": 4}', '00000_stats.json: no field status_dict'), ('00000_stats.json', b'[]', '00000_stats.json: expected an object'),
    ('00000_stats.json', b'{"count": "4", "status_dict": {}}', "00000_stats.json: count must be a whole number, got '4'"), ('00000_stats.json', b'{"count": 4, "status_dict": [1]}', 'status_dict must be an object'),
    ('00000_stats.json', b'{"count": 4, "status_dict": {"x": "y"}}', "00000_stats.json, status_dict: x must be a whole number, got 'y'"), ('00000_stats.json', b'{"count": true, "status_dict": {"x": 1}}', 'count must be a whole number, got True')])
def test_tables_that_lie_are_named(tmp_path, name, content, told):
    write_img2dataset(FOUR, tmp_path/'cc', parquet=name.endswith('parquet'))
    (tmp_path/'cc'/name).write_bytes(content)
    with pytest.raises(ValueError, match=told): read_captions(tmp_path/'cc')

def test_a_table_without_the_columns_is_named_and_one_of_something_else_is_let_be(tmp_path):
    from pyarrow import Table, parquet
    write_img2dataset(FOUR, tmp_path/'cc')
    parquet.write_table(Table.from_pylist([{'x': 1}]), tmp_path/'cc'/'my own.parquet')
    assert len(quietly(tmp_path/'cc')) == 2
    parquet.write_table(Table.from_pylist([{'x': 1}]), tmp_path/'cc'/'00000.parquet')
    with pytest.raises(ValueError, match='00000.parquet: not the table'): read_captions(tmp_path/'cc')

def test_what_the_writer_refuses(tmp_path):
    (tmp_path/'full').mkdir()
    (tmp_path/'full'/'x').touch()
    for rows, folder, layout, told in ((FOUR, 'full', 'files', 'full: not empty'), (FOUR, 'new', 'parquet', "expected 'files' or 'webdataset', got 'parquet'"),
                                       ([('http://h', 'x', 'gone')], 'a', 'files', 'http://h: expected "failed_to_download: why"'), ([('http://h', '\ud800', PICTURES[0])], 'b', 'files', 'half a surrogate pair')):
        with pytest.raises(ValueError, match=told): write_img2dataset(FOUR[:1] + rows, tmp_path/folder, layout, shard_size=1)
        assert folder == 'full' or not (tmp_path/folder).exists()
    with pytest.raises(ValueError, match='shard_size: expected at least 1 row, got 0'): write_img2dataset(FOUR, tmp_path/'c', shard_size=0)

def test_a_broken_picture_in_a_shard_is_found_when_it_is_opened(tmp_path):
    write_img2dataset([FOUR[0], FOUR[2]], tmp_path/'cc')
    (tmp_path/'cc'/'00000'/'000000001.jpg').write_bytes(PICTURES[1][:100])
    first, second = (read_picture(item.path) for item in read_captions(tmp_path/'cc'))
    assert first.size == (8, 6) and isinstance(second, str)


# pickles

PLAIN = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.binary().map(bytearray) | st.sets(st.integers()) | st.frozensets(st.text(max_size=3)),
                     lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner), max_leaves=20)

@settings(deadline=None)
@given(PLAIN, st.sampled_from([0, 1, 2, 3, 4, 5]))
def test_plain_pickles_are_read(images, value, protocol):
    path = images.parent/'x.p'
    path.write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(path) == plain_unpickle(path.read_bytes(), 'here') == value

# what Python 2.7 writes for [{'raw': 'caf\xc3\xa9', 'n': 5L, 'u': u'\xe9'}] with pickle.dump's protocol 0 and cPickle's protocol 2
PYTHON_2 = [b"(lp0\n(dp1\nS'raw'\np2\nS'caf\\xc3\\xa9'\np3\nsS'u'\np4\nV\xe9\np5\nsS'n'\np6\nL5L\nsa.",
            b'\x80\x02]q\x01}q\x02(U\x03rawq\x03U\x05caf\xc3\xa9q\x04U\x01uq\x05X\x02\x00\x00\x00\xc3\xa9q\x06U\x01nq\x07\x8a\x01\x05ua.']

@pytest.mark.parametrize('content', PYTHON_2)
def test_pickles_of_python_2(tmp_path, content):
    (tmp_path/'x.p').write_bytes(content)
    assert read_pickle(tmp_path/'x.p') == [{'raw': 'café', 'u': 'é', 'n': 5}]

def test_bytes_that_are_no_utf_8_do_not_stop_the_reading(tmp_path):
    (tmp_path/'x.p').write_bytes(b"(lp0\nS'caf\\xe9'\np1\na.")
    assert read_pickle(tmp_path/'x.p') == ['caf\ufffd']

class Bomb:
    def __init__(self, target): self.target = target
    def __reduce__(self): return os.system, (f'touch {self.target}',)

BOMBS = {'system': lambda target: pickle.dumps([Bomb(target)]), 'nested': lambda target: pickle.dumps([{'a': (1, {'b': Bomb(target)})}], 0),
         'eval': lambda target: f"cbuiltins\neval\n(S'open({str(target)!r}, chr(119))'\ntR.".encode().replace(b"S'open('", b'S"open(\'').replace(b"chr(119))'", b'chr(119))"'),
         'getattr': lambda target: b"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR.", 'stack global': lambda target: b'\x80\x04\x8c\x05posix\x8c\x06system\x93.',
         'objects': lambda target: pickle.dumps(np.array([Bomb(target), 1], dtype=object)), 'build': lambda target: b"ccollections\nOrderedDict.fromkeys\n.", 'persistent': lambda target: b'Pabc\n.'}

@pytest.mark.fault(7)
@pytest.mark.parametrize('kind', BOMBS)
def test_bombs_are_refused_and_do_not_go_off(tmp_path, kind):
    (tmp_path/'refs.p').write_bytes(BOMBS[kind](tmp_path/'boom'))
    with pytest.raises(ValueError, match='refs.p: not a pickle of plain data'): read_pickle(tmp_path/'refs.p')
    assert not (tmp_path/'boom').exists()

@pytest.mark.fault(7)
def test_the_bomb_would_have_gone_off(tmp_path):
    for kind in ('system', 'nested', 'eval', 'objects'):
        pickle.loads(BOMBS[kind](tmp_path/kind))
        assert (tmp_path/kind).exists()

@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_rubbish_is_one_clear_error(images, content):
    path = images.parent/'x.p'
    path.write_bytes(content)
    try: read_pickle(path)
    except ValueError as error: assert 'x.p' in str(error)

def test_missing_pickle(tmp_path):
    with pytest.raises(FileNotFoundError, match='x.p'): read_pickle(tmp_path/'x.p')

@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('array', [np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(6, dtype='>i2').reshape(3, 2).T, np.zeros((0, 4)), np.array(3), np.array([True, False]), np.array(['dog', 'cat']),
                                   np.asfortranarray(np.eye(3))[:, ::2]], ids=repr)
def test_arrays_of_numbers_are_plain_data(array, protocol):
    record = plain_unpickle(pickle.dumps({'a': array, 'scalar': np.float32(1.5)}, protocol), 'record')
    assert isinstance(record['a'], np.ndarray) and record['a'].dtype.newbyteorder('=') == array.dtype.newbyteorder('=') and record['scalar'] == np.float32(1.5)
    np.testing.assert_array_equal(record['a'], array)

def test_an_array_of_numpy_1_under_its_old_name():
    data = pickle.dumps(np.arange(3.), 2).replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
    assert b'numpy.core.multiarray' in data and plain_unpickle(data, 'record').tolist() == [0, 1, 2]

@pytest.mark.parametrize('array', [np.array([1, 'a', None], dtype=object), np.zeros(2, [('x', 'f4'), ('y', 'O')]), np.zeros(2, 'datetime64[s]')], ids=repr)
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match='record: not a pickle of plain data: it holds an array of'): plain_unpickle(pickle.dumps(array), 'record')

# each is a few bytes that ask for gigabytes
BIG = {'bytearray': b'cbuiltins\nbytearray\n(I1000000000000\ntR.', 'bytearray of Python 2': b'c__builtin__\nbytearray\n(L9999999999L\ntR.', 'memory by number': b'\x80\x02Nr\xff\xff\xff\x7f.',
       'memory by text': b'Np4000000000\n.', 'bytes': b'\x80\x04\x8e' + (10**12).to_bytes(8, 'little') + b'x.', 'text': b'\x80\x04\x8d' + (10**12).to_bytes(8, 'little') + b'x.',
       'bytearray of protocol 5': b'\x80\x05\x96' + (10**12).to_bytes(8, 'little') + b'x.', 'bytearray of 1.5 GB': b'\x80\x05\x96' + (1500*2**20).to_bytes(8, 'little') + b'x.', 'memory for a frame': b'\x80\x04\x95' + (10**12).to_bytes(8, 'little') + b'N.', 'long': b'\x80\x02\x8b\xff\xff\xff\x7fx.',
       'array': pickle.dumps(np.zeros(4, np.uint8), 2).replace(b'K\x04\x85', b'J\xff\xff\xff\x7f\x85'), 'copies': b'\x80\x03C\xffx' + b'y'*254 + b'q\x00' + b'cbuiltins\nbytearray\nq\x01' + b'h\x01h\x00\x85R'*2000 + b'.',
       'sets': b'\x80\x02]q\x00(' + b''.join(b'M' + n.to_bytes(2, 'little') for n in range(3000)) + b'ecbuiltins\nset\nq\x01' + b'h\x01h\x00\x85R'*2000 + b'.'}

UNDER_A_LIMIT = '''
import json, resource, sys
from vlground.datasets import plain_unpickle
used = int(open('/proc/self/statm').read().split()[0])*resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
said = {}
for name, data in json.load(sys.stdin).items():
    try: said[name] = f'read: {plain_unpickle(bytes.fromhex(data), name)!r}'
    except ValueError as error: said[name] = str(error)
print(json.dumps(said))
'''

@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='limits memory as Linux does')
def test_a_few_bytes_cannot_ask_for_gigabytes():
    run = subprocess.run([sys.executable, '-c', UNDER_A_LIMIT], input=json.dumps({name: data.hex() for name, data in BIG.items()}), capture_output=True, text=True, timeout=120)
    said = json.loads(run.stdout)
    assert all(len(data) < 40_000 for data in BIG.values())
    for name in BIG:
        if name.startswith('memory'): assert said[name] == 'read: None' # a high number does no harm, and nothing is asked for
        else: assert re.match(f'{name}: not a pickle of plain data: (?!.*Memory).', said[name]), said[name] # and it did not even try

def test_a_reader_of_ones_own_cannot_be_changed_by_a_pickle():
    for data in (b"cbuiltins\nset\n}S'x'\nI1\nsb.", b"cnumpy\ndtype\n(N}S'kind'\nS'O'\nstb.", b"cbuiltins\nbytearray\n(N}S'__defaults__'\n(I1\nI2\ntstb."):
        try: plain_unpickle(data, 'changed')
        except ValueError: pass
    assert plain_unpickle(pickle.dumps([{1}, bytearray(b'x'), np.zeros(2)], 2), 'again')[:2] == [{1}, bytearray(b'x')]

@settings(max_examples=300, deadline=None)
@given(st.sampled_from([0, 2, 4, 5]), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3))
def test_flipped_bytes_are_read_or_are_one_error(protocol, flips):
    data = bytearray(pickle.dumps({'boxes': np.zeros((2, 4), np.float32), 'seen': {1, 2}, 'text': ['dog', b'x', 2.5, None]}, protocol))
    for place, byte in flips: data[place % len(data)] = byte
    try: plain_unpickle(bytes(data), 'record 7')
    except ValueError as error: assert str(error).startswith('record 7: not a pickle of plain data: ')


# fields

def test_fields_of():
    assert fields_of({'b': 1, 'a': None, 'c': 2}, 'a b', 'row 1') == [None, 1]
    assert fields_of({'a': True, 'b': [1], 'c': {}}, 'c a b', 'row 1') == [{}, True, [1]] and fields_of({'a': 1}, '', 'row 1') == []
    with pytest.raises(ValueError, match='^row 1: no field d, e$'): fields_of({'a': 1}, 'a d e', 'row 1')
    for row in (None, 3, 'text', [1], [('a', 1)]):
        with pytest.raises(ValueError, match='^row 2: expected an object with the fields a, b, got '): fields_of(row, 'a b', 'row 2')

TYPES = {'whole': int, 'number': float, 'truth': bool, 'text': str, 'many': list, 'object': dict}
RIGHT = {'whole': 7, 'number': 7, 'truth': True, 'text': '7', 'many': [7], 'object': {'seven': 7}}

def test_fields_come_in_the_order_in_which_they_are_asked_for():
    assert typed_fields(RIGHT | {'more': None}, TYPES, 'row 3') == list(RIGHT.values())
    assert typed_fields(RIGHT, {'many': list, 'whole': int}, 'row 3') == [[7], 7] and typed_fields({}, {}, 'row 3') == []
    (value,) = typed_fields({'number': 7}, {'number': float}, 'row 3')
    assert type(value) is int # it passes, and stays what it was

@given(st.dictionaries(st.sampled_from(sorted(TYPES)), st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)))
@example(RIGHT)
@example(RIGHT | {'whole': True, 'number': False, 'truth': 1})
@example(RIGHT | {'whole': 7., 'number': 7.5})
def test_everything_that_is_wrong_with_a_row_is_said_at_once(row):
    good = {'whole': (int,), 'number': (int, float), 'truth': (bool,), 'text': (str,), 'many': (list,), 'object': (dict,)} # by exact type, so that True is no number
    lacking, wrong = [name for name in TYPES if name not in row], [name for name in TYPES if name in row and type(row[name]) not in good[name]]
    if not lacking + wrong:
        assert all(value is row[name] for name, value in zip(TYPES, typed_fields(row, TYPES, 'file, row 3')))
        return
    with pytest.raises(ValueError, match='^file, row 3: ') as caught: typed_fields(row, TYPES, 'file, row 3')
    told = str(caught.value)
    assert ('no field ' + ', '.join(lacking) in told) == bool(lacking)
    for name in TYPES: assert (f'{name} must be ' in told) == (name in wrong)

def test_fields_of_the_wrong_type_are_named_with_what_was_found():
    with pytest.raises(ValueError, match=r"^d.json, row 3: no field a, b; c must be a whole number, got True; d must be a number, got '7'; e must be bytes, got 'x'$"):
        typed_fields({'c': True, 'd': '7', 'e': 'x'}, {'a': str, 'c': int, 'b': int, 'd': float, 'e': bytes}, 'd.json, row 3')
    with pytest.raises(ValueError) as caught: typed_fields({'a': 'x'*10_000}, {'a': int}, 'row 3')
    assert len(str(caught.value)) < 200

@pytest.mark.parametrize('row', [None, [], ['a'], 'a', 7, ('a',), {'a'}])
def test_a_row_that_is_no_object(row):
    with pytest.raises(ValueError, match='^row 3: expected an object with the fields a, b, got '): typed_fields(row, {'a': int, 'b': int}, 'row 3')

def test_types_that_python_derives():
    class Row(dict): pass
    class Text(str): pass
    assert typed_fields(Row(a=Text('x')), {'a': str}, 'row 3') == ['x']


# parts

IDS = st.lists(st.text() | st.integers(), unique_by=str)

@given(IDS, st.floats(0.01, 1), st.floats(0.01, 1), st.text())
def test_parts_are_nested_and_keep_the_order(ids, a, b, salt):
    small, large = fraction_of(ids, min(a, b), salt), fraction_of(ids, max(a, b), salt)
    assert set(map(str, small)) <= set(map(str, large)) and large == [id for id in ids if id in large]
    assert fraction_of(ids, 1, salt) == ids
    # whether an id is in does not depend on the others
    assert small == [id for id in ids if fraction_of([id], min(a, b), salt)]

def test_parts_have_about_the_right_size():
    for share in (1/2, 1/4, 1/8, 1/16):
        kept = len(fraction_of(range(20_000), share))
        assert abs(kept - share*20_000) < 4*(20_000*share*(1 - share))**0.5

def test_parts_are_the_same_on_every_machine():
    assert fraction_of([f'{i:05}.jpg' for i in range(80)], 1/16) == ['00023.jpg', '00046.jpg', '00077.jpg']

@pytest.mark.parametrize('share', [0, -0.1, 1.1, float('nan')])
def test_shares_that_are_none(share):
    with pytest.raises(ValueError, match='fraction'): fraction_of([1], share)

def test_the_list_of_a_part_is_written_and_read(tmp_path):
    ids = [f'{n:05}.jpg' for n in range(400)]
    for share in (1/4, 1/8, 1/16):
        file = tmp_path/'deep er'/f'{share}.json'
        chosen = write_fraction(ids*2, share, file)
        assert chosen == fraction_of(ids, share) == read_fraction(file) == read_fraction(file, ids[::-1])
        manifest = json.loads(file.read_text())
        assert manifest['ids'] == chosen and manifest['count'] == len(chosen) and manifest['of'] == 400 and manifest['fraction'] == share and len(manifest['sha256']) == 64
    assert write_fraction(range(100), .5, tmp_path/'numbers.json', 'other') == read_fraction(tmp_path/'numbers.json', range(100)) == fraction_of(range(100), .5, 'other')
    assert write_fraction([], .5, tmp_path/'none.json') == read_fraction(tmp_path/'none.json', []) == []

@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(codec='utf-8')) | st.integers(), unique_by=str), st.floats(.01, 1), st.text(st.characters(codec='utf-8')))
def test_any_list_of_a_part_round_trip(images, ids, share, salt):
    chosen = write_fraction(ids, share, images.parent/'part.json', salt)
    assert chosen == read_fraction(images.parent/'part.json', ids) == fraction_of(ids, share, salt)

def test_changed_lists_are_refused(tmp_path):
    file, ids = tmp_path/'part.json', [f'{n:05}.jpg' for n in range(400)]
    chosen = write_fraction(ids, 1/4, file)
    whole = json.loads(file.read_text())
    left = next(id for id in ids if id not in chosen)
    for change in ({'ids': chosen[1:]}, {'ids': chosen[::-1]}, {'ids': [left] + chosen[1:]}, {'ids': chosen + [left]}, {'count': 3}, {'fraction': 1/2}, {'salt': 'x'}, {'of': 7}, {'ids': None}, {'sha256': ''}, {'fraction': 'x'}):
        file.write_text(json.dumps(whole | change))
        with pytest.raises(ValueError, match='part.json: it was changed since it was written'): read_fraction(file)
    file.write_text(json.dumps(whole | {'format': 2}))
    with pytest.raises(ValueError, match='part.json: format version 2, and this vlground reads version 1'): read_fraction(file)
    for text, told in (('[]', 'part.json: expected an object'), ('{"format": 1}', 'part.json: no field fraction, salt'), ('{"format"', 'part.json, line 1: not valid JSON')):
        file.write_text(text)
        with pytest.raises(ValueError, match=told): read_fraction(file)
    with pytest.raises(FileNotFoundError, match='gone.json'): read_fraction(tmp_path/'gone.json')

def test_a_list_that_another_rule_made_is_refused(tmp_path):
    from vlground.core import sha256_of
    ids = [str(n) for n in range(40)]
    every_fourth = ids[::4]
    (tmp_path/'p.json').write_text(json.dumps(dict(format=1, fraction=.25, salt='', of=40, count=10, sha256=sha256_of([.25, '', 40, every_fourth]), ids=every_fourth)))
    with pytest.raises(ValueError, match="p.json: some ids are not chosen by fraction 0.25 and salt ''"): read_fraction(tmp_path/'p.json')

def test_a_list_that_does_not_fit_the_data_is_refused(tmp_path):
    ids = [f'{n:05}.jpg' for n in range(400)]
    chosen = write_fraction(ids, 1/4, tmp_path/'p.json')
    with pytest.raises(ValueError, match=f"p.json: 1 ids are listed, but not at hand, such as '{chosen[0]}'"): read_fraction(tmp_path/'p.json', [id for id in ids if id != chosen[0]])
    more = next(f'{n:05}.jpg' for n in range(400, 500) if fraction_of([f'{n:05}.jpg'], 1/4))
    with pytest.raises(ValueError, match=f"p.json: 1 ids are at hand and within the share, but not listed, such as '{more}'"): read_fraction(tmp_path/'p.json', ids + [more])
    out = next(f'{n:05}.jpg' for n in range(400, 500) if not fraction_of([f'{n:05}.jpg'], 1/4))
    assert read_fraction(tmp_path/'p.json', ids + [out]) == chosen

@pytest.mark.parametrize('odd', [1.5, None, True, ('a', 1), b'x', np.int64(3)], ids=repr)
def test_ids_that_json_would_change_are_refused(tmp_path, odd):
    with pytest.raises(ValueError, match='p.json: an id must be a text or a whole number'): write_fraction(['a', odd], 1/4, tmp_path/'p.json')
    assert not list(tmp_path.iterdir())
