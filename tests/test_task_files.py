"Data sets in the layout in which they are published, written by hand (tests/published.py): through all commands up to what the other side's validators take, and one sentence where something is wrong with them."
import csv
import json
import pickle
import re

import pytest
from published import MOVIE, SHOT, python_2, refcoco_plus, vcr_1, vqa_2

from vlground.boxes import box_iou
from vlground.questions import normalise_answer
from vlground.store import Store


def done(terminal, *words) -> str:
    "What a command prints that ends well."
    code, said, problem = terminal(*words)
    assert code == 0, problem
    return said


def refused(terminal, *words) -> str:
    "The one sentence of a command that ends with exit code 1."
    code, _, problem = terminal(*words)
    told = [line for line in problem.replace('\r', '\n').split('\n') if line.strip() and not re.search(r'\d+/\d+|Warning|warn\(', line)] # but for bars and warnings
    assert code == 1 and len(told) == 1 and told[0].startswith(f'{words[0]}: '), problem
    return told[0]


# RefCOCO+

def described(terminal, boxes: bool = False):
    "Make the store R of the pictures' regions: of MAttNet's boxes and in training the gold ones, or of what the detector proposes."
    if not boxes: return done(terminal, 'vlground_regions', 'train2014', '--out', 'R', '--keep', 6)
    done(terminal, 'vlground_boxes', 'refer', '--data', 'refer', '--detections', 'dets.json', '--out', 'boxes.jsonl')
    done(terminal, 'vlground_regions', 'train2014', '--out', 'R', '--boxes', 'boxes.jsonl')


def refer_words(start, *more) -> tuple:
    return 'vlground_finetune', 'refer', '--data', 'refer', '--regions', 'R', '--start', start, '--out', 'run', '--steps', 2, '--batch_size', 4, *more


def test_what_python_2_wrote_is_what_it_means():
    value = [{'a': 3, 'b': ['x', -4, 2**40], 'sentences': [{'raw': 'the dog'}]}]
    assert pickle.loads(b'\x80\x02' + python_2(value) + b'.') == value


@pytest.mark.parametrize('kind, boxes', [('vilbert', True), ('vlbert', False)])
def test_refcoco_plus_as_published(terminal, runs, tmp_path, kind, boxes):
    here = tmp_path/'here'
    refcoco_plus(here)
    described(terminal, boxes)
    said = done(terminal, *refer_words(runs/kind))
    assert [re.match(r'(\w+) +accuracy [01]\.\d{3}', line)[1] for line in said.strip().split('\n')] == ['val', 'testA', 'testB']
    refs, store = pickle.loads((here/'refer'/'refcoco+'/'refs(unc).p').read_bytes()), Store(here/'R')
    gold = {row['id']: row['bbox'] for row in json.loads((here/'refer'/'refcoco+'/'instances.json').read_text())['annotations']}
    names = {row['id']: row['file_name'] for row in json.loads((here/'refer'/'refcoco+'/'instances.json').read_text())['images']}
    result = json.loads((here/'run'/'result.json').read_text())
    assert result['expressions'] == sum(len(ref['sent_ids']) for ref in refs if ref['split'] == 'train')
    for split in ('val', 'testA', 'testB'):
        rows = [json.loads(line) for line in (here/'run'/f'predictions-{split}.jsonl').read_text().splitlines()]
        asked = {sentence['sent_id']: (ref, sentence) for ref in refs if ref['split'] == split for sentence in ref['sentences']}
        assert len(rows) == len(asked) == result[split]['n'] and {row['id'] for row in rows} == asked.keys()
        for row in rows:
            ref, sentence = asked[row['id']]
            x, y, w, h = gold[ref['ann_id']]
            assert row['text'] == sentence['raw'] and row['box'] == pytest.approx([x, y, x + w, y + h], abs=1e-3)
            assert len(row['scores']) == 1 + len(store.get(names[ref['image_id']]).boxes)
    if not boxes: return
    # what was found is nearly the truth, but for one expression of val, in whose picture nothing was found
    assert [result[split]['ceiling'] for split in ('val', 'testA', 'testB')] == [.75, 1, 1]
    first, gold_alone, measured, nothing = (store.get(names[581000 + 7*k]).boxes for k in (0, 3, 8, 9))
    assert first[3:].tolist() == [pytest.approx([20.5, 30.25, 111.25, 110.25]), pytest.approx([130, 100.13, 200.62, 200.03], abs=1e-3)] # the gold boxes of training, last
    assert [len(each) for each in (first, gold_alone, measured, nothing)] == [5, 2, 3, 0] and (box_iou(first[:2], first[3:]).diagonal() > .9).all()


