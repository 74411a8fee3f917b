"The checks behind the exercises of lesson 07, logs."
import math
from statistics import fmean, median, pstdev, stdev

import torch
from checking import assert_check

from vlground.checks_training import check_find_spikes, check_mean_and_spread, check_time_left


def time_left(lines, steps):
    done, spent = lines[-1]['step'] - lines[0]['step'], lines[-1]['seconds'] - lines[0]['seconds']
    return spent*(steps - lines[-1]['step'])/done if done else math.inf


def test_check_time_left():
    def last_two(lines, steps): return time_left(lines[-2:], steps)
    assert_check(check_time_left, time_left, [
        (lambda lines, steps: lines[-1]['seconds'], 'multiply'),
        (lambda lines, steps: lines[-1]['seconds']/lines[-1]['step']*(steps - lines[-1]['step']), 'differences'),
        (lambda lines, steps: (lines[-1]['seconds'] - lines[0]['seconds'])/(lines[-1]['step'] - 10)*(steps - lines[-1]['step']), 'begins at step 100'),
        (last_two, 'not the last two'),
        (lambda lines, steps: time_left([line for i, line in enumerate(lines) if not i or line['step'] > lines[i - 1]['step']], steps), 'evaluation'),
        (lambda lines, steps: max(1., time_left(lines, steps)), 'done'),
        (lambda lines, steps: 0. if len(lines) < 2 else time_left(lines, steps), 'infinity'),
        (lambda lines, steps: (lines[-1]['seconds'] - lines[0]['seconds'])/(lines[-1]['step'] - lines[0]['step'])*(steps - lines[-1]['step']), 'raised ZeroDivisionError'),
    ])


def mean_and_spread(runs, part, spread=stdev, common=True):
    curves = [{line['step']: line['parts'][part] for line in lines if 'parts' in line} for lines in runs]
    steps = set(curves[0]).intersection(*curves[1:]) if common else set().union(*curves)
    return [(step, fmean(values), spread(values) if len(values) > 1 else 0.) for step in sorted(steps) for values in [[curve[step] for curve in curves if step in curve]]]


def by_place(runs, part):
    curves = [[(line['step'], line['parts'][part]) for line in lines if 'parts' in line] for lines in runs]
    return [(points[0][0], fmean(value for _, value in points), stdev(value for _, value in points)) for points in zip(*curves)]


def test_check_mean_and_spread():
    assert_check(check_mean_and_spread, mean_and_spread, [
        (lambda runs, part: mean_and_spread(runs, part, pstdev), 'n - 1'),
        (lambda runs, part: [(step, middle, 1.) for step, middle, _ in mean_and_spread(runs, part)], 'agree'),
        (lambda runs, part: mean_and_spread(runs[:2], part), 'Three runs'),
        (lambda runs, part: mean_and_spread(runs, 'loss'), 'written into the code'),
        (lambda runs, part: [mean_and_spread([[line] for line in lines], part)[0] for lines in zip(*runs)], 'no loss parts'),
        (lambda runs, part: mean_and_spread(runs, part, common=False), 'shorter'),
        (by_place, 'by their place'),
        (lambda runs, part: sorted(mean_and_spread(runs, part), key=lambda entry: str(entry[0])), 'rising order'),
    ])


def find_spikes(values, window, factor, middle=median, first=0, itself=0):
    return [i for i in range(window - first, len(values)) if values[i] > factor*middle(values[max(0, i - window):i + itself])]


def test_check_find_spikes():
    assert_check(check_find_spikes, find_spikes, [
        (lambda values, window, factor: [values[i] for i in find_spikes(values, window, factor)], 'not its value'),
        (lambda values, window, factor: find_spikes(values, window, factor) or [0], 'Nothing happens'),
        (lambda values, window, factor: find_spikes(values, window, factor, first=window - 1), 'too little before'),
        (lambda values, window, factor: [i for i in find_spikes(values, window, factor) if i > window or window == 3], 'right after the first `window`'),
        (lambda values, window, factor: [i for i in range(window, len(values)) if values[i] > factor*median(values)], 'whole run'),
        (lambda values, window, factor: find_spikes(values, window, factor, itself=1), 'The value itself'),
        (lambda values, window, factor: find_spikes(values, window, factor, fmean), 'pulls a mean up'),
        (lambda values, window, factor: [i for i in range(window, len(values)) if values[i] > factor*median(values[:i])], 'forgotten'),
        (lambda values, window, factor: [i for i in range(window, len(values)) if values[i] >= factor*median(values[i - window:i])], 'strictly'),
        (lambda values, window, factor: find_spikes(values, window, factor, lambda before: float(torch.tensor(before).median())), 'torch.median'),
    ])


def test_check_find_spikes_takes_a_tensor():
    assert check_find_spikes(lambda values, window, factor: torch.tensor(find_spikes(values, window, factor), dtype=torch.int64))
