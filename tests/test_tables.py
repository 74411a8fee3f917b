"The paper's tables: plans, runs, and one command for each."
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from filelock import FileLock

from vlground.claims import ARMS, TABLES, Column, Row, Table
from vlground.core import load_json
from vlground.finetuning import PUBLISHED_COURSE, FinetuneConfig
from vlground.pretrain import PRESETS
from vlground.runs import in_order, is_done
from vlground.tables import (RATE_SEARCH, SCALES, SOURCES, beside_runs, best_rates, changed_scale, collect_table, data_runs, fingerprint, finetune_run, grounder_run, keep_known,
                             planned_hours, pretrain_run, read_beside, read_cells, read_known, run_table, seconds_by_kind, table_runs, take_known)

TINY = replace(SCALES['demo'], pretraining=dict(vilbert=dict(preset='mini', steps=2, batch_size=8), vlbert=dict(preset='mini-vlbert', steps=2, batch_size=8)), steps=dict(refer=(2, 2, 2), vqa=(2, 2, 2), vcr=(2, 2, 2)),
               world=dict(pairs=24, val=4, refer=20, vqa=8, vcr=20, seed=3))

SMALLEST = dict(pretraining=TINY.pretraining, steps=TINY.steps, world=TINY.world) # the same as changes of the scale


# plans

def test_every_number_of_a_table_has_its_run():
    for name, table in TABLES.items():
        plan = in_order(table_runs(table, SCALES['laptop'], beside=beside_runs(name, SCALES['laptop'])).values())
        assert len(SCALES['laptop'].seeds) >= 3 and len(SCALES['gpu'].seeds) >= 5
        for seed in SCALES['laptop'].seeds:
            for row in table.rows:
                for column in table.columns:
                    run = plan[finetune_run(row, column, seed, SCALES['laptop']).name]
                    assert run.options['seed'] == seed and run.options['fraction'] == column.fraction and run.options['start'] == f'{{out}}/runs/{row.name(seed)}'
                    assert plan[row.name(seed)] in run.needs


@pytest.mark.parametrize('name, scale', [('rates', 'search'), ('figure5', 'laptop'), ('II', 'demo')])
def test_a_plan_makes_only_data_that_its_numbers_need(name, scale):
    plan, data = in_order(table_runs(RATE_SEARCH if name == 'rates' else TABLES[name], SCALES[scale]).values()), set(data_runs(SCALES[scale]))
    assert data <= {need.name for run in plan.values() for need in run.needs}
    alone = Table(TABLES['II'].rows, (Column('refer', 1.),))
    assert data - set(in_order(table_runs(alone, SCALES[scale]).values())) == {'boxes-vcr', 'regions-vcr'}


def test_arms_differ_in_what_they_are_called_for_alone():
    made = {arm: pretrain_run(Row('vilbert', arm, 1/8), 7, SCALES['laptop']).options for arm in ARMS}
    def differing(one, other): return {key for key in {**made[one], **made[other]} if made[one].get(key) != made[other].get(key)}
    assert differing('baseline', 'spe') <= {'spe', 'out', 'learning_rate'} and differing('token', 'ours') <= {'level', 'out', 'learning_rate'} and differing('spe', 'ours') <= {'grounding', 'level', 'learning_rate', 'out'}
    assert differing('plain', 'ours') <= {'spe', 'learning_rate', 'out'} and differing('plain', 'baseline') <= {'grounding', 'level', 'learning_rate', 'out'}
    assert all(made[arm]['spe'] == ('SPE' in says) and made[arm]['grounding'] == ('grounding' in says) and made[arm].get('level', 'none') in says + 'none' for arm, says in ARMS.items())


@pytest.fixture
def sources(tmp_path): # folders of one's own
    for name in SOURCES:
        for part in ('refcoco+', 'refcoco', 'refcocog') if name == 'refer' else ('',):
            (tmp_path/'data'/name/part).mkdir(parents=True)
            files = ['refs(umd).p' if part == 'refcocog' else 'refs(unc).p', 'instances.json'] if name == 'refer' else ['val.jsonl' if name in ('vqa', 'vcr') else 'manifest.json']
            for file in files: (tmp_path/'data'/name/part/file).write_text(name)
    return {name: str(tmp_path/'data'/name) for name in SOURCES}


