"What a table says: numbers with their intervals, the paper's beside, and claims with a verdict."
import csv
import math
import statistics
from collections import Counter
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlground.claims import (ARMS, COLUMNS, PAPER, PARTS, TABLES, TASKS, Cell, Claim, Interval, Row, ablation_figure, as_csv, as_latex, as_markdown, as_text, claim_rows, claims_figure, claims_of,
                             efficiency_figure, gain_rows, gains, interval, student_t, table_rows, verdict)
from vlground.core import GREEN, GREY, ORANGE, rng

numbers = st.floats(-1, 1, allow_nan=False)


@pytest.mark.parametrize('n, level, printed', [(2, .95, 12.706), (3, .95, 4.303), (4, .95, 3.182), (6, .95, 2.571), (11, .95, 2.228), (31, .95, 2.042), (3, .9, 2.920), (3, .99, 9.925), (5, .8, 1.533)])
def test_student_as_tables_print_him(n, level, printed): assert student_t(n, level) == pytest.approx(printed, abs=2e-3)


@given(st.lists(numbers, min_size=2, max_size=8))
def test_an_interval_lies_around_the_mean(values):
    found, stderr = interval(values), statistics.stdev(values)/len(values)**.5
    assert found.mean == pytest.approx(statistics.mean(values), abs=1e-9) and found.stderr == pytest.approx(stderr, abs=1e-9) and found.n == len(values)
    assert found.high - found.mean == pytest.approx(found.mean - found.low, abs=1e-9) == pytest.approx(student_t(len(values))*stderr, abs=1e-9)
    assert interval(values, .99).low <= found.low and isinstance(found, Interval)


def test_an_interval_takes_two_seeds():
    with pytest.raises(ValueError, match='two seeds at least, got 1'): interval([.3])


def test_gains_are_paired_by_seed():
    assert gains({2: .7, 0: .5, 5: 1.}, {0: .4, 2: .3, 9: 0.}) == pytest.approx({2: .4, 0: .1})


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_verdict_follows_the_intervals(places):
    claim = Claim('', '', {str(i): dict(enumerate(values)) for i, values in enumerate(places)})
    said, turned = verdict(claim), verdict(Claim('', '', {place: {seed: -value for seed, value in some.items()} for place, some in claim.gains.items()}))
    assert said in ('holds', 'fails', 'undecided') and not said == turned == 'holds'
    if turned == 'holds': assert said == 'fails' # the opposite is seen everywhere
    if said == 'holds': assert all(statistics.mean(values) > 0 for values in places) and verdict(Claim('', '', claim.gains, margin=1.)) == 'holds'
    if said == 'fails': assert any(statistics.mean(values) < 0 for values in places)
    if not all(interval(values).stderr > 1e-9 for values in places): assert said == turned == 'undecided' # no width, no verdict
    elif len(places) == 1: assert said == ('holds' if interval(places[0]).low > 0 else 'fails' if interval(places[0]).high < 0 else 'undecided')
    assert verdict(Claim('', '', claim.gains | {'lacking': {}})) == 'not measured'


def test_what_is_written_with_decimals_has_no_width_either():
    "Differences of accuracies that agree are not equal to the last bit."
    for places in (dict(a={0: .6 - .5, 1: .7 - .6, 2: .8 - .7}), dict(a={0: -.1, 1: -.1, 2: -.1}), dict(a={0: .1, 1: -.3, 2: -.1}, b={0: -.3, 1: .1, 2: -.1})): # the last: in the mean of both
        assert verdict(Claim('', '', places)) == 'undecided'


def test_one_place_is_enough_to_fail_if_it_is_sure():
    good, bad, worse = {0: .3, 1: .31, 2: .3}, {0: -.1, 1: -.14, 2: -.2}, {0: -.1, 1: -.1, 2: -.101}
    assert verdict(Claim('', '', dict(a=bad))) == 'fails' and verdict(Claim('', '', dict(a=good, b=bad, c=good, d=good))) == 'undecided' # by 95%, but not by four places of 98.75%
    assert verdict(Claim('', '', dict(a=good, b=worse, c=good, d=good))) == 'fails'


