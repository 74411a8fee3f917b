"The commands as a terminal calls them: the chain, their help, one sentence for each mistake, and Ctrl-C."
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from killing import begin, wait_until
from PIL import Image

from vlground import cli
from vlground.cli import one_sentence
from vlground.core import load_json
from vlground.store import Store
from vlground.logs import read_log
from vlground.webdata import export_tar

COMMANDS = ('vlground_world', 'vlground_regions', 'vlground_label', 'vlground_check', 'vlground_bench', 'vlground_pretrain', 'vlground_boxes', 'vlground_finetune', 'vlground_demo', 'vlground_tasks', 'vlground_tables')


def test_the_chain(terminal, tmp_path):
    folder = tmp_path/'here'
    for name, *words in (('vlground_world', '--out', 'W', '--pairs', 12, '--val', 4, '--refer', 30, '--vqa', 10, '--vcr', 20, '--seed', 2), ('vlground_regions', 'W/images', '--out', 'R', '--keep', 6),
                         ('vlground_label', '--images', 'W/images', '--captions', 'W/captions.tsv', '--regions', 'R', '--out', 'L', '--gold', 'W/gold/captions.jsonl'),
                         ('vlground_pretrain', '--regions', 'R', '--labels', 'L', '--out', 'runs/ours', '--steps', 2, '--seed', 1),
                         ('vlground_pretrain', '--regions', 'R', '--labels', 'L', '--out', 'runs/base', '--steps', 2, '--no-grounding', '--no-spe'),
                         ('vlground_finetune', 'refer', '--data', 'W/refer', '--regions', 'R', '--start', 'runs/ours', '--out', 'runs/refer', '--steps', 2, '--batch_size', 16, '--most_regions', 4)):
        code, said, problem = terminal(name, *words)
        assert code == 0, problem
        if name == 'vlground_label': assert re.search(r'precision 0\.\d+  recall 0\.\d+  coverage [01]\.\d+  \(\d+ phrases with a region in 12 captions\)', said)
    assert [re.match(r'(\w+) +accuracy [01]\.\d+', line)[1] for line in said.strip().split('\n')] == ['val', 'testA', 'testB']
    assert load_json(folder/'W'/'world.json') == dict(seed=2, captions=12, val=4, refer=30, vqa=10, vcr=20, contradiction=.08, chatter=.4)
    assert max(len(regions.boxes) for regions in Store(folder/'R')) == 6
    ours, base = (load_json(folder/'runs'/name/'config.json')['pretrain'] for name in ('ours', 'base'))
    assert (ours['grounding'], ours['spe'], ours['seed'], ours['steps']) == ('phrase', True, 1, 2) and (base['grounding'], base['spe']) == ('none', False)
    assert load_json(folder/'runs'/'refer'/'result.json')['val']['n'] > 0
    refer = json.dumps(load_json(folder/'runs'/'refer'/'config.json'))
    assert '"batch_size": 16' in refer and '"regions": 4' in refer
    # again: everything is done already
    before = (folder/'runs'/'ours'/'final.safetensors').stat().st_mtime_ns
    assert terminal('vlground_pretrain', '--regions', 'R', '--labels', 'L', '--out', 'runs/ours', '--steps', 2, '--seed', 1)[0] == 0
    assert (folder/'runs'/'ours'/'final.safetensors').stat().st_mtime_ns == before


@pytest.mark.parametrize('name', COMMANDS)
def test_help_names_every_option_with_its_default(terminal, name):
    import inspect

    import vlground.cli
    code, said, _ = terminal(name, '--help')
    assert code == 0 and said.startswith(f'usage: {name}')
    for option, parameter in inspect.signature(getattr(vlground.cli, name)).parameters.items():
        line = next(line for line in said.split('\n') if re.match(rf'  (--|--no-)?{option} ', line + ' '))
        told = line.split('  ')[-1]
        assert len(told) > 5, f'{option} is not explained'
        if parameter.default not in (inspect.Parameter.empty, None): assert f'(default: {parameter.default})' in line
        elif parameter.default is None: assert '(needed)' in line


