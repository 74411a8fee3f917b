"The checker: every kind of folder is recognised by what lies in it, sound ones are usable, and each fault is found with its place."
import json
import pickle
import shutil
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlground.core import load_json, save_json
from vlground.albums import find_images
from vlground.datasets import CaptionedImage, read_captions, write_img2dataset
from vlground.flickr import FlickrCaption, FlickrImage, FlickrObject, FlickrPhrase, write_flickr
from vlground.questions import Question, write_vqa
from vlground.store import Store
from vlground.webdata import export_tar
from vlground.vcrdata import VCRItem, VCRObjects, write_vcr, write_vcr_objects
from vlground.verify import KINDS, Findings, check_folder, describe, kind_of, look_at_captions, look_at_pictures, sample_of, usable


@pytest.fixture
def world(small_world, small_regions, small_labels, tmp_path) -> Path:
    "A world with its regions and labels, to be broken."
    shutil.copytree(small_world, tmp_path/'W')
    shutil.copytree(small_regions, tmp_path/'W'/'regions')
    shutil.copytree(small_labels, tmp_path/'W'/'labels')
    return tmp_path/'W'


def of(found: list[Findings], what: str) -> Findings:
    "What was found of a part; where there are several, of the one with something wrong."
    return min((findings for findings in found if findings.what == what), key=lambda findings: not findings.wrong)


def test_a_whole_world_is_usable(world):
    found = check_folder(world)
    assert usable(found) and not [sentence for findings in found for sentence in findings.odd]
    assert [findings.what for findings in found] == ['captioned pictures', 'the truth about captions', 'labels', *['the RefCOCO family']*3, 'regions']
    assert of(found, 'captioned pictures').counts == {'captions': 40, 'pictures': 40, 'missing': 0}
    assert of(found, 'labels').counts['captions'] == 40 and of(found, 'regions').counts['pictures'] == 96
    assert of(found, 'the RefCOCO family').counts['pictures'] == 40 and of(found, 'the truth about captions').counts['captions of captions.jsonl'] == 40
    text = describe(found)
    assert text.endswith('\nusable') and 'captions 40, pictures 40' in text


def test_regions_in_tar_files(small_regions, tmp_path):
    tars = export_tar(Store(small_regions), tmp_path/'T', quiet=True)
    found = check_folder(tars)
    files = len(list(tars.glob('*.tar')))
    assert usable(found) and len(found) == 1 and not found[0].odd and found[0].what == 'regions in tar files'
    assert found[0].counts == {'pictures': 96, 'tar files': files, 'far away': 0, 'feature width': 128, 'classes': 53}
    first = tars/'shard-00000.tar'
    whole = first.read_bytes()
    first.write_bytes(whole[:5000] + b'x' + whole[5001:])
    assert not usable(found := check_folder(tars)) and 'shard-00000.tar: its bytes changed' in found[0].wrong[0]
    first.unlink()
    found = check_folder(tars)
    assert usable(found) and found[0].counts['far away'] == 1 and f'1 of {files} tar files are not here' in found[0].odd[0]


def test_conceptual_captions_as_distributed(small_world, tmp_path):
    shutil.copytree(small_world/'images', tmp_path/'CC'/'pictures')
    rows = [f'{item.caption}\tpictures/{item.image_id}\n' for item in read_captions(small_world/'captions.tsv')]
    (tmp_path/'CC'/'Train_GCC-training.tsv').write_text(''.join(rows[:30]))
    (tmp_path/'CC'/'Validation_GCC-1.1.0-Validation.tsv').write_text(''.join(rows[30:]))
    found = check_folder(tmp_path/'CC')
    assert usable(found) and found[0].what == 'captioned pictures' and found[0].counts == {'captions': 40, 'pictures': 40, 'missing': 0}
    (tmp_path/'CC'/'Train_GCC-training.tsv').write_text('a dog\thttp://example.org/1.jpg\na cat\thttp://example.org/2.jpg\n')
    found = check_folder(tmp_path/'CC')
    assert not usable(found) and '2 of 2 pictures are missing' in found[0].wrong[0] and 'Train_GCC' in found[0].wrong[0]


def test_what_readers_warn_of_is_odd_and_what_libraries_warn_of_themselves_is_not(tmp_path):
    def read():
        warnings.warn('3 pictures are missing')
        warnings.warn('unclosed file', ResourceWarning)
        warnings.warn('gone in the next version', DeprecationWarning)
        return 'read'
    findings = Findings(tmp_path, 'captions')
    assert findings.attempt(read) == 'read' and findings.odd == ['3 pictures are missing'] and not findings.wrong