def test_an_expression_that_says_nothing(terminal, runs, tmp_path):
    refcoco_plus(tmp_path/'here', lambda refs, coco, found: refs[9]['sentences'][0].update(raw='', sent='', tokens=[]))
    described(terminal)
    sent_id = pickle.loads((tmp_path/'here'/'refer'/'refcoco+'/'refs(unc).p').read_bytes())[9]['sent_ids'][0]
    assert re.search(rf'the first .*sent_id {sent_id}\b.*leave it out', refused(terminal, *refer_words(runs/'vilbert')))


def test_a_picture_of_an_expression_is_missing(terminal, runs, tmp_path):
    refcoco_plus(tmp_path/'here')
    (tmp_path/'here'/'train2014'/'COCO_train2014_000000581063.jpg').unlink()
    described(terminal)
    assert re.search('have no regions.* COCO_train2014_000000581063.jpg; run vlground_regions', refused(terminal, *refer_words(runs/'vilbert')))


# VQA 2.0

def vqa_words(start, *more) -> tuple:
    return 'vlground_finetune', 'vqa', '--data', 'vqa', '--regions', 'R', '--start', start, '--out', 'run', '--steps', 2, '--batch_size', 4, '--least', 2, *more


@pytest.mark.parametrize('kind', ['vilbert', 'vlbert'])
def test_vqa_as_published(terminal, runs, tmp_path, kind):
    here = tmp_path/'here'
    vqa_2(here)
    done(terminal, 'vlground_regions', 'images', '--out', 'R', '--keep', 6)
    said = done(terminal, *vqa_words(runs/kind))
    assert re.search(r'(?m)^all +accuracy [01]\.\d{3}  \(12 questions\)$', said)
    labels = json.loads((here/'run'/'answers.json').read_text())
    assert labels.keys() == {'red', '2', 'yes', 'no', 'hat'} and sorted(labels.values()) == [*range(5)]
    result = json.loads((here/'run'/'result.json').read_text())
    assert result['questions'] == 24 and result['val']['ceiling'] == 1 and result['val']['yes/no']['n'] + result['val']['number']['n'] + result['val']['other']['n'] == 12
    for split, subset in (('test', 'test2015'), ('val', 'val2014')):
        answers = json.loads((here/'run'/f'submission-{split}.json').read_text())
        asked = [row['question_id'] for row in json.loads((here/'vqa'/f'v2_OpenEnded_mscoco_{subset}_questions.json').read_text())['questions']]
        # what the test server asks of a file
        assert isinstance(answers, list) and all(each.keys() == {'question_id', 'answer'} for each in answers)
        assert len(answers) == len(asked) and {each['question_id'] for each in answers} == set(asked) and all(type(each['question_id']) is int for each in answers)
        assert all(type(each['answer']) is str and each['answer'] in labels and each['answer'] == normalise_answer(each['answer']) for each in answers)


