"What the paper did not ask: labels as wrong as one likes, and studies that share their runs with the tables."
import json
from dataclasses import replace

import pytest
import torch

from vlground.batches import CaptionData
from vlground.boxes import box_iou
from vlground.core import load_json
from vlground.datasets import read_captions
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, build_model, held_out_captions, measure_model, pretrain
from vlground.pseudolabels import label_is_right, measure_labels, read_gold, read_labels
from vlground.runs import in_order
from vlground.store import Store
from vlground.claims import TABLES, TASKS, Cell
from vlground.tables import SCALES, pretrain_run, table_runs
from vlground.variations import (MEASURED, SHOWN, STUDIES, Study, measure_curve, measure_knowledge, measure_teacher, read_measured, spoil_labels, steps_figure, study_bases, study_figure, study_runs, study_table,
                                worth_figure)


@pytest.fixture(scope='module')
def spoiled(small_world, small_regions, small_labels, tmp_path_factory):
    folder = tmp_path_factory.mktemp('spoiled')
    return {share: spoil_labels(small_labels, small_world/'gold'/'captions.jsonl', small_regions, folder/f'{share:g}', share) for share in (0., .3, .6, 1.)}


def test_precision_falls_as_labels_are_spoiled(spoiled, small_world, small_regions):
    store, gold = Store(small_regions), read_gold(small_world/'gold'/'captions.jsonl')
    found = {share: measure_labels(read_labels(folder), store, gold)['precision'] for share, folder in spoiled.items()}
    assert found[0.] > .95 and found[1.] < .1 and found[0.] > found[.3] > found[.6] > found[1.]
    def right(share): return {(each.id, i) for each in read_labels(spoiled[share]) for i, label in enumerate(each.labels) if label_is_right(label, gold[each.id].phrases)}
    assert right(.6) < right(.3) # what is spoiled stays spoiled


def test_a_wrong_label_lies_on_a_region_that_shows_something_else(spoiled, small_regions):
    store = Store(small_regions)
    for true, false in zip(read_labels(spoiled[0.]), read_labels(spoiled[1.])):
        boxes = store.get(true.image_id).boxes
        assert [label.phrase for label in true.labels] == [label.phrase for label in false.labels]
        truth = torch.tensor([label.box for label in true.labels]).view(-1, 4)
        for before, after in zip(true.labels, false.labels):
            if before.box == after.box: continue # no region shows something else
            box = torch.tensor([after.box])
            assert box_iou(box, boxes).max() > .999 and box_iou(box, truth).max() < .3


def test_made_once_and_from_the_seed(spoiled, small_world, small_regions, small_labels, tmp_path):
    again = spoil_labels(small_labels, small_world/'gold'/'captions.jsonl', small_regions, tmp_path/'again', .3)
    assert read_labels(again) == read_labels(spoiled[.3]) and load_json(again/'manifest.json')['teacher'] == 'gold, 0.3 wrong'
    before = (again/'manifest.json').stat().st_mtime
    assert spoil_labels(small_labels, small_world/'gold'/'captions.jsonl', small_regions, again, .3) == again and (again/'manifest.json').stat().st_mtime == before
    with pytest.raises(ValueError, match='begun with another plan'): spoil_labels(small_labels, small_world/'gold'/'captions.jsonl', small_regions, again, .4)
    with pytest.raises(ValueError, match=r'wrong must be a share in \[0, 1\], got 2'): spoil_labels(small_labels, small_world/'gold'/'captions.jsonl', small_regions, tmp_path/'x', 2)
    other = spoil_labels(small_labels, small_world/'gold'/'captions.jsonl', small_regions, tmp_path/'other', .3, seed=1)
    assert read_labels(other) != read_labels(again)


def test_the_teacher_is_measured_as_its_labels_are(small_world, small_regions, small_labels, tmp_path):
    *_, run = study_runs(STUDIES['teacher'], SCALES['demo'])
    measure_teacher(small_labels, small_world/'gold'/'captions.jsonl', small_regions, tmp_path)
    found = measure_labels(read_labels(small_labels), Store(small_regions), read_gold(small_world/'gold'/'captions.jsonl'))
    assert load_json(tmp_path/'result.json') == dict(wrong=1 - found['precision'], precision=found['precision'], recall=found['recall']) and run.function() is measure_teacher
    run.check()
    assert not any(study_runs(STUDIES[name], SCALES['demo']) for name in STUDIES if name not in ('teacher', 'worth', 'steps', 'part'))


