"The paper's tables: plans, numbers, intervals, claims, and one command for each."
import csv
import json
import math
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlground.core import load_json, rng
from vlground.runs import in_order, is_done
from vlground.tables import (ARMS, COLUMNS, PAPER, PARTS, SCALES, SOURCES, TABLES, TASKS, Cell, Claim, Column, Interval, Row, Table, as_csv, as_latex, as_markdown, as_text, beside_runs, changed_scale, claims_of, collect_table,
                             data_runs, differing_items, finetune_run, gain_rows, gains, interval, keep_results, planned_hours, pretrain_run, read_cells, run_table,
                             seconds_by_kind, table_rows, table_runs, take_results, verdict)

numbers = st.floats(-1, 1, allow_nan=False)
TINY = replace(SCALES['demo'], pretraining=dict(vilbert=dict(preset='mini', steps=2, batch_size=8), vlbert=dict(preset='mini-vlbert', steps=2, batch_size=8)), steps=dict(refer=(2, 2, 2), vqa=(2, 2, 2), vcr=(2, 2, 2)),
               world=dict(pairs=24, val=4, refer=20, vqa=8, vcr=20, seed=3))


# numbers

@given(st.lists(numbers, min_size=2, max_size=8))
def test_an_interval_is_that_of_student(values):
    found, t = interval(values), (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365)[len(values) - 2]
    assert found.mean == pytest.approx(statistics.mean(values), abs=1e-9) and found.n == len(values)
    assert found.stderr == pytest.approx(statistics.stdev(values)/math.sqrt(len(values)), abs=1e-9)
    assert found.high - found.mean == pytest.approx(t*found.stderr, abs=1e-9) and found.mean - found.low == pytest.approx(t*found.stderr, abs=1e-9)


def test_an_interval_of_many_is_rather_too_wide():
    found = interval([0., 1.]*10)
    assert isinstance(found, Interval) and 2.093*found.stderr < found.high - found.mean < 2.3*found.stderr
    with pytest.raises(ValueError, match='two seeds at least, got 1'): interval([.3])


def test_gains_are_paired_by_seed():
    assert gains({2: .7, 0: .5, 5: 1.}, {0: .4, 2: .3, 9: 0.}) == pytest.approx({2: .4, 0: .1})


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_verdict_follows_the_intervals(places):
    claim = Claim('', '', {str(i): dict(enumerate(values)) for i, values in enumerate(places)})
    found = [interval(values) for values in places]
    said = verdict(claim)
    whole = interval([statistics.mean(values[seed] for values in places) for seed in range(3)])
    assert (said == 'holds') == all(each.low > 0 for each in found) and (said == 'fails') == (whole.high < 0 and not all(each.low > 0 for each in found))
    assert verdict(Claim('', '', claim.gains | {'lacking': {}})) == 'not measured'


def measured(value, tables=('I', 'II', 'III', 'supplement')): # cells in which every number is value(row, column, part, seed)
    return [Cell(row, name, column.fraction, {seed: value(row, name, column.fraction, seed) for seed in range(3)})
            for table in tables for row in TABLES[table].rows for column in TABLES[table].columns for name in TASKS[column.task]]


def verdicts(value, others=None): return {claim.text: verdict(claim) for claim in claims_of(measured(value), others or {})}


def test_a_world_in_which_the_paper_is_right():
    worth = dict(baseline=0., spe=.02, token=-.01, ours=.05, plain=.03)
    said = verdicts(lambda row, column, part, seed: .5 + worth[row.arm]*(2 - math.log2(row.fraction*part)/8) + seed/1000*(1 + worth[row.arm]), {'grounder': {s: .4 + s/1000 for s in range(3)}, 'grounder as it ships': dict.fromkeys(range(3), .3), 'multi': {s: .45 + s/1000 for s in range(3)}})
    assert set(said.values()) == {'holds'} and len(said) == 14


def test_a_world_in_which_it_is_wrong():
    worth = dict(baseline=0., spe=-.02, token=.05, ours=-.03, plain=-.01)
    said = verdicts(lambda row, column, part, seed: .5 + worth[row.arm]*(2 - math.log2(row.fraction*part)/8) + seed/1000*(1 + worth[row.arm]), {name: {s: .6 + s/1000 for s in range(3)} for name in ('grounder', 'grounder as it ships', 'multi')})
    assert set(said.values()) == {'fails'}