def measured(value, tables=('I', 'II', 'III', 'supplement')): # cells in which every number is value(row, column, part, seed)
    return [Cell(row, name, column.fraction, {seed: value(row, name, column.fraction, seed) for seed in range(3)})
            for table in tables for row in TABLES[table].rows for column in TABLES[table].columns for name in TASKS[column.task]]


def verdicts(value, others=None): return {claim.text: verdict(claim) for claim in claims_of(measured(value), others or {})}


def test_a_world_in_which_the_paper_is_right():
    worth = dict(baseline=0., spe=.02, token=-.01, ours=.05, plain=.03)
    said = verdicts(lambda row, column, part, seed: .5 + worth[row.arm]*(2 - math.log2(row.fraction*part)/8) + seed/1000*(1 + worth[row.arm]*(2 - math.log2(row.fraction*part)/8)), {'grounder': {s: .4 + s/1000 for s in range(3)}, 'grounder as it ships': {s: .3 + s/1000 for s in range(3)}, 'multi': {s: .45 + s/1000 for s in range(3)}})
    assert set(said.values()) == {'holds'} and len(said) == 14


def test_a_world_in_which_it_is_wrong():
    worth = dict(baseline=0., spe=-.02, token=.05, ours=-.03, plain=-.01)
    said = verdicts(lambda row, column, part, seed: .5 + worth[row.arm]*(2 - math.log2(row.fraction*part)/8) + seed/1000*(1 + worth[row.arm]*(2 - math.log2(row.fraction*part)/8)), {name: {s: .6 + s/1000 for s in range(3)} for name in ('grounder', 'grounder as it ships', 'multi')})
    assert set(said.values()) == {'fails'}


def test_a_world_of_noise_decides_little():
    "Where nothing is to be found a claim fails in one of forty cases, as an interval is above the truth; that all its places hold is rarer."
    counts = Counter()
    for world in range(40):
        said = verdicts(lambda row, column, part, seed: .5 + .01*float(rng('noise', world, row.name(seed), column, str(part)).standard_normal()))
        assert said['Ours beats the multi-task model, even with 1/8 of the captions'] == 'not measured'
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


def test_tables_as_text():
    some = [cell._replace(values={0: .5, 1: .52}) for cell in measured(lambda *_: .5, ('II',)) if cell.row.arm in ('baseline', 'ours') and cell.column != 'vqa']
    rows = table_rows(some)
    assert rows[0] == ['captions', 'model', 'Visual grounding', 'VCR Q→A', 'VCR QA→R'] and rows[1][:2] == ['1/8', 'ViLBERT as published'] and rows[1][2].endswith('(70.92)')
    lines = list(csv.DictReader(StringIO(as_csv(some))))
    assert len(lines) == 12 and float(lines[0]['accuracy']) == some[0].values[0] and {line['arm'] for line in lines} == {'baseline', 'ours'}
    gained = gain_rows(some)
    assert len(gained) == 2 and gained[1][1] == 'ViLBERT + SPE + grounding (phrase)' and gained[1][2].endswith('(+1.31)') and '[' in gained[1][2]
    assert as_markdown(rows).splitlines()[1] == '| --- | --- | --- | --- | --- |' and len({line.count('&') for line in as_latex(rows).splitlines() if '&' in line}) == 1
    texts = as_text(rows).splitlines()
    assert len({line.index(row[2]) for line, row in zip(texts, rows)}) == len({line.index(row[4]) for line, row in zip(texts, rows)}) == 1 and 'not measured' not in as_text(rows) # columns are in line


def test_rows_are_compared_with_what_one_says():
    some = measured(lambda row, column, part, seed: .5 + .1*(row.arm == 'ours') + .01*seed, ('II',))
    rows = {cell.row.arm: cell.row for cell in some}
    gained = gain_rows(some, {rows['ours']: rows['spe'], rows['spe']: Row('vlbert', 'spe', 1.)}) # the other is not in the table
    assert gained[0][1] == 'over ViLBERT + SPE' and len(gained) == 2
    assert [row[1] for row in gained[1:]] == [rows['ours'].title()] and gained[1][2].startswith('+10.0 [+10.0, +10.0]')
    assert gain_rows(some, {rows['ours']: rows['spe']})[0][1] == 'over ViLBERT + SPE'