def test_vqa_on_minval_and_on_test_dev(terminal, runs, tmp_path):
    here = tmp_path/'here'
    vqa_2(here)
    done(terminal, 'vlground_regions', 'images', '--out', 'R', '--keep', 6)
    said = done(terminal, *vqa_words(runs/'vilbert', '--minval', 5, '--answer', 'val,test-dev', '--images', 'images', '--every', 1, '--workers', 2, '--accumulate', 2))
    assert 'measured on minval, the last 5 questions of val; the others were trained on' in said and re.search(r'(?m)^all +accuracy [01]\.\d{3}  \(5 questions\)$', said)
    result = json.loads((here/'run'/'result.json').read_text())
    assert result['questions'] == 24 + 12 - 5 and result['minval']['all']['n'] == len(json.loads((here/'run'/'submission-minval.json').read_text())) == 5 and 'val' not in result
    assert len(json.loads((here/'run'/'submission-test-dev.json').read_text())) == 2 and not (here/'run'/'submission-test.json').exists()
    for wrong in ('test', 'val,train'): assert f'--answer {wrong}: expected val, and after it any of test, test-dev, with commas' in refused(terminal, *vqa_words(runs/'vilbert', '--answer', wrong))
    for wrong in (50, -5): assert f'--minval {wrong}: vqa has 12 questions in val' in refused(terminal, *vqa_words(runs/'vilbert', '--minval', wrong))
    assert '--every -5: expected a number of steps, 0 or -1' in refused(terminal, *vqa_words(runs/'vilbert', '--every', -5))


def test_vqa_with_pictures_in_the_folders_of_coco(terminal, runs, tmp_path):
    here = tmp_path/'here'
    vqa_2(here)
    for path in [*(here/'images').glob('*.jpg')]:
        subset = path.name.split('_')[1]
        (here/'images'/subset).mkdir(exist_ok=True)
        path.rename(here/'images'/subset/path.name)
    done(terminal, 'vlground_regions', 'images', '--out', 'R', '--keep', 4)
    done(terminal, *vqa_words(runs/'vilbert'))


def annotations(files, subset='train2014') -> list: return files[f'v2_mscoco_{subset}_annotations.json']['annotations']


def questions(files, subset='train2014') -> list: return files[f'v2_OpenEnded_mscoco_{subset}_questions.json']['questions']


def lose_picture(files): # the picture of one question of val is another, which is not there
    for row in questions(files, 'val2014') + annotations(files, 'val2014'):
        if row['question_id'] == 1042001: row['image_id'] = 777


def stray(files): annotations(files).append(annotations(files)[0] | {'question_id': 424242})


def lone(files): del annotations(files)[5]


def reword(text, subset='train2014'):
    def change(files): questions(files, subset)[4]['question'] = text
    return change


@pytest.mark.parametrize('change, told', [
    (lose_picture, r'1 pictures have no regions; question_id 1042001 needs the regions of COCO_val2014_000000000777\.jpg; run vlground_regions'),
    (stray, r'v2_mscoco_train2014_annotations\.json: 1 question_ids are in one file only, such as 424242'),
    (lone, r'v2_mscoco_train2014_annotations\.json: 1 question_ids are in one file only, such as 6009000'),
    (reword('☃ ☃?'), r'1 texts have no word that the vocabulary knows, the first is that of question_id 1009001; put it in other words or leave it out'),
    (reword(''), r'the first is that of question_id 1009001; put it in other words or leave it out'),
    (reword('?!', 'test2015'), r'the first is that of question_id 1001001; put it in other words or leave it out'),
    (lambda files: annotations(files)[3]['answers'].pop(), r'v2_OpenEnded_mscoco_train2014_questions\.json, question_id \d+: 9 answers; expected ten')],
    ids=['picture', 'annotation', 'question', 'no known word', 'empty', 'marks alone', 'nine answers'])
def test_questions_with_something_wrong(terminal, runs, tmp_path, change, told):
    vqa_2(tmp_path/'here', change)
    done(terminal, 'vlground_regions', 'images', '--out', 'R', '--keep', 4)
    assert re.search(told, refused(terminal, *vqa_words(runs/'vilbert')))
    assert not (tmp_path/'here'/'run').exists()


def test_a_question_with_half_a_character(terminal, runs, tmp_path):
    vqa_2(tmp_path/'here', reword('\ud83d What is red?'))
    done(terminal, 'vlground_regions', 'images', '--out', 'R', '--keep', 4)
    assert 'question_id 1009001' in refused(terminal, *vqa_words(runs/'vilbert'))


def test_more_words_than_the_model_has_places_for(terminal, runs, tmp_path):
    vqa_2(tmp_path/'here', reword('what colour is the dog ' * 40))
    done(terminal, 'vlground_regions', 'images', '--out', 'R', '--keep', 4)
    told = refused(terminal, *vqa_words(runs/'vilbert', '--words', 200))
    assert '64' in told and 'words' in told.split('64')[0] and not (tmp_path/'here'/'run').exists()