def test_a_world_of_noise_decides_little():
    "Where nothing is to be found a claim fails in one of forty cases, as an interval is above the truth; that all its places hold is rarer."
    counts = Counter()
    for world in range(40):
        said = verdicts(lambda row, column, part, seed: .5 + .01*float(rng('noise', world, row.name(seed), column, str(part)).standard_normal()))
        assert said['It beats the multi-task model, even with an eighth of the captions'] == 'not measured'
        counts.update(said.values())
    measured_claims = sum(counts[kind] for kind in ('holds', 'fails', 'undecided'))
    assert measured_claims == 440 and counts['fails'] < .06*440 and counts['holds'] < .03*440


@pytest.mark.parametrize('row, column, part, value', [
    (('vilbert', 'ours', 1.), 'refer', 1., 72.47), (('vilbert', 'baseline', 1/8), 'vqa', 1/8, 55.67), (('vilbert', 'ours', 1/16), 'rationale', 1/4, 72.36), (('vlbert', 'ours', 1.), 'answer', 1., 72.02),
    (('vilbert', 'token', 1/8), 'refer', 1., 69.02), (('vilbert', 'spe', 1/8), 'rationale', 1., 73.58)])
def test_the_papers_numbers(row, column, part, value): assert PAPER[Row(*row), column, part] == value


def test_the_papers_averages_are_those_that_it_prints():
    "But for one number, which its own difference (+0.84) and this average say should be 68.80."
    printed = {(1., 'baseline'): 70.30, (1., 'ours'): 70.73, (1/8, 'baseline'): 68.24, (1/8, 'ours'): 70.30, (1/16, 'baseline'): 67.26, (1/16, 'ours'): 68.49}
    for (fraction, arm), average in printed.items():
        values = {(column, part): PAPER[Row('vilbert', arm, fraction), column, part] for column in COLUMNS for part in PARTS}
        if (fraction, arm) == (1/16, 'baseline'): values['refer', 1/4] = 69.64 - .84
        assert sum(values.values())/12 == pytest.approx(average, abs=.011)


# plans

def test_every_number_of_a_table_has_its_run():
    for name, table in TABLES.items():
        plan = table_runs(table, SCALES['laptop'], beside=beside_runs(name, SCALES['laptop']))
        assert len(SCALES['laptop'].seeds) >= 3 and len(SCALES['gpu'].seeds) >= 5
        for seed in SCALES['laptop'].seeds:
            for row in table.rows:
                for column in table.columns:
                    run = plan[finetune_run(row, column, seed, SCALES['laptop']).name]
                    assert run.options['seed'] == seed and run.options['fraction'] == column.fraction and run.options['start'] == f'{{out}}/runs/{row.name(seed)}'
                    assert row.name(seed) in run.needs


@pytest.mark.parametrize('name, scale, lacks', [('rates', 'search', {'boxes-vcr', 'regions-vcr'}), ('figure5', 'laptop', set()), ('II', 'demo', set())])
def test_a_plan_makes_only_data_that_its_numbers_need(name, scale, lacks):
    plan, data = table_runs(TABLES[name], SCALES[scale]), {run.name for run in data_runs(SCALES[scale])}
    assert data - set(plan) == lacks
    assert data & set(plan) <= {need for run in plan.values() for need in run.needs}


def test_arms_differ_in_what_they_are_called_for_alone():
    made = {arm: pretrain_run(Row('vilbert', arm, 1/8), 7, SCALES['laptop']).options for arm in ARMS}
    def differing(one, other): return {key for key in {**made[one], **made[other]} if made[one].get(key) != made[other].get(key)}
    assert differing('baseline', 'spe') <= {'spe', 'out', 'learning_rate'} and differing('token', 'ours') <= {'level', 'out', 'learning_rate'} and differing('spe', 'ours') <= {'grounding', 'level', 'learning_rate', 'out'}
    assert differing('plain', 'ours') <= {'spe', 'learning_rate', 'out'} and differing('plain', 'baseline') <= {'grounding', 'level', 'learning_rate', 'out'}
    assert all(made[arm]['spe'] == ('SPE' in says) and made[arm]['grounding'] == ('grounding' in says) and made[arm].get('level', 'none') in says + 'none' for arm, says in ARMS.items())