def test_real_data_need_nothing_to_be_made(sources):
    plan = in_order(table_runs(TABLES['II'], SCALES['real'], sources).values())
    assert {run.call for run in plan.values()} == {'vlground.cli:vlground_pretrain', 'vlground.cli:vlground_finetune'}
    run = plan['vilbert-ours-0.125-0-vqa-1']
    assert run.options['data'] == sources['vqa'] and run.options['course'] == 'vilbert' and 'steps' not in run.options
    assert plan['vilbert-ours-0.125-0'].options['preset'] == 'paper' and 'learning_rate' not in plan['vilbert-ours-0.125-0'].options


@pytest.mark.parametrize('name', ['regions', 'vqa'])
def test_data_that_change_under_their_name_are_other_data(sources, name):
    before = {each: run.digest for each, run in in_order(table_runs(TABLES['I'], SCALES['real'], sources).values()).items()}
    next(file for file in Path(sources[name]).iterdir()).write_text('another')
    fingerprint.cache_clear()
    after = {each: run.digest for each, run in in_order(table_runs(TABLES['I'], SCALES['real'], sources).values()).items()}
    assert {each for each in before if before[each] != after[each]} == {each for each in before if name == 'regions' or '-vqa-' in each}


def test_settings_behind_a_name_count(monkeypatch):
    wanted = [finetune_run(Row('vilbert', 'ours', 1/8), Column('vqa', 1.), 0, SCALES['laptop'])]
    before = in_order(wanted)
    monkeypatch.setitem(PRESETS, 'mini', replace(PRESETS['mini'], swap=.4))
    again = in_order([finetune_run(Row('vilbert', 'ours', 1/8), Column('vqa', 1.), 0, SCALES['laptop'])])
    assert [name for name in before if before[name].digest != again[name].digest] == ['vilbert-ours-0.125-0', 'vilbert-ours-0.125-0-vqa-1']


def test_a_longer_finetuning_starts_from_the_same_training():
    from vlground.variations import STUDIES, study_table
    by_steps = dict(course='linear')
    scales = [('steps', SCALES['laptop']), ('epochs', SCALES['real']), ('steps', changed_scale(SCALES['real'], dict(finetuning=dict(refer=by_steps, vcr=by_steps)))),
              ('steps', changed_scale(SCALES['laptop'], dict(finetuning=dict(refer=dict(steps=0), vcr=dict(epochs=0.)))))]
    for length, scale in scales:
        for column in study_table(STUDIES['finetuning']).columns:
            for arm in ('baseline', 'ours'):
                short, long = (finetune_run(STUDIES['finetuning'].rows[f'{arm} {times}'], column, 0, scale) for times in (1, 4))
                usual = short.options.get(length) or (PUBLISHED_COURSE['epochs'] if short.options.get('course') == 'vilbert' else FinetuneConfig().steps)
                assert long.options == short.options | {length: 4*usual, 'out': long.options['out']} and type(long.options[length]) is type(usual)
                assert [need.digest for need in long.needs] == [need.digest for need in short.needs] and long.name != short.name
                long.check()
    assert finetune_run(STUDIES['finetuning'].rows['ours 4'], Column('vcr', 1.), 0, SCALES['laptop']).work == 4*SCALES['laptop'].steps['vcr'][0]
    assert STUDIES['finetuning'].rows['ours 4'].title() == STUDIES['finetuning'].rows['ours 1'].title() + ' (fine-tuned 4 times as long)'


def test_options_are_known_to_the_commands():
    from vlground import variations
    every = []
    for name, scale in SCALES.items():
        every += in_order(table_runs(TABLES['I'], scale, beside=beside_runs('I', scale)).values()).values()
        for study in variations.STUDIES.values():
            if not (name == 'real' and any(key == 'labels' for row in study.rows.values() for key, _ in row.study)): # refused there
                every += in_order(table_runs(variations.study_table(study), scale, beside=variations.study_runs(study, scale)).values()).values()
    assert {run.call.split(':')[0] for run in every} == {'vlground.cli', 'vlground.tables', 'vlground.variations'}
    for run in every: run.check()


def test_planned_hours_fall_as_runs_end(tmp_path):
    wanted = table_runs(TABLES['II'], SCALES['laptop']).values()
    plan, whole, alone = in_order(wanted), planned_hours(tmp_path, wanted, 2), planned_hours(tmp_path, wanted, 1)
    assert 0 < whole < alone <= 2.1*whole
    (tmp_path/'done').mkdir()
    world = plan['world']
    (tmp_path/'done'/'world.json').write_text(json.dumps(world.described() | dict(seconds=2*world.work, work=world.work, kind='pictures', attempts=1)))
    assert seconds_by_kind(tmp_path, plan.values())['pictures'] == 2 and planned_hours(tmp_path, wanted, 2) < whole
    assert planned_hours(tmp_path, wanted, 2, done=lambda run: run.name in plan) == 0