MISTAKES = [
    (('vlground_regions', 'nowhere'), 'nowhere: no such folder of images'),
    (('vlground_regions', '{world}/images', '--detector', 'yolo'), "no detector named 'yolo'"),
    (('vlground_regions', '{world}/gold', '--out', 'R'), 'no pictures in this folder'),
    (('vlground_label', '--captions', '{world}/captions.tsv'), '--images is missing'),
    (('vlground_label', '--images', '{world}/images', '--captions', '{world}/captions.tsv', '--gold', '{world}/gold/captions.jsonl'), '--gold needs --regions'),
    (('vlground_label', '--images', '{world}/images', '--captions', '{world}/captions.tsv', '--shard', '3'), '--shard 3: expected i/n, such as 3/8'),
    (('vlground_label', '--images', '{world}/images', '--captions', '{world}/captions.tsv', '--engine', 'spark'), "no engine 'spark'; there are local, ray"),
    (('vlground_label', '--images', '{world}/images', '--captions', '{world}/captions.tsv', '--preset', 'gold'), "no preset 'gold'; there are paper, glip, grit"),
    (('vlground_label', '--images', '{world}/images'), 'no captions in it'),
    (('vlground_label', '--images', '{world}/images', '--captions', '{world}/captions.tsv', '--batch_size', '0'), 'batch_size: expected at least 1 picture a call, got 0'),
    (('vlground_label', '--images', '{world}/images', '--captions', '{empty}'), 'empty.tsv: no captions'),
    (('vlground_check', 'nowhere'), 'nowhere: no such folder'),
    (('vlground_bench', 'speed'), "no benchmark 'speed'; there are store, label, model"),
    (('vlground_label', '--images', '{world}/images', '--captions', 'no.tsv', '--regions', '{regions}'), 'no.tsv: no such captions file'),
    (('vlground_label', '--images', '{world}/images', '--captions', '{world}/captions.tsv', '--regions', '{labels}'), 'store of labels, expected regions'),
    (('vlground_label', '--images', '{world}/images', '--captions', '{world}/captions.tsv', '--regions', '{regions}', '--gold', 'no.jsonl'), 'no.jsonl: no such file'),
    (('vlground_label', '--images', '{world}/images', '--captions', '{world}/captions.tsv', '--regions', '{regions}', '--teacher', 'glip'), "no teacher named 'glip'"),
    (('vlground_pretrain', '--labels', '{labels}'), '--regions is missing'),
    (('vlground_pretrain', '--regions', '{regions}', '--labels', '{labels}', '--preset', 'huge'), "no preset 'huge'; there are mini, mini-vlbert, paper"),
    (('vlground_pretrain', '--regions', '{regions}', '--labels', '{labels}', '--level', 'sentence'), "grounding must be phrase or token or none, got 'sentence'"),
    (('vlground_pretrain', '--regions', '{regions}', '--labels', '{labels}', '--fraction', '2'), 'fraction must be above 0 and at most 1'),
    (('vlground_pretrain', '--regions', '{regions}', '--labels', '{regions}'), 'store of regions, expected labels'),
    (('vlground_finetune', 'gqa', '--data', 'x', '--regions', 'x', '--start', 'x'), "no task 'gqa'; there are refer, vqa, vcr"),
    (('vlground_finetune', 'vqa', '--data', 'x', '--regions', 'x', '--start', 'x'), 'v2_OpenEnded_mscoco_train2014_questions.json'),
    (('vlground_finetune', 'vcr', '--data', 'x', '--regions', 'x', '--start', 'x'), 'train.jsonl: no such file'),
    (('vlground_finetune', 'vcr', '--data', 'x', '--regions', 'x'), '--start is missing'),
    (('vlground_finetune', 'refer', '--data', '{world}/refer', '--regions', '{regions}', '--start', 'x', '--sets', 'refcoco+,refclef'), 'refer/refclef/refs(unc).p: no such file'),
    (('vlground_finetune', 'refer', '--data', '{world}/refer', '--regions', '{regions}', '--start', 'x', '--images', 'x'), '--images x: there is no such folder'),
    (('vlground_finetune', 'refer', '--data', '{world}/refer', '--regions', '{regions}', '--start', 'x', '--course', 'bert'), "there is no course 'bert'; there are linear, vilbert"),
    (('vlground_tasks', '--demo', '{world}', '--out', 'x'), 'no demo.json; run vlground_demo --out'),
    (('vlground_finetune', 'vqa', '--data', 'x', '--regions', 'x', '--start', 'x', '--hard'), '--hard is an option of refer, not of vqa'),
    (('vlground_finetune', 'vcr', '--data', 'x', '--regions', 'x', '--start', 'x', '--images', '.'), '--images is an option of refer and vqa'),
    (('vlground_finetune', 'vcr', '--data', 'x', '--regions', 'x', '--start', 'x', '--steps', 3, '--epochs', 1), 'give --steps or --epochs, not both'),
    (('vlground_pretrain', '--regions', 'x', '--labels', 'x', '--steps', 3, '--epochs', 1), 'give --steps or --epochs, not both'),
    (('vlground_finetune', 'vcr', '--data', 'x', '--regions', 'x', '--start', 'x', '--epochs', 'inf'), 'epochs must be 0 or more, got inf'),
    (('vlground_finetune', 'vcr', '--data', 'x', '--regions', 'x', '--start', 'x', '--seed', -1), 'seed must be 0 or more, got -1'),
    (('vlground_tables', 'IV'), "there is no table 'IV'; there are I, II, III, supplement, figure5, rates, teacher, weight, threshold, phrases, worth, steps, part, finetuning, claims"),
    (('vlground_tables', 'II', '--scale', 'huge'), "there is no scale 'huge'; there are demo, laptop, search, gpu, real"),
    (('vlground_tables', 'II', '--scale', 'real', '--dry_run'), 'this scale takes your own data: name their folders in a JSON file'),
    (('vlground_tables', 'II', '--changes', '{world}/nothing.json', '--dry_run'), 'nothing.json'),
    (('vlground_tables', 'claims'), 'results: none of table-I-laptop.json, table-II-laptop.json, table-III-laptop.json, table-supplement-laptop.json; make a table first'),
    (('vlground_tasks', '--size', 'huge'), "there is no size 'huge'; there are full, small"),
    (('vlground_boxes', 'vqa', '--data', 'x'), "no boxes to gather for 'vqa'"),
    (('vlground_boxes', 'refer', '--data', 'x'), 'give --regions or --detections'),
    (('vlground_boxes', 'refer', '--data', '{world}/refer', '--regions', '{regions}', '--most', 2), 'gold boxes, and 2 regions are read'),
    (('vlground_boxes', 'vcr', '--data', '{world}'), 'no train.jsonl, val.jsonl or test.jsonl'),
    (('vlground_finetune', 'refer', '--data', '{world}', '--regions', '{regions}', '--start', 'x'), 'refs(unc).p: no such file'),
    (('vlground_finetune', 'refer', '--data', '{world}/refer', '--regions', '{regions}', '--start', 'x'), 'x is not the folder of a pre-training'),
    (('vlground_finetune', 'refer', '--data', 'x', '--regions', 'x', '--start', 'x', '--most_regions', '0'), '--most_regions must be at least 1, got 0'),
    (('vlground_world', '--out', '{world}', '--seed', '5'), 'holds another world'),
    (('vlground_world', '--out', '{world}', '--chatter', '2'), 'Recipe.chatter: expected a share from 0 to 1, got 2'),
    (('vlground_pretrain', '--regions', '{regions}', '--labels', '{labels}', '--device', 'banana'), '--device banana: expected cpu, cuda or cuda:1'),
    (('vlground_pretrain', '--regions', '{regions}', '--labels', '{labels}', '--out', '{world}/captions.tsv/run'), 'captions.tsv'),
    (('vlground_demo', '--size', 'huge'), "no size 'huge'; there are full, small"),
]