def test_real_data_need_nothing_to_be_made():
    sources = {name: f'/data/{name}' for name in ('labels', 'regions', 'refer', 'refer_regions', 'vqa', 'vqa_regions', 'vcr', 'vcr_regions')}
    plan = table_runs(TABLES['II'], SCALES['real'], sources)
    assert {run.call for run in plan.values()} == {'vlground.cli:vlground_pretrain', 'vlground.cli:vlground_finetune'}
    run = plan['vilbert-ours-0.125-0-vqa-1']
    assert run.options['data'] == '/data/vqa' and run.options['course'] == 'vilbert' and 'steps' not in run.options
    assert plan['vilbert-ours-0.125-0'].options['preset'] == 'paper' and 'learning_rate' not in plan['vilbert-ours-0.125-0'].options


def test_options_are_known_to_the_commands():
    from inspect import signature

    from vlground import cli, tables, variations
    every = in_order(run for name, table in TABLES.items() for scale in SCALES.values() for run in table_runs(table, scale, beside=beside_runs(name, scale)).values() if scale in (SCALES['laptop'],))
    for scale in SCALES.values(): every |= {f'{id(scale)}{name}': run for name, run in table_runs(TABLES['I'], scale, beside=beside_runs('I', scale)).items()}
    for study in variations.STUDIES.values(): every |= {f'{study.title}{run.name}': run for run in variations.label_runs(study, SCALES['laptop'])}
    modules = {'vlground.cli': cli, 'vlground.tables': tables, 'vlground.variations': variations}
    for run in every.values():
        module, function = run.call.split(':')
        known = signature(getattr(modules[module], function)).parameters
        assert set(run.options) | set(run.speed) <= set(known), f'{run.name}: {set(run.options) - set(known)}'


def test_planned_hours_fall_as_runs_end(tmp_path):
    plan = table_runs(TABLES['II'], SCALES['laptop'])
    whole, alone = planned_hours(tmp_path, plan, 2), planned_hours(tmp_path, plan, 1)
    assert 0 < whole < alone <= 2.1*whole
    (tmp_path/'done').mkdir()
    world = plan['world']
    (tmp_path/'done'/'world.json').write_text(json.dumps(world.described() | dict(seconds=2*world.work, work=world.work, kind='pictures', attempts=1)))
    assert seconds_by_kind(tmp_path, plan.values())['pictures'] == 2 and planned_hours(tmp_path, plan, 2) < whole


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
    assert shown[0].startswith('small: 17 runs, 17 of them to be done; about') and 'not measured' in shown[1] and 'not measured' not in shown[-1]


def test_nothing_is_done_twice(made):
    out, found, _ = made
    before, shown = {file: file.stat().st_mtime for file in out.rglob('*.json')}, []
    again = run_table('small', SMALL, TINY, out, workers=2, show=shown.append)
    assert again['cells'] == found['cells'] and ', 0 of them to be done' in shown[0]
    assert {file: file.stat().st_mtime for file in out.rglob('*.json')} == before


def test_only_a_plan(tmp_path):
    shown = []
    found = run_table('small', SMALL, TINY, tmp_path/'none', show=shown.append, only_plan=True)
    assert not (tmp_path/'none').exists() and '17 runs, 17 of them to be done' in shown[0] and all(not cell['values'] for cell in found['cells'])


def test_results_of_elsewhere_are_not_made_again(made, tmp_path):
    out, found, _ = made
    plan, known, shown = table_runs(SMALL, TINY), tmp_path/'known.json', []
    keep_results(known, out, plan)
    kept = load_json(known)
    assert set(kept) == {finetune_run(row, column, seed, TINY).name for row in SMALL.rows for column in SMALL.columns for seed in TINY.seeds} and 'machine' not in known.read_text()
    lost = kept.pop('vilbert-ours-0.125-1-vcr-1')
    known.write_text(json.dumps(kept))
    first = run_table('small', SMALL, TINY, tmp_path/'there', show=shown.append, known=known, only_plan=True)
    assert '17 runs, 7 of them to be done' in shown[0] and not (tmp_path/'there'/'W').exists() # data (5), a pre-training and the fine-tuning that is lacking
    assert 'vilbert-ours-0.125-1-vcr-1' not in load_json(known) and sum(len(cell['values']) for cell in first['cells']) == sum(len(cell['values']) for cell in found['cells']) - 2
    known.write_text(json.dumps(kept | {lost['options']['out'].split('/')[-1]: lost}))
    assert run_table('small', SMALL, TINY, tmp_path/'there', show=shown.append, known=known)['cells'] == found['cells'] and ', 0 of them to be done' in shown[-2]
    assert load_json(known) == kept | {'vilbert-ours-0.125-1-vcr-1': lost}