# one table, made

SMALL = Table(TABLES['II'].rows[::3], (Column('refer', 1.), Column('vcr', 1.)))


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out, shown = tmp_path_factory.mktemp('table'), []
    return out, run_table('small', SMALL, TINY, out, workers=2, show=shown.append), shown


def test_a_table_from_beginning_to_end(made):
    out, found, shown = made
    cells = read_cells(json.loads(json.dumps(found)))
    assert [(cell.row.arm, cell.column) for cell in cells] == [(arm, column) for arm in ('baseline', 'ours') for column in ('refer', 'answer', 'rationale')]
    assert all(set(cell.values) == {0, 1} and all(0 <= value <= 1 for value in cell.values.values()) for cell in cells)
    for cell in cells: # as the runs themselves say
        if cell.column != 'refer': assert cell.values[1] == load_json(out/'runs'/f'{cell.row.name(1)}-vcr-1'/'result.json')['val'][cell.column]
    assert shown[0].startswith('small: 6 numbers, 17 runs, 17 of them to be done; about') and 'not measured' in shown[1] and 'not measured' not in shown[-1]


def test_nothing_is_done_twice(made):
    out, found, _ = made
    before, shown = {file: file.stat().st_mtime for file in out.rglob('*.json')}, []
    again = run_table('small', SMALL, TINY, out, workers=2, show=shown.append)
    assert again == found and ', 0 of them to be done' in shown[0] # the plan is that of the beginning
    assert found['planned']['runs'] == 17 and found['planned']['hours'] > 0 and len(found['made_by']) == 1
    assert {file: file.stat().st_mtime for file in out.rglob('*.json')} == before


def test_only_a_plan(tmp_path):
    shown = []
    found = run_table('small', SMALL, TINY, tmp_path/'none', show=shown.append, only_plan=True)
    assert not (tmp_path/'none').exists() and '17 runs, 17 of them to be done' in shown[0] and all(not cell['values'] for cell in found['cells'])


def test_what_has_ended_keeps_no_checkpoints(made):
    assert not list((made[0]/'runs').rglob('checkpoints')) and len(list((made[0]/'runs').glob('*/final.safetensors'))) == 4 + 8


def test_a_lean_scale_keeps_no_weights_of_what_was_measured(made, tmp_path):
    shutil.copytree(made[0], tmp_path/'lean')
    run_table('small', SMALL, replace(TINY, lean=True), tmp_path/'lean', show=lambda text: None)
    assert sorted(file.parent.name for file in (tmp_path/'lean'/'runs').glob('*/final.safetensors')) == sorted(row.name(seed) for row in SMALL.rows for seed in TINY.seeds)


def tidy_up(out, gate): # what a command does whenever a run has ended
    gate.wait()
    run_table('small', SMALL, replace(TINY, lean=True), out, show=lambda text: None, workers=0)


@pytest.mark.fault
def test_two_commands_may_tidy_up_at_the_same_time(made, tmp_path):
    shutil.copytree(made[0], tmp_path/'lean')
    for file in (tmp_path/'lean'/'runs').glob('*/final.safetensors'):
        for i in range(300): # so many that both are at it together
            (file.parent/'checkpoints').mkdir(exist_ok=True)
            (file.parent/'checkpoints'/f'{i}.safetensors').touch()
    context = get_context('spawn')
    gate = context.Barrier(2)
    both = [context.Process(target=tidy_up, args=(tmp_path/'lean', gate)) for _ in range(2)]
    for each in both: each.start()
    for each in both: each.join(60)
    assert [each.exitcode for each in both] == [0, 0] and not list((tmp_path/'lean'/'runs').rglob('checkpoints'))


def share(out, known, gate): # one of several commands
    gate.wait()
    run_table('small', SMALL, TINY, out, workers=1, show=lambda text: None, known=known)


@pytest.mark.slow
def test_two_commands_share_a_table_and_what_is_known(made, tmp_path):
    context = get_context('spawn')
    gate, known = context.Barrier(2), tmp_path/'known.json'
    both = [context.Process(target=share, args=(tmp_path/'out', known, gate)) for _ in range(2)]
    for each in both: each.start()
    for each in both: each.join(300)
    runs = table_runs(SMALL, TINY)
    done = {name: load_json(tmp_path/'out'/'done'/f'{name}.json') for name in in_order(runs.values())}
    assert [each.exitcode for each in both] == [0, 0] and len({each['process'] for each in done.values()}) == 2 and all(each['attempts'] == 1 for each in done.values())
    assert collect_table(tmp_path/'out', SMALL, TINY, runs) == read_cells(made[1]) and set(load_json(known)) == set(runs)