def test_the_teacher_stands_where_it_was_measured():
    study = STUDIES['teacher']
    on_axis = {'0': .03, '0.25': .26, '0.5': .5, '0.75': .74, '1': .95, 'the teacher': .53}
    for ax in study_figure(study, made(study), on_axis).axes:
        assert [label.get_text().replace('\n', ' ') for label in ax.get_xticklabels()] == ['no pseudo labels', '0', '0.25', '0.5', '0.75', '1'] and max(ax.get_xticks()) == 1.2
        assert [text.xy[0] for text in ax.texts] == [.53] and list(ax.get_lines()[-1].get_xdata()) == [.03, .26, .5, .74, .95]


def test_studies_share_runs_with_the_tables():
    tables = [run for name in ('I', 'II', 'III') for run in table_runs(TABLES[name], SCALES['laptop']).values()]
    for study in STUDIES.values():
        assert isinstance(study, Study) and set(study.beside) | set(study.base) | set(study.base.values()) <= set(study.rows)
        wanted = table_runs(study_table(study), SCALES['laptop'], beside=study_runs(study, SCALES['laptop']))
        in_order([*wanted.values(), *tables]) # a run that both have is the same one
        assert {'vilbert-ours-0.125-0', 'vlbert-ours-0.125-0'} & set(in_order(wanted.values()))
        assert all(row.fraction == base.fraction for row, base in study_bases(study).items()) # what is compared had the same captions


def test_labels_are_made_from_what_they_say():
    plan = in_order(table_runs(study_table(STUDIES['teacher']), SCALES['laptop']).values())
    assert [need.name for need in plan['labels-wrong-0.5'].needs] == ['labels', 'regions'] and plan['labels-wrong-0.5'].options['wrong'] == .5
    assert plan['labels-wrong-0.5'] in plan['vilbert-ours-0.125-labels-wrong-0.5-2'].needs
    plan = in_order(table_runs(study_table(STUDIES['phrases']), SCALES['laptop']).values())
    assert plan['labels-paper'].options['extractor'] == 'paper' and {'labels', 'labels-paper'} <= set(plan)


@pytest.mark.parametrize(('name', 'backbone'), [('weight', 'vilbert'), ('part', 'vlbert')])
def test_weights_and_parts_are_compared_at_one_rate(name, backbone):
    plan = in_order(table_runs(study_table(STUDIES[name]), SCALES['laptop']).values())
    assert {run.options['learning_rate'] for run in plan.values() if run.kind == f'pretrain {backbone}'} == {SCALES['laptop'].rates[f'{backbone} ours']}


def test_each_part_of_vlbert_is_added_alone():
    plan = in_order(table_runs(study_table(STUDIES['part']), SCALES['laptop']).values())
    added = {run.name: (run.options['spe'], run.options['grounding'], run.options.get('grounding_weight')) for run in plan.values() if run.kind == 'pretrain vlbert' and run.options['seed'] == 0}
    assert list(added.values()) == [
        (False, False, None), (True, False, None), (False, True, None), (True, True, None), (True, True, 5), ('after', False, None), ('after', True, None)]


def test_longer_trainings_differ_in_their_length_alone():
    plan = in_order(table_runs(study_table(STUDIES['steps']), SCALES['laptop']).values())
    for arm in ('spe', 'token', 'ours'):
        once, twice, more = (plan[f'vilbert-{arm}-0.125{times}-0'] for times in ('', '-times-2', '-times-4'))
        assert [run.options['steps'] for run in (once, twice, more)] == [1800, 3600, 7200] == [run.work for run in (once, twice, more)]
        assert {name for name in once.options if once.options[name] != more.options[name]} == {'steps', 'out'} and once.options.keys() == more.options.keys()
    for run in plan.values(): run.check()
    row = STUDIES['steps'].rows['ours 2']
    real = pretrain_run(row, 0, replace(SCALES['real'], world=None))
    real.check()
    assert real.options['epochs'] == 2*PRESETS['paper'].epochs and real.work == 2*row.fraction and 'steps' not in real.options