@pytest.mark.parametrize('words, told', MISTAKES, ids=[f'{words[0]}-{i}' for i, (words, _) in enumerate(MISTAKES)])
def test_a_mistake_is_one_sentence_and_exit_code_1(terminal, small_world, small_regions, small_labels, tmp_path, words, told):
    places = dict(world=small_world, regions=small_regions, labels=small_labels, empty=tmp_path/'empty.tsv')
    places['empty'].touch()
    code, said, problem = terminal(*(str(word).format(**places) for word in words))
    sentence = [line for line in problem.split('\n') if line]
    assert code == 1 and len(sentence) == 1 and sentence[0].startswith(f'{words[0]}: ') and told in sentence[0] and not said


def test_questions_and_choices(terminal, tmp_path, small_regions, small_labels):
    vqa = ('vlground_finetune', 'vqa', '--data', 'W/vqa', '--regions', 'R', '--start', 'runs/ours', '--out', 'runs/vqa', '--steps', 3, '--least', 2, '--batch_size', 8, '--images', 'W/images')
    vcr = ('vlground_finetune', 'vcr', '--data', 'W/vcr', '--regions', 'C', '--start', 'scratch:runs/ours', '--out', 'runs/vcr', '--steps', 2, '--batch_size', 4)
    said = {}
    for name, *words in (('vlground_world', '--out', 'W', '--pairs', 1, '--val', 1, '--refer', 1, '--vqa', 20, '--vcr', 120), ('vlground_regions', 'W/images', '--out', 'R', '--keep', 6),
                         ('vlground_regions', 'W/vcr/vcr1images', '--out', 'P', '--keep', 4), ('vlground_boxes', 'vcr', '--data', 'W/vcr', '--out', 'boxes.jsonl', '--regions', 'P'),
                         ('vlground_regions', 'W/vcr/vcr1images', '--out', 'C', '--boxes', 'boxes.jsonl'),
                         ('vlground_pretrain', '--regions', small_regions, '--labels', small_labels, '--out', 'runs/ours', '--steps', 1), vqa, vcr):
        code, said[words[0]], problem = terminal(name, *words)
        assert code == 0, problem
    assert re.search(r'(?m)^all +accuracy 0\.\d+  \(24 questions\)$', said['vqa']) and 'ceiling' in said['vqa']
    assert [line.split()[0] for line in said['vcr'].strip().split('\n')] == ['Q→A', 'QA→R', 'Q→AR', 'to'] # to look at: a page
    here = tmp_path/'here'/'runs'
    assert len(load_json(here/'vqa'/'submission-test.json')) == 12 and (here/'vcr'/'leaderboard-test.csv').read_text().startswith('annot_id,answer_0')
    for page in ('vqa', 'vcr'): assert '<img' in (text := (here/page/'examples.html').read_text()) and 'http' not in text.replace('http://www.w3.org', '')