def test_results_of_elsewhere_are_not_made_again(made, tmp_path):
    out, found, _ = made
    runs, known, shown = table_runs(SMALL, TINY), tmp_path/'known.json', []
    keep_known(known, out, runs)
    kept = load_json(known)
    assert set(kept) == set(runs) and 'machine' not in known.read_text()
    lost = kept.pop('vilbert-ours-0.125-1-vcr-1')
    known.write_text(json.dumps(kept))
    run_table('small', SMALL, TINY, tmp_path/'there', show=shown.append, known=known, only_plan=True)
    assert '17 runs, 7 of them to be done' in shown[0] and not (tmp_path/'there').exists() # data (5), a pre-training and the fine-tuning that is lacking
    known.write_text(json.dumps(kept | {'vilbert-ours-0.125-1-vcr-1': lost}))
    there = run_table('small', SMALL, TINY, tmp_path/'there', show=shown.append, known=known)
    assert there['cells'] == found['cells'] and ', 0 of them to be done' in shown[1] and not (tmp_path/'there'/'W').exists()
    assert load_json(known) == kept | {'vilbert-ours-0.125-1-vcr-1': lost}
    assert 'refer vilbert' not in seconds_by_kind(tmp_path/'there', runs.values(), {}) # they say nothing of the speed here


def test_what_somebody_is_at_is_not_taken(made, tmp_path):
    runs = table_runs(SMALL, TINY)
    keep_known(tmp_path/'known.json', made[0], runs)
    name, *_ = known = read_known(tmp_path/'known.json', runs)
    (tmp_path/'there'/'done').mkdir(parents=True)
    with FileLock(tmp_path/'there'/'done'/f'{name}.lock'): take_known(tmp_path/'there', known)
    assert not (tmp_path/'there'/'runs'/name).exists() and not is_done(tmp_path/'there', runs[name]) and sum(is_done(tmp_path/'there', run) for run in runs.values()) == len(runs) - 1


def test_questions_may_be_measured_on_minval(tmp_path):
    scale, table = changed_scale(SCALES['laptop'], dict(seeds=[0], finetuning=dict(vqa=dict(minval=3000, answer=None)))), Table(TABLES['II'].rows[:1], (Column('vqa', 1.),))
    (name, run), = table_runs(table, scale).items()
    run.check()
    take_known(tmp_path, {name: run.described() | dict(result=dict(minval=dict(all=dict(accuracy=.5))))})
    assert [cell.values for cell in collect_table(tmp_path, table, scale, {name: run})] == [{0: .5}]


@pytest.mark.parametrize('spoil, said', [
    (lambda made: made | dict(call='vlground.cli:vlground_demo'), 'vilbert-ours-0.125-1-vcr-1 was made with another call; take'),
    (lambda made: made | dict(options=made['options'] | dict(seed=7)), 'vilbert-ours-0.125-1-vcr-1 was made with other options; take'),
    (lambda made: made | dict(needs={'vilbert-ours-0.125-1': '0'*16}), 'vilbert-ours-0.125-1-vcr-1 was made with other runs before it; take'),
    (lambda made: {key: value for key, value in made.items() if key != 'result'}, 'vilbert-ours-0.125-1-vcr-1: no field result'),
    (lambda made: {key: value for key, value in made.items() if key != 'torch'}, 'vilbert-ours-0.125-1-vcr-1: no field torch'),
    (lambda made: [made], 'vilbert-ours-0.125-1-vcr-1: expected an object')])
def test_results_that_cannot_be_taken(made, tmp_path, spoil, said):
    known, name = tmp_path/'known.json', 'vilbert-ours-0.125-1-vcr-1'
    keep_known(known, made[0], table_runs(SMALL, TINY))
    known.write_text(json.dumps({name: spoil(load_json(known)[name])}))
    with pytest.raises(ValueError, match=said): run_table('small', SMALL, TINY, tmp_path/'there', known=known)
    known.write_text('[]')
    with pytest.raises(ValueError, match='known.json: expected an object with names of runs, got list'): read_known(known, table_runs(SMALL, TINY))
    assert not (tmp_path/'there').exists()