@pytest.mark.parametrize('spoil, said', [
    (lambda made: made | dict(call='vlground.cli:vlground_demo'), 'vilbert-ours-0.125-1-vcr-1 was made with other options'),
    (lambda made: made | dict(options=made['options'] | dict(seed=7)), 'vilbert-ours-0.125-1-vcr-1 was made with other options'),
    (lambda made: {key: value for key, value in made.items() if key != 'result'}, 'vilbert-ours-0.125-1-vcr-1: no field result'),
    (lambda made: [made], 'vilbert-ours-0.125-1-vcr-1: expected an object')])
def test_results_that_cannot_be_taken(made, tmp_path, spoil, said):
    known, name = tmp_path/'known.json', 'vilbert-ours-0.125-1-vcr-1'
    keep_results(known, made[0], table_runs(SMALL, TINY))
    known.write_text(json.dumps({name: spoil(load_json(known)[name])}))
    with pytest.raises(ValueError, match=said): take_results(known, tmp_path/'there', table_runs(SMALL, TINY))
    assert not (tmp_path/'there').exists()


def test_other_settings_are_refused(made):
    with pytest.raises(ValueError, match='was made with other options'): run_table('small', SMALL, replace(TINY, steps=dict(TINY.steps, refer=(3, 2, 2))), made[0], workers=2, show=lambda text: None)


def test_tables_as_text(made):
    rows = table_rows(read_cells(made[1]))
    assert rows[0] == ['captions', 'model', 'Visual grounding', 'VCR Q→A', 'VCR QA→R'] and rows[1][:2] == ['1/8', 'ViLBERT as published'] and rows[1][2].endswith('(70.92)')
    lines = list(csv.DictReader(StringIO(as_csv(read_cells(made[1])))))
    assert len(lines) == 12 and float(lines[0]['accuracy']) == read_cells(made[1])[0].values[0] and {line['arm'] for line in lines} == {'baseline', 'ours'}
    gained = gain_rows(read_cells(made[1]))
    assert len(gained) == 2 and gained[1][1] == 'ViLBERT + SPE + grounding (phrase)' and gained[1][2].endswith('(+1.31)') and '[' in gained[1][2]
    assert as_markdown(rows).splitlines()[1] == '| --- | --- | --- | --- | --- |' and len({line.count('&') for line in as_latex(rows).splitlines() if '&' in line}) == 1
    assert all(len(line) <= max(map(len, as_text(rows).splitlines())) for line in as_text(rows).splitlines()) and 'not measured' not in as_text(rows)


def test_items_won_and_lost(tmp_path):
    class Item:
        def __init__(self, name): self.annot_id, self.answer_label = name, 1
    items = [Item(f'val-{i}') for i in range(40)]
    def write(name, rights):
        (tmp_path/name).write_text('\n'.join(json.dumps(dict(annot_id=item.annot_id, answer=[.1, .7, .1, .1] if right else [.7, .1, .1, .1])) for item, right in zip(items, rights)))
        return tmp_path/name
    first, second = write('a', [i % 2 for i in range(40)]), write('b', [i % 3 == 0 for i in range(40)])
    won, lost = differing_items(items, first, second)
    assert {item.annot_id for item in won} == {f'val-{i}' for i in range(40) if not i % 2 and i % 3 == 0} and {item.annot_id for item in lost} == {f'val-{i}' for i in range(40) if i % 2 and i % 3}
    again, other = differing_items(items, first, second), differing_items(items, first, second, seed=1)
    assert [item.annot_id for item in won] == [item.annot_id for item in again[0]] != [item.annot_id for item in other[0]]
    assert [item.annot_id for item in won] != sorted(item.annot_id for item in won)


@pytest.mark.parametrize('how, said', [
    (dict(scale=SCALES['real']), 'takes your own data: name them in a JSON file'), (dict(scale=SCALES['real'], sources=dict(regions='there')), 'sources: expected a JSON object with labels, regions, .*, got regions'),
    (dict(scale=TINY, sources=SOURCES), 'this scale makes its own world'), (dict(scale=SCALES['real'], sources=['there']), 'expected a JSON object')])
def test_bad_sources(tmp_path, how, said):
    with pytest.raises(ValueError, match=said): run_table('II', TABLES['II'], out=tmp_path, **how)