def test_captions_of_pictures_that_have_no_regions(terminal, small_world, small_regions, tmp_path):
    (tmp_path/'here').mkdir()
    images = tmp_path/'here'/'images'
    images.mkdir()
    (images/'new.jpg').write_bytes((small_world/'images'/'captions-000000.jpg').read_bytes())
    (tmp_path/'here'/'c.tsv').write_text('a dog\tnew.jpg\n')
    code, _, problem = terminal('vlground_label', '--images', 'images', '--captions', 'c.tsv', '--regions', small_regions)
    assert code == 1 and '1 of 1 captioned pictures have no regions, the first is new.jpg; run vlground_regions' in problem


def test_several_sets_gold_boxes_and_the_published_course(terminal, tmp_path, small_world, small_regions, small_labels):
    data = ('--data', small_world/'refer')
    train = ('vlground_finetune', 'refer', *data, '--most_regions', 12, '--batch_size', 8)
    said = {}
    for name, *words in (('vlground_pretrain', '--regions', small_regions, '--labels', small_labels, '--out', 'runs/ours', '--steps', 1),
                         ('vlground_boxes', 'refer', *data, '--regions', small_regions, '--most', 12), ('vlground_regions', small_world/'images', '--out', 'G', '--boxes', 'boxes.jsonl'),
                         (*train, '--regions', 'G', '--start', 'runs/ours', '--out', 'runs/joint', '--sets', 'refcoco+,refcoco,refcocog', '--steps', 2),
                         (*train, '--regions', 'G', '--start', 'runs/joint', '--out', 'runs/then', '--course', 'vilbert', '--epochs', .1, '--hard', '--images', small_world/'images'),
                         (*train, '--regions', 'G', '--start', 'runs/joint', '--out', 'runs/long', '--sets', 'refcocog', '--steps', 2)):
        code, said[words[words.index('--out') + 1] if '--out' in words else name], problem = terminal(name, *words)
        assert code == 0, problem
    here = tmp_path/'here'/'runs'
    assert [line.split()[0] for line in said['runs/then'].strip().split('\n')] == ['val', 'testA', 'testB', 'to'] and (here/'then'/'examples.html').is_file()
    assert [line.split()[0] for line in said['runs/long'].strip().split('\n')] == ['val', 'test']
    joint, then = (load_json(here/name/'config.json') for name in ('joint', 'then'))
    assert load_json(here/'joint'/'result.json')['expressions'] > 2*load_json(here/'then'/'result.json')['expressions']
    assert then['data']['hard'] and not joint['data']['hard'] and (then['finetune']['head_rate'], then['finetune']['drops'], then['finetune']['learning_rate']) == (1, [.6, .8], 4e-5)