def test_numbers_of_another_world_are_refused(made, tmp_path):
    other = replace(TINY, world=TINY.world | dict(seed=4))
    keep_known(tmp_path/'known.json', made[0], table_runs(SMALL, TINY))
    with pytest.raises(ValueError, match='was made with other runs before it'): read_known(tmp_path/'known.json', table_runs(SMALL, other))
    with pytest.raises(ValueError, match=r'world was made with other options \(seed\)'): run_table('small', SMALL, other, made[0], show=lambda text: None)


def test_other_settings_are_refused(made):
    with pytest.raises(ValueError, match='was made with other options'): run_table('small', SMALL, replace(TINY, steps=dict(TINY.steps, refer=(3, 2, 2))), made[0], workers=2, show=lambda text: None)


@pytest.mark.parametrize('how, said', [
    (dict(scale=SCALES['real']), 'takes your own data: name their folders in a JSON file .* with --sources'),
    (dict(scale=SCALES['real'], sources=dict(regions='there')), 'sources: lacking: labels, refer, .*; expected are labels, regions,'), (dict(scale=SCALES['real'], sources=SOURCES | dict(vqq='x')), 'sources: unknown: vqq; expected are'),
    (dict(scale=TINY, sources=SOURCES), 'this scale makes its own world'), (dict(scale=SCALES['real'], sources=['there']), r'expected a JSON object .*, got \["there"\]'), (dict(scale=SCALES['real'], sources=3), 'expected a JSON object .*, got 3')])
def test_bad_sources(tmp_path, how, said):
    with pytest.raises(ValueError, match=said): run_table('II', TABLES['II'], out=tmp_path, **how)


@pytest.mark.parametrize('name, change, said', [
    ('II', dict(vqa='nowhere'), 'sources: vqa: nowhere: there is no such folder, or it holds neither a manifest nor annotations'), ('II', dict(vcr_regions=3), 'sources: vcr_regions must name a folder, got 3'),
    ('I', dict(refer='{vqa}'), r'no refcoco\+/refs\(unc\).p, .*, refcocog/refs\(umd\).p, refcocog/instances.json; the multi-task model'),
    ('III', dict(refer='{vqa}'), r'sources: refer: .*: no refcoco\+/refs\(unc\).p, refcoco\+/instances.json$')])
def test_sources_that_are_not_there(sources, tmp_path, name, change, said):
    change = {key: value.format(**sources) if isinstance(value, str) else value for key, value in change.items()}
    with pytest.raises((ValueError, OSError), match=said): run_table(name, TABLES[name], SCALES['real'], tmp_path/'out', sources | change, only_plan=True)


@pytest.mark.parametrize('change, workers, said', [(dict(seeds=()), 0, r'seeds: expected .* got \[\]'), (dict(seeds=('a',)), 0, 'seeds: expected'), (dict(seeds=(1, 1)), 0, 'different'), (dict(splits=('vall',)), 0, 'splits: expected some of val'),
                                                   ({}, -1, 'workers must be 0 or more'), (dict(finetuning=dict(TINY.finetuning, refer=dict(stpes=3))), 0, 'vilbert-baseline-0.125-0-refer-1: .* cannot be called with these options .*stpes'), (dict(pretraining=dict(vilbert=dict(preset='nope'))), 0, "no preset 'nope'")])
def test_scales_that_cannot_be(tmp_path, change, workers, said):
    with pytest.raises(ValueError, match=said): run_table('II', TABLES['II'], replace(TINY, **change), tmp_path, workers=workers, only_plan=True)


def test_a_scale_of_ones_own():
    scale = changed_scale(SCALES['gpu'], dict(seeds=[3, 4], device='cpu', pretraining=dict(vilbert=dict(accumulate=4)), rates={'vilbert ours': 3e-4}))
    assert scale.seeds == (3, 4) and scale.device == 'cpu' and scale.pretraining['vilbert'] == SCALES['gpu'].pretraining['vilbert'] | dict(accumulate=4)
    assert scale.pretraining['vlbert'] == SCALES['gpu'].pretraining['vlbert'] and scale.rates['vilbert ours'] == 3e-4 and scale.rates['vilbert spe'] == 1e-4
    assert pretrain_run(TABLES['II'].rows[3], 3, scale).options['accumulate'] == 4
    for each in SCALES.values(): assert changed_scale(each, {}) == each and changed_scale(each, json.loads(json.dumps({name: value for name, value in asdict(each).items() if value is not None}))) == each
    assert 'accumulate' not in changed_scale(scale, dict(pretraining=dict(vilbert=dict(accumulate=None)))).pretraining['vilbert']
    epochs = changed_scale(SCALES['laptop'], dict(finetuning=dict(vqa=dict(epochs=3)))) # in place of the scale's steps
    assert 'steps' not in finetune_run(TABLES['II'].rows[0], Column('vqa', 1.), 0, epochs).options
    assert pretrain_run(TABLES['II'].rows[0], 0, changed_scale(SCALES['real'], dict(rates={'vilbert ours': 3e-4})), SOURCES).options.get('learning_rate') is None


