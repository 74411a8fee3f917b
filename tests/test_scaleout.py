"Labelling at scale: kills, several runs at once, arrays of jobs, Ray, broken pictures, teachers of one's own, and the page."
import os
import random
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import torch
from killing import ROOT, begin, contents, finish, kill, wait_until
from PIL import Image

from vlground.core import load_json
from vlground.albums import find_images
from vlground.datasets import CaptionedImage, read_captions
from vlground.phrases import Phrase
from vlground.pseudolabels import LabelledCaption, Preset, PseudoLabel, read_labels
from vlground.scaleout import ENGINES, LabelJob, cached_teacher, label_captions, label_shard, sample_labels, summarise, view_of, write_label_page
from vlground.shards import read_manifest
from vlground.store import Store

SMALL = dict(shard_size=4, batch_size=4, quiet=True)


@pytest.fixture(scope='module')
def items(small_world): return read_captions(small_world/'captions.tsv')


@pytest.fixture(scope='module')
def whole(items, tmp_path_factory) -> Path:
    "The labels of an undisturbed run."
    return label_captions(items, tmp_path_factory.mktemp('whole')/'labels', **SMALL)


# what goes in decides, and nothing else

@pytest.mark.parametrize('options', [dict(batch_size=1), dict(batch_size=16), dict(workers=2)], ids=str)
def test_the_bytes_do_not_depend_on_batches_or_workers(items, whole, tmp_path, options):
    assert contents(label_captions(items, tmp_path/'labels', **SMALL | options)) == contents(whole)


def test_an_array_of_jobs_in_any_order(items, whole, tmp_path):
    for i in (2, 3):
        label_captions(items, tmp_path/'labels', shard=(i, 3), **SMALL)
    with pytest.raises(ValueError, match='shard 0 is still to be written'): read_labels(tmp_path/'labels')
    label_captions(items, tmp_path/'labels', shard=(1, 3), **SMALL)
    assert contents(tmp_path/'labels') == contents(whole)


@pytest.mark.parametrize('part', [(0, 2), (3, 2), (-1, 1), (1, 0)])
def test_a_job_that_is_none(items, tmp_path, part):
    with pytest.raises(ValueError, match='expected job i of n with 1 <= i <= n'): label_captions(items, tmp_path/'labels', shard=part, **SMALL)
    assert not list((tmp_path/'labels').glob('shard*'))


def test_a_finished_folder_is_not_touched(items, whole, tmp_path):
    copytree(whole, tmp_path/'labels')
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path/'labels').iterdir()}
    label_captions(items, tmp_path/'labels', **SMALL)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path/'labels').iterdir()} == before


def test_another_plan_is_another_folder(items, small_labels, small_world, tmp_path):
    copytree(small_labels, tmp_path/'labels')
    def again(items, **options): label_captions(items, tmp_path/'labels', shard_size=20, quiet=True, **options)
    with pytest.raises(ValueError, match='begun with another plan .extractor differ'): again(items, extractor='paper')
    with pytest.raises(ValueError, match='begun with another plan'): again(items[:30])
    with pytest.raises(ValueError, match='begun with another plan .captions_sha256 differ'): again([replace(items[0], caption='another caption'), *items[1:]])
    # a picture that was replaced under the same name
    copytree(small_world/'images', tmp_path/'images')
    with open(tmp_path/'images'/items[5].image_id, 'ab') as file: file.write(b'more')
    with pytest.raises(ValueError, match='begun with another plan .pictures_sha256 differ'): again(read_captions(small_world/'captions.tsv', tmp_path/'images'))
    again(items)


# kills (fault 17)

LABEL = '''
import sys
from vlground.datasets import read_captions
from vlground.scaleout import label_captions
if __name__ == '__main__': label_captions(read_captions(sys.argv[1]), sys.argv[2], shard_size=4, batch_size=4, workers=int(sys.argv[3]), quiet=True)
'''


@pytest.mark.fault(17)
@pytest.mark.parametrize('workers', [1, 2])
def test_killed_at_random_moments_by_two_runs_at_once_it_ends_with_the_same_bytes(small_world, whole, tmp_path, workers):
    (tmp_path/'label.py').write_text(LABEL)
    words = str(tmp_path/'label.py'), small_world/'captions.tsv', tmp_path/'killed', workers
    manifest, moments = tmp_path/'killed'/'manifest.json', random.Random(workers)
    def named(): return len(load_json(manifest)['shards']) if manifest.exists() else 0
    process = begin(*words)
    wait_until(process, lambda: named() >= 2)
    time.sleep(moments.uniform(0, .05))
    kill(process)
    assert 2 <= named() < 10, 'it was killed too late to show anything'
    both = [begin(*words) for _ in range(2)]
    before = named()
    wait_until(both[0], lambda: named() > before)
    time.sleep(moments.uniform(0, .02))
    kill(both[0])
    finish(both[1])
    finish(begin(*words))
    assert contents(tmp_path/'killed') == contents(whole)
    assert [each.id for each in read_labels(tmp_path/'killed')] == [item.id for item in read_captions(small_world/'captions.tsv')]