def test_no_answer_is_known(terminal, runs, tmp_path):
    vqa_2(tmp_path/'here')
    done(terminal, 'vlground_regions', 'images', '--out', 'R', '--keep', 4)
    assert 'no answer has a label: lower the number of questions that an answer must be the most frequent answer of' in refused(terminal, *vqa_words(runs/'vilbert', '--least', 50))


# VCR

HEADER = ('annot_id,answer_0,answer_1,answer_2,answer_3,'
          'rationale_conditioned_on_a0_0,rationale_conditioned_on_a0_1,rationale_conditioned_on_a0_2,rationale_conditioned_on_a0_3,'
          'rationale_conditioned_on_a1_0,rationale_conditioned_on_a1_1,rationale_conditioned_on_a1_2,rationale_conditioned_on_a1_3,'
          'rationale_conditioned_on_a2_0,rationale_conditioned_on_a2_1,rationale_conditioned_on_a2_2,rationale_conditioned_on_a2_3,'
          'rationale_conditioned_on_a3_0,rationale_conditioned_on_a3_1,rationale_conditioned_on_a3_2,rationale_conditioned_on_a3_3')


def vcr_words(start, *more) -> tuple:
    return 'vlground_finetune', 'vcr', '--data', '.', '--regions', 'C', '--start', start, '--out', 'run', '--steps', 2, '--batch_size', 2, *more


def gather(terminal, proposals: bool = False) -> None:
    "The boxes that words point at, and perhaps a detector's after them, described."
    if proposals: done(terminal, 'vlground_regions', 'vcr1images', '--out', 'P', '--keep', 3)
    done(terminal, 'vlground_boxes', 'vcr', '--data', '.', '--out', 'boxes.jsonl', *(['--regions', 'P'] if proposals else []))
    done(terminal, 'vlground_regions', 'vcr1images', '--out', 'C', '--boxes', 'boxes.jsonl')


@pytest.mark.parametrize('kind, proposals', [('vilbert', True), ('vlbert', False)])
def test_vcr_as_published(terminal, runs, tmp_path, kind, proposals):
    here = tmp_path/'here'
    vcr_1(here)
    gather(terminal, proposals)
    store, proposed = Store(here/'C'), Store(here/'P') if proposals else None
    assert len(store) == 9
    for name in store.ids:
        boxes, proposed_too = store.get(name).boxes, proposed.get(name).boxes if proposals else []
        assert len(boxes) == 4 + len(proposed_too) and boxes[0, :3].tolist() == [12.5, 20.25, 130.75] and boxes[2, 2] == 320 # cut off at the picture's edge
    said = done(terminal, *vcr_words(runs/kind))
    assert [line.split()[0] for line in said.strip().split('\n')[:3]] == ['Q→A', 'QA→R', 'Q→AR'] # and where a page is to look at
    result = json.loads((here/'run'/'result.json').read_text())
    assert result['items'] == 8 and result['val']['items'] == 4
    assert result['val']['joint'] <= min(result['val']['answer'], result['val']['rationale'])
    # what the leaderboard asks of a file
    lines = (here/'run'/'leaderboard-test.csv').read_text().splitlines()
    assert lines[0] == HEADER and len(HEADER.split(',')) == 21
    rows = list(csv.DictReader(lines))
    assert [row['annot_id'] for row in rows] == [f'test-{i}' for i in range(6)]
    for row in rows:
        numbers = [float(row[name]) for name in HEADER.split(',')[1:]]
        assert None not in row and all(0 <= number <= 1 for number in numbers)
        assert [sum(numbers[i:i + 4]) for i in range(0, 20, 4)] == [pytest.approx(1, abs=1e-3)]*5


def test_a_word_points_at_a_box_that_is_not_there(terminal, tmp_path):
    def change(rows, metadata): rows['val'][2]['rationale_choices'][1][0] = [4]
    vcr_1(tmp_path/'here', change)
    assert re.search(r'val\.jsonl, line 3.*: rationale 1 refers to \[4\], and the item has 4 objects: expected numbers from 0 to 3', refused(terminal, 'vlground_boxes', 'vcr', '--data', '.'))