@pytest.mark.parametrize('changes, said', [
    ([1], r'expected a JSON object with some of seeds, .*, got \[1\]'),
    (dict(seed=1), 'expected a JSON object with some of seeds, .*, got seed'),
    (dict(pretraining=3), 'pretraining was .*, which 3 cannot replace'),
    (dict(pretraining=dict(vilbert='mini')), 'pretraining.vilbert was .*, which "mini" cannot replace'),
    (dict(device=dict(a=1)), 'device was "cpu", which .* cannot replace'), (dict(seeds=3), r'seeds was \[0, 1\], which 3 cannot replace'),
    (dict(steps=dict(refer=[7])), r'steps.refer must be 3 whole numbers from 1 on, got \[7\]'), (dict(steps=dict(vcr=[1, 0, 2])), 'steps.vcr must be 3 whole'), (dict(steps=dict(vqa=[1, 1.5, 2])), 'steps.vqa must be 3 whole'),
    (dict(pretraining=dict(vilbert=dict(seed=3, spe=True))), 'pretraining.vilbert cannot have seed, spe: rows, columns, seeds and other fields of the scale decide that'), (dict(finetuning=dict(vqa=dict(workers=2))), 'finetuning.vqa cannot have workers'), (dict(steps=dict(refer=None)), r'steps was|steps is needed whole'), (dict(world=dict(pairs='many')), 'world.pairs was 120, which "many" cannot'),
    (dict(world=dict(pears=3)), 'world has no pears; it has pairs'), (dict(rates={'vilbert-ours': 1e-3}), 'rates has no vilbert-ours; it has vilbert baseline'), (dict(finetuning=dict(reffer={})), 'finetuning has no reffer')])
def test_changes_that_are_none(changes, said):
    with pytest.raises(ValueError, match=said): changed_scale(SCALES['demo'], changes)


def test_what_is_changed_is_what_is_done():
    scale = changed_scale(SCALES['laptop'], dict(steps=dict(refer=[70, 60, 40]), pretraining=dict(vilbert=dict(learning_rate=1e-5)), finetuning=dict(vqa=dict(steps=77, most_regions=9, every=5))))
    assert scale.steps == dict(SCALES['laptop'].steps, refer=(70, 60, 40)) # those of the other tasks stay
    row = TABLES['II'].rows[3]
    assert pretrain_run(row, 0, scale).options['learning_rate'] == 1e-5 and pretrain_run(row._replace(backbone='vlbert'), 0, scale).options['learning_rate'] == SCALES['laptop'].rates['vlbert ours']
    run = finetune_run(row, Column('vqa', 1/4), 0, scale)
    assert [run.options[name] for name in ('steps', 'most_regions', 'every')] == [77, 9, 5] and run.work == 77
    with pytest.raises(ValueError, match='world is none where the data are your own'): changed_scale(SCALES['real'], dict(world=dict(pairs=10)))
    with pytest.raises(ValueError, match='rates are searched for in a small world'): run_table('rates', RATE_SEARCH, SCALES['real'], 'nowhere')


def test_hours_are_not_guessed_from_other_settings(tmp_path):
    for vqa in (dict(epochs=3), dict(batch_size=4096)):
        shown = []
        run_table('II', TABLES['II'], changed_scale(SCALES['laptop'], dict(finetuning=dict(vqa=vqa))), tmp_path, show=shown.append, only_plan=True)
        assert 'nobody knows how long' in shown[0]


def test_a_plan_sees_that_data_have_changed(sources, tmp_path):
    plan = [{each: run.digest for each, run in in_order(table_runs(TABLES['II'], SCALES['real'], sources).values()).items()}]
    (Path(sources['labels'])/'manifest.json').write_text('others')
    run_table('II', TABLES['II'], SCALES['real'], tmp_path, sources, show=lambda text: None, only_plan=True) # in the same process, which had read the old ones
    plan.append({each: run.digest for each, run in in_order(table_runs(TABLES['II'], SCALES['real'], sources).values()).items()})
    assert not set(plan[0].values()) & set(plan[1].values())