# Ray

def test_a_real_ray_makes_the_same_bytes(small_world, whole, tmp_path):
    pytest.importorskip('ray.data', reason='Ray is not installed')
    code = LABEL.replace('quiet=True', "quiet=True, engine='ray'")
    (tmp_path/'label.py').write_text(code)
    finish(begin(str(tmp_path/'label.py'), small_world/'captions.tsv', tmp_path/'labels', 2))
    assert contents(tmp_path/'labels') == contents(whole)


def test_an_error_of_a_job_on_ray_is_the_jobs_own(tmp_path):
    pytest.importorskip('ray.data', reason='Ray is not installed')
    (tmp_path/'jobs.py').write_text('def refuse(number): raise ValueError(f"job {number}: no such picture")\n')
    (tmp_path/'run.py').write_text('import jobs\nfrom vlground.scaleout import run_on_ray\ntry: list(run_on_ray(jobs.refuse, [(7,)]))\nexcept ValueError as error: print("said:", error)\n')
    process = begin(str(tmp_path/'run.py'))
    assert 'said: job 7: no such picture' in process.communicate(timeout=300)[0] and process.returncode == 0


def test_without_ray_one_sentence_says_what_to_install(items, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    monkeypatch.setitem(sys.modules, 'ray.data', None)
    with pytest.raises(ImportError, match=r"needs Ray: run `pip install 'vlground\[ray\]'`"): label_captions(items, tmp_path/'labels', engine='ray', **SMALL)
    with pytest.raises(ValueError, match="no engine 'spark'; there are local, ray"): label_captions(items, tmp_path/'labels', engine='spark', **SMALL)
    assert set(ENGINES) == {'local', 'ray'}


# pictures that cannot be used (fault 8)

def broken_pictures(folder: Path) -> list[CaptionedImage]:
    "Captioned pictures, each odd in its own way."
    picture = Image.effect_noise((64, 48), 80)
    picture.save(folder/'good.png')
    picture.convert('CMYK').save(folder/'cmyk.jpg')
    picture.convert('P').save(folder/'palette.png')
    picture.resize((1, 1)).save(folder/'one.png')
    picture.save(folder/'animated.gif', save_all=True, append_images=[picture.rotate(9)])
    Image.new('I;16', (64, 48), 40_000).save(folder/'sixteen.png')
    Image.new('1', (20_000, 20_000)).save(folder/'gigantic.png')
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.convert('RGB').save(folder/'turned.jpg', exif=turned)
    (folder/'cut.png').write_bytes((folder/'good.png').read_bytes()[:300])
    (folder/'empty.png').write_bytes(b'')
    (folder/'text.png').write_text('404')
    return [CaptionedImage(path.name, path, 'a red dog and a cat', path.name) for path in sorted(folder.iterdir())]


@pytest.mark.fault(8)
def test_odd_pictures_are_labelled_or_say_why_not(tmp_path):
    (tmp_path/'images').mkdir()
    odd = broken_pictures(tmp_path/'images')
    found = {each.id: each for each in read_labels(label_captions(odd, tmp_path/'labels', max_errors=.5, **SMALL), Preset())}
    assert {id for id, each in found.items() if each.error} == {'cut.png', 'empty.png', 'gigantic.png', 'text.png'}
    assert all(len(each.error) > 10 and not each.labels for each in found.values() if each.error)
    assert max(label.box[2] for label in found['turned.jpg'].labels) <= 48, 'boxes lie in the upright picture'
    for name in ('good.png', 'cmyk.jpg', 'palette.png', 'animated.gif', 'sixteen.png', 'turned.jpg'): assert found[name].labels, name
    told = summarise(list(found.values()))
    assert told.captions == len(odd) and sum(told.errors.values()) == 4 and told.phrases == 2*(len(odd) - 4)


@pytest.mark.fault(8)
def test_too_many_errors_stop_the_run_and_keep_what_is_done(small_world, items, tmp_path):
    copytree(small_world/'images', tmp_path/'images')
    for item in items[8:20]: (tmp_path/'images'/item.image_id).write_bytes(b'')
    torn = read_captions(small_world/'captions.tsv', tmp_path/'images')
    with pytest.raises(ValueError, match=rf'of 40.*{re.escape(items[8].id)}'): label_captions(torn, tmp_path/'labels', max_errors=.1, **SMALL)
    assert 2 <= len(load_json(tmp_path/'labels'/'manifest.json')['shards']) < 10
    label_captions(torn, tmp_path/'labels', max_errors=.3, **SMALL)
    assert sum(bool(each.error) for each in read_labels(tmp_path/'labels')) == 12


# anybody's teacher, any path (fault 19)

MINE = '''
import torch
from vlground.grounder import Grounded

class Whole:
    name = 'whole-1'
    def __call__(self, images, phrases):
        return [Grounded(torch.tensor([[0., 0, *image.size]]).repeat(len(asked), 1), torch.ones(len(asked)), torch.arange(len(asked))) for image, asked in zip(images, phrases)]
'''


@pytest.mark.fault(19)
def test_a_teacher_of_ones_own_by_its_name_with_workers_and_a_path_with_spaces(small_world, tmp_path):
    home = tmp_path/'meine Bilder – حديقة'
    copytree(small_world/'images', home/'images')
    (home/'own_teacher.py').write_text(MINE)
    (home/'captions.tsv').write_bytes((small_world/'captions.tsv').read_bytes())
    code = '''
from vlground.datasets import read_captions
from vlground.scaleout import label_captions
if __name__ == '__main__': label_captions(read_captions('captions.tsv'), 'neue Labels/ä', teacher='own_teacher:Whole', shard_size=20, workers=2, quiet=True)
'''
    (home/'run.py').write_text(code)
    old = os.getcwd()
    try:
        os.chdir(home)
        finish(begin('run.py'))
    finally: os.chdir(old)
    found = read_labels(home/'neue Labels'/'ä')
    assert read_manifest(home/'neue Labels'/'ä', 'labels')['teacher'] == 'whole-1' and len(found) == 40
    assert {label.box for each in found for label in each.labels} == {(0., 0., 256., 256.)}


@pytest.mark.fault(19)
def test_a_place_that_cannot_be_written_is_told_before_any_work(items, tmp_path, monkeypatch):
    (tmp_path/'file').write_text('in the way')
    monkeypatch.setattr('vlground.scaleout.label_shard', lambda *_, **__: pytest.fail('work was done in vain'))
    with pytest.raises(OSError, match='file'): label_captions(items, tmp_path/'file'/'labels', **SMALL)


# looking at them

def test_the_summary_counts_by_hand():
    a, b = Phrase('a dog', 0, 5), Phrase('a cat', 10, 15)
    label = PseudoLabel(a, (0., 0., 5., 5.), .5)
    told = summarise([LabelledCaption('1', '1', 'a dog and a cat', (label, label), phrases=(a, b)), LabelledCaption('2', '2', '!', ()),
                      LabelledCaption('3', '3', 'x', (), 'OSError: broken'), LabelledCaption('4', '4', 'x', (), 'OSError: cut'), LabelledCaption('5', '5', 'x', (), 'too wide')])
    assert (told.captions, told.without_phrase, told.phrases, told.without_box, told.labels) == (5, 1, 2, 1, 2)
    assert told.errors == {'OSError': 2, 'too wide': 1}


def test_the_page_shows_the_same_sample_everywhere_and_nothing_is_markup(small_world, small_labels, small_regions, tmp_path):
    labelled, pictures, store = read_labels(small_labels, Preset()), find_images(small_world/'images'), Store(small_regions)
    labelled[0] = replace(labelled[0], id='<script>alert(1)</script>')
    told = summarise(labelled)
    one = write_label_page(sample_labels(labelled, 40), told, pictures, tmp_path/'one.html', store, title='<b>').read_text()
    assert one == write_label_page(sample_labels(labelled[::-1], 40), told, pictures, tmp_path/'two.html', store, title='<b>').read_text()
    assert one.count('<section>') == 40 and '<script>alert(1)' not in one and '<title>&lt;b&gt;' in one
    assert not re.search(r'(src|href)="https?:', one)
    few = write_label_page(sample_labels(labelled, 3), told, pictures, tmp_path/'few.html').read_text() # without regions
    assert few.count('<section>') == 3 and f'{sum(len(each.phrases) for each in labelled):,}' in few


def test_a_view_holds_all_that_was_said(small_world, small_labels, small_regions):
    each = next(each for each in read_labels(small_labels, Preset()) if len(each.labels) > 1)
    view = view_of(each, Image.open(small_world/'images'/each.image_id), Store(small_regions).get(each.image_id).boxes)
    assert each.caption in view.to_html()


def test_no_batch_is_smaller_than_one_picture(items, tmp_path):
    for size in (0, -3):
        with pytest.raises(ValueError, match=f'batch_size: expected at least 1 picture a call, got {size}'): label_captions(items, tmp_path/'labels', batch_size=size)
    assert not (tmp_path/'labels').exists()


def test_a_job_is_plain_data():
    assert LabelJob() == LabelJob('world', 'caption', 16, 'cpu') and hash(LabelJob()) == hash(LabelJob())
    assert cached_teacher('world', 'cpu') is cached_teacher('world', 'cpu')


def test_a_shard_says_what_failed(tmp_path):
    (tmp_path/'a.png').write_bytes(b'')
    shard = label_shard(7, [CaptionedImage('a.png', tmp_path/'a.png', 'a dog', 'a.png')], LabelJob())
    assert (shard.number, shard.captions, list(shard.errors)) == (7, 1, ['a.png']) and '"error"' in shard.lines


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_on_a_gpu_boxes_are_nearly_the_same(items, whole, tmp_path):
    found = read_labels(label_captions(items, tmp_path/'labels', device='cuda', **SMALL))
    pairs = [(a.box, b.box) for one, other in zip(found, read_labels(whole)) for a, b in zip(one.labels, other.labels)]
    assert sum(max(abs(x - y) for x, y in zip(a, b)) < 1 for a, b in pairs) > .97*len(pairs)