def test_figures_show_what_was_measured():
    some = measured(lambda row, column, part, seed: .5 + seed/100 + .02*list(ARMS).index(row.arm) + .01*row.fraction*part + .1*list(COLUMNS).index(column))
    two, three = ([cell for cell in some if cell.row in TABLES[name].rows and (name == 'III' or cell.part == 1)] for name in ('II', 'III'))
    ax, = ablation_figure(two).axes
    at = {(cell.row.arm, cell.column): cell.values for cell in two}
    heights = [100*interval(list(gains(at[arm, column], at['baseline', column]).values())).mean for arm in ('spe', 'token', 'ours') for column in COLUMNS]
    assert [bar.get_height() for bar in ax.patches] == pytest.approx(heights) and min(map(abs, heights)) > .5
    lines = {(column, part, i): line for (column, part), panel in zip([(column, part) for column in COLUMNS for part in PARTS], efficiency_figure(three).axes) for i, line in enumerate(panel.get_lines())}
    assert len(lines) == 24
    for (column, part, i), line in lines.items():
        means = {cell.row.fraction: 100*statistics.mean(cell.values.values()) for cell in three if (cell.column, cell.part, cell.row.arm) == (column, part, ('baseline', 'ours')[i])}
        assert dict(zip(line.get_xdata(), line.get_ydata())) == pytest.approx(means)
    one = [cell._replace(values={0: .5}) for cell in some if cell.row in TABLES['III'].rows] # as the paper's, measured once
    assert len(efficiency_figure(one).axes) == 12
    claims = claims_of(some)
    shown = [claim for claim in claims if verdict(claim) != 'not measured']
    told = [text.get_text() for text in claims_figure(claims).axes[0].texts]
    def points(some):
        found = interval(list(some.values()))
        return '{:+.1f} [{:+.1f}, {:+.1f}]'.format(*(round(100*each, 1) + 0. for each in found[:1] + found[2:4])).replace('-', '−')
    assert told == [text for claim in shown for text in (claim.text, verdict(claim), *(each for place, some in claim.gains.items() for each in (place, points(some))))]
    with pytest.raises(ValueError, match='no claim has been measured; make a table first'): claims_figure(claims_of([]))


def test_places_are_coloured_by_their_own_intervals():
    places = dict(up={0: .2, 1: .21, 2: .19}, down={0: -.2, 1: -.21, 2: -.19}, both={0: .1, 1: -.1, 2: .02}, flat={0: .1, 1: .1, 2: .1})
    claim = Claim('it gains', 'II', places)
    marks = [line for line in claims_figure([claim]).axes[0].get_lines() if line.get_marker() in ('o', 'X', 's')]
    assert [(mark.get_color(), mark.get_marker()) for mark in marks] == [(GREEN, 'o'), (ORANGE, 'X'), (GREY, 's'), (GREY, 's')]
    assert claim_rows([claim])[1][3] == '1 for it, 1 against, of 4' # one without width says nothing


def test_claims_are_told_with_how_sure_they_are():
    up, down, near = ({0: .02 + at, 1: .021 + at, 2: .019 + at} for at in (0., -.04, -.025))
    places = dict(both=dict(a=up, b=down, c={0: -.1, 1: .1, 2: .05}), margin=dict(a=near, b=up), apart=dict(a={0: .1, 1: .2}, b={2: .1, 3: .2}), none={})
    head, *told = claim_rows([Claim(name, 'II', some, .01*(name == 'margin')) for name, some in places.items()])
    assert len(head) == 5 and [row[:2] for row in told] == [['II', name] for name in places]
    assert [row[2:] for row in told[:2]] == [['+0.6 [−8.1, +9.2]', '1 for it, 1 against, of 3', 'fails'], ['+0.8 [+0.5, +1.0]', '2 for it, 0 against, of 2', 'holds']]
    assert told[2][2] == 'no seed in common' and told[3][2:] == ['–', '–', 'not measured']