def test_options_that_no_command_has_are_told_by_the_plan(sources, tmp_path):
    scale = changed_scale(SCALES['real'], dict(pretraining=dict(vilbert=dict(layers=3))))
    with pytest.raises(ValueError, match='vilbert-baseline-0.125-0: vlground.cli:vlground_pretrain cannot be called with these options .*layers'):
        run_table('II', TABLES['II'], scale, tmp_path, sources, only_plan=True)


def test_a_study_that_needs_the_truth_is_refused_elsewhere(tmp_path):
    from vlground.variations import STUDIES, study_table
    with pytest.raises(ValueError, match='teacher compares labels that the plan of a small world makes'): run_table('teacher', study_table(STUDIES['teacher']), SCALES['real'], tmp_path, SOURCES)


def test_nobody_knows_how_long_it_takes_elsewhere(sources, tmp_path):
    assert planned_hours(tmp_path, table_runs(TABLES['II'], SCALES['real']).values(), 1, {}) is None
    shown = []
    run_table('II', TABLES['II'], SCALES['real'], tmp_path, sources, show=shown.append, only_plan=True)
    larger = replace(TINY, pretraining=dict(vilbert=dict(preset='mini', batch_size=640), vlbert=dict(preset='mini-vlbert')))
    run_table('II', TABLES['II'], larger, tmp_path, show=shown.append, only_plan=True)
    assert 'nobody knows how long it takes' in shown[1] and 'nobody knows how long it takes' in shown[0]


def test_the_rates_are_the_best_of_their_search():
    made, averages = load_json(Path(__file__).parent.parent/'results'/'table-rates-search.json'), {}
    for cell in made['cells']:
        (_, rate), = cell['row']['study']
        averages.setdefault(f'{cell["row"]["backbone"]} {cell["row"]["arm"]}', {}).setdefault(rate, []).append(cell['values']['0'])
    assert all(len(numbers) == 3 for rates in averages.values() for numbers in rates.values()) and len(averages) == 7 # expressions, answers, rationales
    best = {name: max(rates, key=lambda rate: sum(rates[rate])) for name, rates in averages.items()}
    assert best == best_rates(read_cells(made)) == dict(SCALES['laptop'].rates)
    grounders = {name: statistics.mean(some.values()) for name, some in read_beside(made).items() if name.startswith('grounder-')}
    assert max(grounders, key=grounders.get) == f'grounder-{grounder_run(SCALES["laptop"], 0).options["learning_rate"]:g}' and len(grounders) == 4


def tables_command(folder, *words):
    command = [str(Path(sys.executable).with_name('vlground_tables')), *words, '--scale', 'demo', '--changes', str(folder/'tiny.json'), '--out', str(folder/'out'), '--results', str(folder/'results')]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope='module')
def commanded(tmp_path_factory): # what the command leaves
    folder = tmp_path_factory.mktemp('commanded')
    (folder/'tiny.json').write_text(json.dumps(SMALLEST))
    told = {name: tables_command(folder, name) for name in ('II', 'figure5', 'claims')}
    assert all(ended.returncode == 0 for ended in told.values()), [ended.stderr for ended in told.values()]
    return folder, told


def test_the_command_leaves_a_table_for_each_use(commanded):
    folder, told = commanded
    found = load_json(folder/'results'/'table-II-demo-tiny.json')
    assert [set(cell.values) for cell in read_cells(found)] == [{0, 1}]*16 and found['scale'] == 'demo-tiny' and found['data'] == {}
    page, latex, lines = ((folder/'out'/f'table-II-demo-tiny.{kind}').read_text() for kind in ('md', 'tex', 'csv'))
    assert page.count('| ViLBERT') == 4 + 3 and latex.count('begin{tabular}') == 2 and len(lines.splitlines()) == 1 + 32 and told['II'].stdout.splitlines()[-1].endswith('table-II-demo-tiny.json')
    assert not re.search(r'(?<!\\)[_%#]|[±→−]', latex) # what LaTeX would trip over