def test_how_losses_fell_is_kept_in_means(tmp_path):
    (tmp_path/'log.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in [*(dict(step=step, seconds=1., parts=dict(word=float(step), alignment=.5, grounding=1.)) for step in range(10, 260, 10)), dict(step=250, seconds=1., evaluation={})]))
    for run in (runs := [run for run in study_runs(STUDIES['steps'], SCALES['laptop']) if run.name.startswith('curve-')]):
        run.check()
        assert run.function() is measure_curve and run.needs[0].name in run.options['run']
        measure_curve(tmp_path, tmp_path/'runs'/run.name)
    found = read_measured('curve', STUDIES['steps'], tmp_path, SCALES['laptop'])
    assert len(runs) == 27 and all(each == dict(word=[[100, 55.], [200, 155.], [300, 230.]], alignment=[[100, .5], [200, .5], [300, .5]], grounding=[[100, 1.], [200, 1.], [300, 1.]]) for some in found.values() for each in some)
    first, *others = steps_figure(made(STUDIES['steps']), found, 1800).axes
    assert len(first.get_lines()) == 3*3 + 1 and [ax.get_title() for ax in others] == list(SHOWN.values())
    for ax in others: assert [label.get_text() for label in ax.get_xticklabels()] == ['1,800', '3,600', '7,200'] and len(ax.get_lines()) == 3


def test_what_a_model_knows_is_asked_about_captions_it_has_not_seen(small_world, small_regions, small_labels, tmp_path):
    held_out = held_out_captions(small_world)
    assert len(held_out) == 16 and not {each.image_id for each in held_out} & {item.image_id for item in read_captions(small_world/'captions.tsv')}
    found = {}
    for level, steps in (('none', 5), ('token', 5), ('phrase', 5), ('phrase', 150)):
        folder, out = tmp_path/f'{level}-{steps}', tmp_path/'out'
        pretrain(small_regions, small_labels, folder, replace(PRESETS['mini'], grounding=level, steps=steps, batch_size=8, regions=8), progress='none')
        measure_knowledge(folder, small_world, small_regions, out)
        found[level, steps] = load_json(out/'result.json')
        data = CaptionData(Store(small_regions), held_out, load_tokenizer(), words=PRESETS['mini'].words, regions=8, level='token' if level == 'token' else 'phrase')
        assert found[level, steps] == measure_model(build_model(folder), data)
    assert list(found['none', 5]) == ['alignment'] and set(found['phrase', 5]) == {'alignment', 'pairs', 'phrases'}
    assert found['phrase', 150]['pairs'] > found['phrase', 5]['pairs']
    with pytest.raises(FileNotFoundError, match='not the folder of a pre-training'): measure_knowledge(tmp_path/'nothing', small_world, small_regions, tmp_path/'out')


def test_each_trained_model_is_asked_once():
    for name in ('teacher', 'steps'):
        asked = {run.name: run for run in study_runs(STUDIES[name], SCALES['laptop']) if run.name.startswith('knows-')}
        assert len(asked) == 3*len(STUDIES[name].rows)
        for run in asked.values():
            run.check()
            assert run.options['run'] == run.needs[0].options['out'] and run.name == f'knows-{run.needs[0].name}' and run.speed == dict(device='cpu')
    assert not [run for run in study_runs(STUDIES['steps'], SCALES['real']) if run.name.startswith('knows-')] # nobody knows the truth there
    with pytest.raises(ValueError, match='world.val must be 2 or more, got 1'): study_runs(STUDIES['teacher'], replace(SCALES['laptop'], world=SCALES['laptop'].world | dict(val=1)))


def made(study): return [Cell(row, name, column.fraction, {seed: .3 + .02*place + .01*seed for seed in range(3)}) for place, row in enumerate(study.rows.values()) for column in MEASURED for name in TASKS[column.task]]


@pytest.mark.parametrize('name', [name for name in STUDIES if name not in ('worth', 'steps')])
def test_a_study_is_drawn_with_each_of_its_values(name):
    study = STUDIES[name]
    figure = study_figure(study, made(study))
    assert [ax.get_title() for ax in figure.axes] == list(SHOWN.values()) and figure._suptitle.get_text() == study.title
    for ax in figure.axes: assert [label.get_text().replace('\n', ' ') for label in ax.get_xticklabels()] == list(study.rows) and ax.get_xlabel() == study.axis


def test_worth_is_drawn_against_captions():
    figure = worth_figure(made(STUDIES['worth']), 32_000)
    for ax in figure.axes: assert [label.get_text() for label in ax.get_xticklabels()] == ['2,000', '4,000', '8,000', '16,000', '32,000'] and len(ax.get_lines()) == 2