@pytest.mark.fault(5)
def test_another_start_needs_a_word(terminal, small_regions, small_labels):
    words = ('vlground_pretrain', '--regions', small_regions, '--labels', small_labels, '--out', 'run', '--steps')
    assert terminal(*words, 1)[0] == 0
    code, _, problem = terminal(*words, 2)
    assert code == 1 and 'pretrain.steps: 1 before, 2 now' in problem and '--accept_changes' in problem
    assert terminal(*words, 2, '--accept_changes')[0] == 0 and load_json('run/summary.json')['steps'] == 2


@pytest.mark.fault(8)
def test_pictures_that_cannot_be_used_are_told(terminal, small_world, tmp_path):
    images = tmp_path/'here'/'images'
    images.mkdir(parents=True)
    for name, length in (('a.jpg', None), ('b.jpg', 900), ('c.jpg', 0)): (images/name).write_bytes((small_world/'images'/'captions-000000.jpg').read_bytes()[:length])
    (tmp_path/'here'/'c.tsv').write_text('a dog\ta.jpg\na cat\tb.jpg\na cow\tc.jpg\n')
    for words in (('vlground_regions', 'images', '--out', 'R'), ('vlground_label', '--images', 'images', '--captions', 'c.tsv', '--regions', 'R', '--out', 'L')):
        code, _, problem = terminal(*words)
        assert code == 1 and 'of 3 could not be used, more than the share of 0.1 that max_errors allows' in problem
        code, _, problem = terminal(*words, '--max_errors', 1)
        assert code == 0 and re.search(r'not usable: 2, the first is b\.jpg: \w+: ', problem)


def test_no_graphics_card(terminal, small_regions, small_labels, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    code, _, problem = terminal('vlground_pretrain', '--regions', small_regions, '--labels', small_labels, '--device', 'cuda')
    assert code == 1 and 'no graphics card' in problem
    assert terminal('vlground_tables', 'II', '--scale', 'gpu', '--dry_run')[0] == 0 # a plan needs none
    code, _, problem = terminal('vlground_tables', 'II', '--scale', 'gpu')
    assert code == 1 and 'scale gpu: device cuda: PyTorch finds no graphics card here; take the scale laptop, or say {"device": "cpu"}' in problem


def test_a_device_that_is_none_is_told_with_the_plan(terminal, tmp_path):
    (tmp_path/'odd.json').write_text('{"device": "abacus"}')
    code, _, problem = terminal('vlground_tables', 'II', '--changes', tmp_path/'odd.json', '--dry_run')
    assert code == 1 and 'scale laptop-odd: device abacus: expected cpu, cuda or cuda:1' in problem


@pytest.mark.parametrize(('is_terminal', 'printed'), [(False, 'plan\na\nbcdef\nc\nd\n'), (True, 'plan\na\nbcde\n\x1b[2F\x1b[Jc\nd\n')])
def test_a_table_takes_the_place_of_the_one_before_on_a_terminal(monkeypatch, capsys, is_terminal, printed):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: is_terminal)
    monkeypatch.setattr(cli, 'get_terminal_size', lambda: os.terminal_size((4, 9))) # lines are cut there
    show = cli._showing()
    for text in ('plan', 'a\nbcdef', 'c\nd'): show(text)
    assert capsys.readouterr().out == printed


def test_defects_keep_their_traceback():
    @one_sentence
    def broken(number: int = 1): raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError): broken(number=2)


@pytest.mark.fault(6)
def test_ctrl_c_saves_and_ends_with_130_and_a_rerun_goes_on(small_regions, small_labels, tmp_path):
    script = tmp_path/'vlground_pretrain.py'
    script.write_text('from vlground.cli import vlground_pretrain\nif __name__ == "__main__": vlground_pretrain()\n')
    words = ('--regions', small_regions, '--labels', small_labels, '--out', tmp_path/'run', '--steps', 100_000)
    process = begin(str(script), *words)
    wait_until(process, lambda: (tmp_path/'run'/'log.jsonl').exists() and (tmp_path/'run'/'log.jsonl').stat().st_size > 0)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and 'Traceback' not in said and 'all of it saved; run again to go on' in said
    steps = read_log(tmp_path/'run')[-1]['step']
    process = begin(str(script), *words)
    wait_until(process, lambda: read_log(tmp_path/'run')[-1]['step'] > steps)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    logged = [line['step'] for line in read_log(tmp_path/'run')]
    assert logged == sorted(set(logged)) and steps in logged