def test_a_study_keeps_what_was_asked_of_its_models(tmp_path):
    from vlground.variations import STUDIES, study_runs, study_table
    scale, study = changed_scale(SCALES['demo'], json.loads(json.dumps(SMALLEST))), STUDIES['steps']
    def result(run):
        if run.name.startswith('knows-'): return dict(alignment=.5, of=run.name)
        if run.name.startswith('curve-'): return dict(word=[], alignment=[], grounding=[], of=run.name)
        return {split: dict(accuracy=.5, answer=.5, rationale=.5, n=8) for split in ('val', 'testA', 'testB')}
    def made(run): return run.described() | dict(kind=run.kind, work=run.work, seconds=1., attempts=1, vlground='', torch='', processor='', result=result(run))
    runs = table_runs(study_table(study), scale, beside=study_runs(study, scale))
    (tmp_path/'known.json').write_text(json.dumps({name: made(run) for name, run in runs.items()}))
    (tmp_path/'tiny.json').write_text(json.dumps(SMALLEST))
    ended = tables_command(tmp_path, 'steps', '--known', str(tmp_path/'known.json'))
    assert ended.returncode == 0 and ', 0 of them to be done' in ended.stdout, ended.stderr
    found = load_json(tmp_path/'results'/'table-steps-demo-tiny.json')
    for key, kind in (('knows', 'knows'), ('curves', 'curve')):
        assert {value: [each['of'] for each in some] for value, some in found[key].items()} == {value: [f'{kind}-{row.name(seed)}' for seed in scale.seeds] for value, row in study.rows.items()}


def test_figure_5_shows_both_ways(commanded):
    folder, told = commanded
    drawn = load_json(folder/'results'/'table-figure5-demo-tiny.json')['drawn']
    assert ', 0 of them to be done' in told['figure5'].stdout and drawn['shown'] <= drawn['won'] <= drawn['of'] and len(drawn['items']) <= drawn['won'] + drawn['lost']
    assert f'the {drawn["lost"]} that only the baseline does' in (folder/'out'/'figure5.html').read_text()


def test_claims_are_told_of_what_was_measured(commanded):
    folder, told = commanded
    asked = {claim['text']: claim for claim in load_json(folder/'results'/'claims-demo-tiny.json')['claims']}
    assert len(asked) == 14 == len(told['claims'].stdout.splitlines()) - 1 and {claim['verdict'] for claim in asked.values() if claim['table'] != 'II'} == {'not measured'}
    assert asked['SPE improves performance']['verdict'] in ('holds', 'fails', 'undecided')


def test_claims_of_tables_that_were_made_differently_are_refused(commanded, tmp_path):
    shutil.copytree(commanded[0], tmp_path/'other')
    found = load_json(tmp_path/'other'/'results'/'table-II-demo-tiny.json')
    for change, said in ((dict(settings=found['settings'] | dict(keep=9)), 'other settings'), (dict(data=dict(vqa='0')), 'other data')):
        (tmp_path/'other'/'results'/'table-III-demo-tiny.json').write_text(json.dumps(found | change))
        ended = tables_command(tmp_path/'other', 'claims')
        assert ended.returncode == 1 and f'table-III-demo-tiny.json was made {"with" if said == "other settings" else "from"} {said} than table-II' in ended.stderr


def test_figure_5_needs_two_seeds_and_predictions(made, tmp_path):
    with pytest.raises(ValueError, match='two seeds at least'): run_table('figure5', TABLES['figure5'], replace(TINY, seeds=(0,)), tmp_path, only_plan=True)
    runs = table_runs(TABLES['figure5'], TINY)
    keep_known(tmp_path/'known.json', made[0], runs)
    take_known(tmp_path/'there', read_known(tmp_path/'known.json', runs))
    with pytest.raises(ValueError, match='(vilbert-(baseline|ours)-0.125-[01]-vcr-1(, | )){4}were found elsewhere, without predictions'): run_table('figure5', TABLES['figure5'], TINY, tmp_path/'there', only_plan=True)


@pytest.mark.fault
@pytest.mark.parametrize('workers', [0, 2])
def test_a_table_that_is_stopped_says_so(tmp_path, workers):
    (tmp_path/'tiny.json').write_text(json.dumps(SMALLEST))
    command = [str(Path(sys.executable).with_name('vlground_tables')), 'II', '--scale', 'demo', '--changes', str(tmp_path/'tiny.json'), '--out', str(tmp_path/'out'),
               '--known', str(tmp_path/'known.json'), '--workers', str(workers)]
    with (tmp_path/'said.txt').open('w') as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=tmp_path)
        while not (tmp_path/'out'/'done'/'vilbert-baseline-0.125-1.json').exists(): # of the second seed
            assert process.poll() is None
            time.sleep(.02)
        process.terminate()
        assert process.wait(60) == 130
    last = (tmp_path/'said.txt').read_text().splitlines()[-1]
    assert last == 'vlground_tables: stopped; run again to go on'
    kept = load_json(tmp_path/'known.json') # what was found before
    assert 'vilbert-baseline-0.125-0-vcr-1' in kept and len(kept) < 24 and all(each['result'] for each in kept.values())