def test_a_scale_of_ones_own():
    scale = changed_scale(SCALES['gpu'], dict(seeds=[3, 4], device='cpu', pretraining=dict(vilbert=dict(accumulate=4)), rates={'vilbert ours': 3e-4}))
    assert scale.seeds == (3, 4) and scale.device == 'cpu' and scale.pretraining['vilbert'] == SCALES['gpu'].pretraining['vilbert'] | dict(accumulate=4)
    assert scale.pretraining['vlbert'] == SCALES['gpu'].pretraining['vlbert'] and scale.rates['vilbert ours'] == 3e-4 and scale.rates['vilbert spe'] == 1e-4
    assert pretrain_run(TABLES['II'].rows[3], 3, scale).options['accumulate'] == 4
    for each in SCALES.values(): assert changed_scale(each, {}) == each and changed_scale(each, json.loads(json.dumps(asdict(each)))) == each


@pytest.mark.parametrize('changes, said', [
    ([1], r'expected a JSON object with some of seeds, .*, got \[1\]'),
    (dict(seed=1), 'expected a JSON object with some of seeds, .*, got seed'),
    (dict(pretraining=3), 'pretraining was .*, which 3 cannot replace'),
    (dict(pretraining=dict(vilbert='mini')), 'pretraining.vilbert was .*, which "mini" cannot replace'),
    (dict(device=dict(a=1)), 'device was "cpu", which .* cannot replace')])
def test_changes_that_are_none(changes, said):
    with pytest.raises(ValueError, match=said): changed_scale(SCALES['demo'], changes)


def test_options_that_no_command_has_are_told_by_the_plan(tmp_path):
    scale = changed_scale(SCALES['real'], dict(pretraining=dict(vilbert=dict(layers=3))))
    with pytest.raises(ValueError, match='vilbert-baseline-0.125-0: vlground.cli:vlground_pretrain cannot be called with these options .*layers'):
        run_table('II', TABLES['II'], scale, tmp_path, SOURCES, only_plan=True)


def test_a_study_that_needs_the_truth_is_refused_elsewhere(tmp_path):
    from vlground.variations import STUDIES, study_table
    with pytest.raises(ValueError, match='teacher needs the truth about captions'): run_table('teacher', study_table(STUDIES['teacher']), SCALES['real'], tmp_path, SOURCES)


def test_nobody_knows_how_long_it_takes_elsewhere(tmp_path):
    plan = table_runs(TABLES['II'], SCALES['real'])
    assert planned_hours(tmp_path, plan, 1, {}) is None
    shown = []
    run_table('II', TABLES['II'], SCALES['real'], tmp_path, SOURCES, show=shown.append, only_plan=True)
    assert 'nobody knows how long it takes' in shown[0]


def test_the_rates_are_the_best_of_their_search():
    made = load_json(Path(__file__).parent.parent/'results'/'table-rates-search.json') if (Path(__file__).parent.parent/'results'/'table-rates-search.json').is_file() else pytest.skip('the search has not been made yet')
    best = {}
    for cell in read_cells(made):
        name, rate, value = f'{cell.row.backbone} {cell.row.arm}', dict(cell.row.study)['learning_rate'], statistics.mean(cell.values.values())
        if value > best.get(name, (0, 0))[1]: best[name] = rate, value
    assert {name: rate for name, (rate, _) in best.items()} == dict(SCALES['laptop'].rates)


def test_data_runs_are_those_of_the_chain():
    assert [run.name for run in in_order(data_runs(TINY)).values()][0] == 'world' and not is_done(Path('/nowhere'), data_runs(TINY)[0])


@pytest.mark.fault
@pytest.mark.parametrize('workers', [0, 2])
def test_a_table_that_is_stopped_says_so(tmp_path, workers):
    command = [str(Path(sys.executable).with_name('vlground_tables')), 'figure5', '--scale', 'demo', '--out', str(tmp_path/'out'), '--known', str(tmp_path/'known.json'), '--workers', str(workers)]
    with (tmp_path/'said.txt').open('w') as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=tmp_path)
        log = tmp_path/'out'/'runs'/'vilbert-baseline-0.125-1'/'log.jsonl' # of the second seed
        while not (log.exists() and '"step"' in log.read_text()):
            assert process.poll() is None
            time.sleep(.02)
        process.terminate()
        assert process.wait(60) == 130
    last = (tmp_path/'said.txt').read_text().splitlines()[-1]
    assert last == 'vlground_tables: stopped; run again to go on'
    kept = load_json(tmp_path/'known.json') # what was found before
    assert 'vilbert-baseline-0.125-0-vcr-1' in kept and len(kept) < 4 and all(0 <= each['result']['val']['answer'] <= 1 for each in kept.values())