TEACHER = '''
import torch
from vlground.grounder import Grounded

class Upper:
    "Points at the upper half, whatever it is asked."
    name = 'upper-1'

    def __call__(self, images, phrases):
        answers = []
        for image, asked in zip(images, phrases):
            box = torch.tensor([[0., 0., image.width, image.height / 2]])
            answers.append(Grounded(box.repeat(len(asked), 1), torch.full((len(asked),), .5), torch.arange(len(asked))))
        return answers
'''


def test_photographs_and_a_teacher_of_ones_own_need_no_preparation(terminal, tmp_path):
    photos = tmp_path/'here'/'my photos'
    photos.mkdir(parents=True)
    for i, (mode, suffix) in enumerate([('RGB', 'jpg'), ('L', 'png'), ('RGBA', 'png'), ('P', 'gif'), ('RGB', 'webp')]*2): Image.effect_noise((300 + 40*i, 200), 60).convert(mode).save(photos/f'photo {i}.{suffix}')
    (photos/'captions.tsv').write_text(''.join(f'a red dog and the old house, number {i}\t{path.name}\n' for i, path in enumerate(sorted(photos.glob('photo*')))))
    (tmp_path/'here'/'mine.py').write_text(TEACHER)
    code, said, problem = terminal('vlground_label', '--images', 'my photos', '--teacher', 'mine:Upper', '--out', 'labels')
    assert code == 0 and '10 captions, 30 phrases (0 without a box), 30 boxes, 0 not usable' in said, problem
    assert 'upper-1' in (tmp_path/'here'/'labels'/'manifest.json').read_text() and (tmp_path/'here'/'labels'/'labels.html').read_text().count('<section>') == 10


def test_a_folder_is_labelled_as_it_is_checked(terminal, small_world):
    "Captions beside a folder `images`: what vlground_check calls usable can be labelled under the same name."
    code, said, problem = terminal('vlground_label', '--images', small_world, '--out', 'L', '--sample', 2)
    assert code == 0 and said.startswith('40 captions, ') and Path('L/labels.html').read_text().count('<section>') == 2, problem


def test_ctrl_c_is_told(capsys):
    @one_sentence
    def patient(): raise KeyboardInterrupt
    with pytest.raises(SystemExit): patient()
    assert capsys.readouterr().err == 'patient: stopped; run again to go on\n'


def test_jobs_of_an_array_leave_the_summary_to_the_last(terminal, small_world):
    words = ('vlground_label', '--images', small_world/'images', '--captions', small_world/'captions.tsv', '--out', 'L', '--shard_size', 10, '--sample', 0)
    code, said, _ = terminal(*words, '--shard', '1/2')
    assert code == 0 and said == 'L: 2 of 4 shards are left to other jobs\n'
    code, said, _ = terminal(*words, '--shard', '2/2')
    assert code == 0 and said.startswith('40 captions, ') and not (Store.__name__ in said)
    code, said, _ = terminal('vlground_regions', small_world/'images', '--out', 'R', '--keep', 4, '--shard', '1/1')
    assert code == 0 and len(Store('R')) == 96


def test_check_tells_with_its_exit_code(terminal, small_world, small_labels, tmp_path):
    code, said, _ = terminal('vlground_check', small_world)
    assert code == 0 and said.endswith('usable\n') and 'captions 40' in said
    (tmp_path/'here'/'broken').mkdir()
    (tmp_path/'here'/'broken'/'captions.tsv').write_text('no tab\n')
    code, said, problem = terminal('vlground_check', 'broken')
    assert code == 1 and 'WRONG' in said and 'line 1' in said and not problem