def test_boxes_that_belong_to_other_objects(terminal, tmp_path):
    def change(rows, metadata): metadata[rows['train'][4]['img_fn'].removesuffix('.jpg')]['names'][0] = 'dog'
    vcr_1(tmp_path/'here', change)
    assert re.search(r'@0\.json: its names .*dog.* are not the objects of item train-4, ', refused(terminal, 'vlground_boxes', 'vcr', '--data', '.'))


def test_a_box_outside_its_picture(terminal, tmp_path):
    def change(rows, metadata): metadata[rows['test'][0]['img_fn'].removesuffix('.jpg')]['boxes'][1] = [150., 30., 330., 160., .9]
    vcr_1(tmp_path/'here', change)
    assert re.search(r'@0\.json: box 1 is .*; expected an area inside the picture of 320 x 180 pixels', refused(terminal, 'vlground_boxes', 'vcr', '--data', '.'))


def test_more_objects_than_regions_are_read(terminal, runs, tmp_path):
    vcr_1(tmp_path/'here')
    gather(terminal)
    assert re.search(r'item (train|val|test)-0: it has 4 objects, and 3 regions are read; raise --most_regions', refused(terminal, *vcr_words(runs/'vilbert', '--most_regions', 3)))
    done(terminal, *vcr_words(runs/'vilbert', '--most_regions', 4))


def test_choices_without_a_word(terminal, runs, tmp_path):
    def change(rows, metadata):
        rows['val'][1]['question'] = ['?']
        rows['val'][1]['answer_choices'][3] = ['.']
    vcr_1(tmp_path/'here', change)
    gather(terminal)
    assert re.search(r'1 texts have no word that the vocabulary knows, the first is that of .*val-1\b.*; put it in other words or leave it out', refused(terminal, *vcr_words(runs/'vilbert')))


def test_a_picture_of_a_choice_is_missing(terminal, runs, tmp_path):
    vcr_1(tmp_path/'here')
    gather(terminal)
    name = f'{MOVIE}/{SHOT.format(99)}.jpg'
    text = (tmp_path/'here'/'test.jsonl').read_text().splitlines()
    text[4] = json.dumps(json.loads(text[4]) | {'img_fn': name})
    (tmp_path/'here'/'test.jsonl').write_text('\n'.join(text))
    assert re.search(rf'1 pictures have no regions; .*test-4\b.* needs the regions of {re.escape(name)}; run vlground_regions', refused(terminal, *vcr_words(runs/'vilbert')))


# starts

def test_what_a_fine_tuning_cannot_go_on_from(terminal, runs, tmp_path):
    "The folder of data, a store, and a fine-tuning that was killed before its end."
    here = tmp_path/'here'
    vqa_2(here)
    done(terminal, 'vlground_regions', 'images', '--out', 'R', '--keep', 4)
    done(terminal, *vqa_words(runs/'vilbert'))
    other = ('--out', 'other')
    for start in ('vqa', 'R', 'nowhere'): assert f'{start} is not the folder of a ' in refused(terminal, *vqa_words(start, *other))
    assert 'run is not the folder of a pre-training' in refused(terminal, *vqa_words('scratch:run', *other)) # which size shall it be? It says so only of a pre-training
    (here/'run').rename(here/'half')
    (here/'half'/'summary.json').unlink()
    (here/'half'/'final.safetensors').unlink()
    assert re.search('half.*(has not ended|not the folder of a pre-training)', refused(terminal, *vqa_words('half', *other)))
    assert not (here/'other').exists()


def test_one_task_goes_on_from_another(terminal, runs, tmp_path):
    here = tmp_path/'here'
    vqa_2(here)
    done(terminal, 'vlground_regions', 'images', '--out', 'R', '--keep', 4)
    done(terminal, *vqa_words(runs/'vlbert'))
    vcr_1(here)
    gather(terminal)
    done(terminal, *vcr_words('run', '--out', 'next'))
    assert json.loads((here/'next'/'result.json').read_text())['items'] == 8