@pytest.mark.parametrize('place, what', [('.', 'captioned pictures'), ('images', 'pictures'), ('regions', 'regions'), ('labels', 'labels'), ('gold', 'the truth about captions'),
                                         ('refer/refcoco+', 'the RefCOCO family'), ('refer', None)])
def test_a_folder_is_known_by_what_lies_in_it_whatever_its_name(world, tmp_path, place, what):
    shutil.copytree(world/place, tmp_path/'another name')
    assert kind_of(tmp_path/'another name') == kind_of(world/place) == what


def cut(path): path.write_bytes(path.read_bytes()[:path.stat().st_size//2])
def swap(path, old, new): path.write_bytes(path.read_bytes().replace(old, new, 1))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data)//2] ^= 1
    path.write_bytes(bytes(data))


class Bomb:
    def __init__(self, file): self.file = file
    def __reduce__(self): return Path.touch, (self.file,)


FAULTS = [
    ('captioned pictures', lambda W: (W/'images'/'captions-000003.jpg').unlink(), 'line 4'),
    ('captioned pictures', lambda W: swap(W/'captions.tsv', b'\t', b' '), 'line 1: expected caption<TAB>'),
    ('captioned pictures', lambda W: swap(W/'captions.tsv', b'a', b'\xff'), 'line 1: not UTF-8'),
    ('captioned pictures', lambda W: (W/'captions.tsv').write_bytes(b''), 'not one caption'),
    ('captioned pictures', lambda W: [cut(path) for path in (W/'images').glob('captions-*')], 'pictures looked at cannot be used'),
    ('regions', lambda W: flip(W/'regions'/'shard-00001.safetensors'), 'shard-00001.safetensors'),
    ('regions', lambda W: (W/'regions'/'shard-00000.jsonl').unlink(), 'shard-00000.jsonl'),
    ('regions', lambda W: save_json(load_json(W/'regions'/'manifest.json') | {'format': 7}, W/'regions'/'manifest.json'), 'version 7 is newer'),
    ('regions', lambda W: (W/'regions'/'manifest.json').write_text('{'), 'manifest.json'),
    ('labels', lambda W: cut(W/'labels'/'shard-00001.jsonl'), 'shard-00001.jsonl'),
    ('labels', lambda W: (W/'labels'/'shard-00001.jsonl').unlink(), 'shard-00001.jsonl'),
    ('the truth about captions', lambda W: swap(W/'gold'/'captions.jsonl', b'"boxes"', b'"boxen"'), 'captions.jsonl, line 1: no field boxes'),
    ('the RefCOCO family', lambda W: cut(W/'refer'/'refcoco+'/'instances.json'), 'instances.json'),
    ('the RefCOCO family', lambda W: (W/'refer'/'refcoco+'/'refs(unc).p').write_bytes(b'hello'), 'refs(unc).p'),
    ('the RefCOCO family', lambda W: (W/'refer'/'refcoco+'/'x_dets.json').write_text('[{"det_id": 5}]'), 'x_dets.json'),
]


@pytest.mark.parametrize('what, break_it, told', FAULTS, ids=[f'{what}-{i}' for i, (what, *_) in enumerate(FAULTS)])
def test_each_fault_is_wrong_in_its_part_and_nowhere_else(world, what, break_it, told):
    break_it(world)
    found = check_folder(world)
    assert not usable(found) and [findings.what for findings in found if findings.wrong] == [what]
    assert any(told in sentence for sentence in of(found, what).wrong), of(found, what).wrong
    assert 'WRONG' in describe(found) and describe(found).endswith('NOT usable')


@pytest.mark.fault(7)
def test_a_pickle_bomb_is_wrong_and_does_not_go_off(world, tmp_path):
    with open(world/'refer'/'refcoco+'/'refs(unc).p', 'wb') as file: pickle.dump(Bomb(tmp_path/'boom'), file)
    found = check_folder(world)
    assert not usable(found) and not (tmp_path/'boom').exists() and 'refs(unc).p' in of(found, 'the RefCOCO family').wrong[0]


def test_a_downloaded_set_is_recognised_and_its_dead_links_are_odd(small_world, tmp_path):
    items = read_captions(small_world/'captions.tsv')
    (tmp_path/'cc').mkdir()
    rows = [f'{item.caption}\thttp://example.org/{item.image_id}?size=9' for item in items] + ['gone\thttp://example.org/gone.jpg']
    (tmp_path/'cc'/'captions.tsv').write_text('\n'.join(rows) + '\n')
    shutil.copytree(small_world/'images', tmp_path/'cc'/'images')
    found = check_folder(tmp_path/'cc')
    assert usable(found) and found[0].counts == {'captions': 40, 'pictures': 40, 'missing': 1} and 'gone.jpg' in found[0].odd[0]


@pytest.mark.parametrize('layout', ['files', 'webdataset'])
def test_what_img2dataset_leaves(small_world, tmp_path, layout):
    rows = [(f'http://example.org/{item.image_id}', item.caption, item.path.read_bytes()) for item in read_captions(small_world/'captions.tsv')[:12]]
    write_img2dataset(rows + [('http://example.org/gone.jpg', 'gone', 'failed_to_download: HTTP Error 404: Not Found')], tmp_path/'out', layout)
    found = check_folder(tmp_path/'out')
    assert usable(found) and [findings.what for findings in found] == ['captioned pictures'] and found[0].counts['captions'] == 12
    assert found[0].counts['missing'] == 1 and 'gone.jpg' in found[0].odd[0]


def test_flickr_vqa_and_vcr(tmp_path):
    caption = FlickrCaption('a dog', (FlickrPhrase(0, 5, '7', ('animals',)),))
    write_flickr([FlickrImage('1.jpg', (64, 48), (caption,), (FlickrObject(('7',), (1., 1., 9., 9.)),), 'train')], tmp_path/'flickr')
    write_vqa([Question(i, i, f'COCO_val2014_{i:012}.jpg', 'what is it?', ('dog',)*10, ('yes',)*10, 'dog', 'what is', 'other') for i in (1, 2)], tmp_path/'vqa', 'val')
    item = VCRItem('train-0', 'train-0', 0, 'film', 'a/b.jpg', 'a/b.json', ('person',), ('Is', (0,), 'here', '?'), (('yes',),)*4, (('so',),)*4, 0, 1)
    write_vcr([item], tmp_path/'vcr', 'train')
    write_vcr_objects(VCRObjects((64, 48), ('person',), ((1., 1., 9., 9.),), (.9,), ((),)), tmp_path/'vcr', item.metadata_fn)
    Image.new('RGB', (64, 48)).save(tmp_path/'vcr'/'vcr1images'/'a'/'b.jpg')
    found = check_folder(tmp_path)
    assert usable(found), describe(found)
    assert {findings.what: findings.counts for findings in found} == {
        'Flickr30k Entities': {'pictures': 1, 'captions': 1, 'phrases': 1, 'boxes': 1}, 'VQA 2.0': {'questions of val': 2, 'pictures of val': 2},
        'VCR': {'items of train': 1, 'pictures of train': 1}}
    (tmp_path/'vcr'/'vcr1images'/'a'/'b.jpg').unlink()
    (tmp_path/'flickr'/'Annotations'/'1.xml').write_text('<annotation>')
    swap(tmp_path/'vqa'/'v2_mscoco_val2014_annotations.json', b'"question_id": 2', b'"question_id": 3')
    found = check_folder(tmp_path)
    assert all(findings.wrong for findings in found) and 'b.jpg: no such picture, named by item train-0' in of(found, 'VCR').wrong[0]


def test_a_run(small_regions, small_labels, tmp_path):
    from dataclasses import replace

    from vlground.pretrain import PRESETS, pretrain
    pretrain(small_regions, small_labels, tmp_path/'run', replace(PRESETS['mini'], steps=2, batch_size=4), progress='none')
    found = check_folder(tmp_path)
    assert usable(found) and found[0].what == 'a run' and found[0].counts['steps'] == 2
    (tmp_path/'run'/'final.safetensors').unlink()
    assert 'its final.safetensors is gone' in check_folder(tmp_path)[0].wrong[0]


@pytest.mark.fault(9)
def test_odd_captions_and_pictures(tmp_path):
    picture = Image.new('RGB', (32, 32), 'grey')
    for i in range(40): picture.save(tmp_path/f'{i:02}.png')
    sources = find_images(tmp_path)
    items = [CaptionedImage(id, path, 'buy now', id) for id, path in sources.items()]
    findings = Findings(tmp_path, 'pictures')
    look_at_pictures(sources, findings, 30)
    look_at_captions(items, findings, 30)
    assert not findings.wrong and ['the same' in sentence for sentence in findings.odd[:2]] == [True, True] and '30 of 30 pictures' in findings.odd[0] and '40 of 40 captions' in findings.odd[1]


@given(st.lists(st.integers(), unique=True, max_size=30), st.integers(1, 20), st.randoms())
def test_the_sample_does_not_depend_on_the_order(items, size, random):
    shuffled = random.sample(items, len(items))
    assert sample_of(items, size) == sample_of(shuffled, size) and len(sample_of(items, size)) == min(size, len(items)) and set(sample_of(items, size)) <= set(items)


NAMES = ['captions.tsv', 'captions.jsonl', 'manifest.json', 'config.json', 'log.jsonl', 'refs(unc).p', 'instances.json', 'a.jpg', 'b.png', 'gold/captions.jsonl', '00000_stats.json', '00000.tar',
         'v2_OpenEnded_mscoco_val2014_questions.json', 'v2_mscoco_val2014_annotations.json', 'train.txt', 'Sentences/1.txt', 'Annotations/1.xml', 'vcr1images/x.json', 'train.jsonl', 'x_dets.json']


@given(st.dictionaries(st.sampled_from(NAMES), st.one_of(st.binary(max_size=40), st.sampled_from([b'{}', b'[]', b'null', b'[1]', b'{"a": 1}', b'a dog\ta.jpg\n'])), max_size=6))
@settings(max_examples=150)
def test_whatever_lies_in_a_folder_gets_a_sentence_and_no_traceback(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp('junk')
    for name, data in files.items():
        (folder/name).parent.mkdir(exist_ok=True)
        (folder/name).write_bytes(data)
    found = check_folder(folder)
    assert found and all(findings.what in (*KINDS, '') for findings in found) and describe(found)
    shutil.rmtree(folder)


@pytest.mark.parametrize('files, told', [
    ({'config.json': '{}', 'log.jsonl': '[1]\n'}, 'log.jsonl, line 1: expected an object with the fields step'), ({'config.json': '{}', 'log.jsonl': '{"loss": 1}\n'}, 'log.jsonl, line 1: no field step'),
    ({'gold.jsonl': '{"id": "a", "caption": "c", "phrases": 5}\n'}, 'gold.jsonl, line 1: phrases must be'), ({'gold.jsonl': b'{"phrases": \xff}\n'}, 'gold.jsonl, line 1: not JSON'),
    ({'manifest.json': '{"format": 1, "kind": "labels", "records": 1, "shard_size": 1, "shard_count": 1, "shards": []}'}, 'manifest.json')])
def test_files_that_hold_something_else_get_a_sentence(tmp_path, files, told):
    for name, data in files.items(): (tmp_path/name).write_bytes(data if isinstance(data, bytes) else data.encode())
    found = check_folder(tmp_path)
    assert not usable(found) and told in found[0].wrong[0], found


def test_a_folder_named_like_a_picture_is_none(tmp_path):
    (tmp_path/'a.jpg').mkdir()
    assert kind_of(tmp_path) is None and not usable(check_folder(tmp_path))


@pytest.mark.parametrize('error', [ValueError('x'), OSError('x'), TypeError('x'), KeyError('x'), IndexError('x'), AttributeError('x')], ids=lambda error: type(error).__name__)
def test_what_a_reader_raises_is_kept_with_the_place(tmp_path, error):
    def read(*arguments): raise error
    findings = Findings(tmp_path, 'labels')
    assert findings.attempt(read, 'a.json') is findings.attempt(read) is None and len(findings.wrong) == 2
    if not isinstance(error, (ValueError, OSError)): assert findings.wrong[0].startswith(f'a.json: {type(error).__name__}: ') and findings.wrong[1].startswith(f'{tmp_path}: ')


def test_no_captions_at_all(tmp_path):
    findings = Findings(tmp_path, 'captions')
    look_at_captions([], findings, 5)
    assert findings.wrong == [f'{tmp_path}: not one caption']


def test_nothing_at_all(tmp_path):
    found = check_folder(tmp_path)
    assert not usable(found) and found[0].what == '' and 'nothing that the course knows' in found[0].wrong[0]
    with pytest.raises(FileNotFoundError, match='no such folder'): check_folder(tmp_path/'nowhere')
    with pytest.raises(ValueError, match='sample'): check_folder(tmp_path, 0)


def test_json_that_nests_too_deep(tmp_path):
    (tmp_path/'captions.jsonl').write_text('['*100_000)
    assert not usable(check_folder(tmp_path)) and json.dumps('') == '""'