def test_a_benchmark_prints_a_table_then_one_line_of_json_and_leaves_it_in_a_file(terminal, monkeypatch, tmp_path):
    from vlground.bench import BENCHES
    from vlground.webdata import bench_store
    monkeypatch.setitem(BENCHES, 'store', lambda folder: bench_store(folder, records=16, rounds=1))
    code, said, problem = terminal('vlground_bench', 'store', '--out', 'found')
    assert code == 0, problem
    found = json.loads(said.strip().split('\n')[-1])
    assert found == load_json(tmp_path/'here'/'found'/'bench-store.json') and found['speed_ratio'] > 1 and 0 < found['bytes_ratio'] < 1
    assert re.search(r'(?m)^speed_ratio +\d', said)


def test_a_dry_run_tells_the_plan_checks_the_folders_and_leaves_nothing(terminal, small_regions, small_labels, tmp_path, monkeypatch):
    import vlground.cli
    for name in ('pretrain', 'joined_processes'): monkeypatch.setattr(vlground.cli, name, lambda *given, **more: pytest.fail('it trains'))
    code, said, problem = terminal('vlground_pretrain', '--preset', 'paper', '--dry_run', '--cards', 8, '--price', 2)
    assert code == 0 and not problem and 'no folders were named' in said
    assert re.search(r'(?m)^captions +3,119,449$', said) and re.search(r'(?m)^steps +60,920 of 512', said) and re.search(r'(?m)^on 8 x H200 .*at 2 an hour', said)
    code, said, _ = terminal('vlground_pretrain', '--regions', small_regions, '--labels', small_labels, '--steps', 3, '--dry_run')
    assert code == 0 and re.search(r'(?m)^captions +40$', said) and re.search(r'(?m)^steps +3 of 64', said) and 'MFLOP a caption' in said
    code, _, problem = terminal('vlground_pretrain', '--dry_run', '--cards', 3)
    assert code == 1 and 'a batch of 64 cannot be cut into equal parts for 3 cards' in problem
    assert not list((tmp_path/'here').iterdir())


def test_a_dry_run_takes_regions_in_tar_files_near_and_far(terminal, small_regions, small_labels, tmp_path):
    near, far = export_tar(Store(small_regions), tmp_path/'near', quiet=True), tmp_path/'far'
    words = ('vlground_pretrain', '--regions', near, '--labels', small_labels, '--steps', 3, '--dry_run')
    code, said, problem = terminal(*words)
    assert code == 0 and re.search(r'(?m)^captions +40$', said), said + problem
    far.mkdir()
    for path in near.glob('*.tar'): path.rename(far/path.name)
    code, said, problem = terminal(*words)
    assert code == 1 and f'{near}: ' in problem and 'of its tar files are not here; --fetch' in problem
    code, said, problem = terminal(*words, '--fetch', f'cp {far}/{{name}} {{path}}', '--cache', tmp_path/'cache')
    assert code == 0 and re.search(r'(?m)^captions +40$', said) and 'not here and were not looked at' in said, said + problem
    assert not (tmp_path/'cache').exists() # nothing was fetched


@pytest.mark.parametrize('text, told', [('{"learning_rate": "2e-3"}', "learning_rate must be a number, got '2e-3'"), ('{"words": 2.5}', 'words must be a whole number, got 2.5'),
                                        ('{"cap": "x"}', "cap must be a whole number or null, got 'x'"), ('[]', 'expected an object with fields of PretrainConfig, got []')])
def test_a_file_of_settings_of_another_type(terminal, tmp_path, text, told):
    (tmp_path/'my.json').write_text(text)
    code, said, problem = terminal('vlground_pretrain', '--config', tmp_path/'my.json', '--dry_run')
    assert code == 1 and not said and problem == f'vlground_pretrain: {tmp_path}/my.json: {told}\n'


def test_a_dry_run_names_what_is_damaged(terminal, small_regions, small_labels, tmp_path):
    import shutil
    damaged = shutil.copytree(small_regions, tmp_path/'damaged')
    shard = max(damaged.rglob('*.safetensors'), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-100])
    code, said, _ = terminal('vlground_pretrain', '--regions', damaged, '--labels', small_labels, '--dry_run')
    assert code == 1 and 'WRONG' in said and shard.stem in said and 'not fit for training' in said and re.search(r'(?m)^captions +3,119,449$', said)
    code, said, problem = terminal('vlground_pretrain', '--regions', tmp_path/'nowhere', '--labels', small_labels, '--dry_run')
    assert code == 1 and 'nowhere' in said + problem and not list((tmp_path/'here').iterdir())
