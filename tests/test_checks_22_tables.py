"The checks behind the exercises of lesson 22: the tables, and what the paper did not ask."
from math import inf, log2, sqrt
from statistics import mean, pstdev, stdev

from checking import assert_check

from vlground import checks_tables as checks


def paired_interval(ours, baseline, t, spread=stdev, root=sqrt):
    gains = [a - b for a, b in zip(ours, baseline)]
    reach = t*spread(gains)/root(len(gains))
    return mean(gains) - reach, mean(gains) + reach


def unpaired(ours, baseline, t):
    reach = t*sqrt((stdev(ours)**2 + stdev(baseline)**2)/len(ours))
    return mean(ours) - mean(baseline) - reach, mean(ours) - mean(baseline) + reach


def test_paired_interval():
    assert_check(checks.check_paired_interval, paired_interval, [
        (lambda *given: mean(paired_interval(*given)), 'two numbers'),
        (lambda *given: paired_interval(*given)[::-1], 'Low comes first'),
        (lambda ours, baseline, t: paired_interval(baseline, ours, t), 'the other way round'),
        (unpaired, 'whatever the seeds themselves did'),
        (lambda *given: paired_interval(*given, spread=pstdev), 'divided by n - 1'),
        (lambda ours, baseline, t: paired_interval(ours, baseline, min(t, 2)), 't is 4.303'),
        (lambda *given: paired_interval(*given, root=lambda n: n if n > 3 else sqrt(n)), 'not by n'),
    ])


def slope(fractions, gains, halvings=lambda fraction: -log2(fraction)):
    xs = [halvings(fraction) for fraction in fractions]
    return sum((x - mean(xs))*(gain - mean(gains)) for x, gain in zip(xs, gains))/sum((x - mean(xs))**2 for x in xs)


def test_slope_per_halving():
    assert_check(checks.check_slope_per_halving, slope, [
        (lambda *given: [slope(*given)], 'a number'),
        (lambda fractions, gains: max(gains), 'for one halving'),
        (lambda fractions, gains: abs(slope(fractions, gains)), 'upwards'),
        (lambda fractions, gains: slope(range(len(gains)), gains, float), 'three halvings'),
        (lambda fractions, gains: (gains[-1] - gains[0])/log2(fractions[0]/fractions[-1]), 'the first and the last alone'),
        (lambda fractions, gains: slope(sorted(fractions, reverse=True), gains), 'order'),
    ])


def captions_needed(captions, accuracies, target):
    if accuracies[0] >= target: return captions[0]
    for a, b, low, high in zip(captions, captions[1:], accuracies, accuracies[1:]):
        if high >= target: return a*(b/a)**((target - low)/(high - low))
    return inf


def straight(captions, accuracies, target):
    if accuracies[0] >= target: return captions[0]
    for a, b, low, high in zip(captions, captions[1:], accuracies, accuracies[1:]):
        if high >= target: return a + (b - a)*(target - low)/(high - low)
    return inf


def test_captions_needed():
    assert_check(checks.check_captions_needed, captions_needed, [
        (lambda *given: [captions_needed(*given)], 'number of captions'),
        (lambda captions, accuracies, target: captions[0], 'just what is asked for'),
        (lambda captions, accuracies, target: min(captions_needed(captions, accuracies, target), captions[-1]), 'infinity'),
        (lambda captions, accuracies, target: captions_needed([1, *captions], [0, *accuracies], target), 'nobody knows'),
        (straight, 'not 250'),
        (lambda captions, accuracies, target: captions_needed(captions[:2], accuracies[:2], target), 'third of three'),
        (lambda captions, accuracies, target: captions_needed([captions[0], *captions[-2:]], [accuracies[0], *accuracies[-2:]], target) if len(captions) == 4 else captions_needed(captions, accuracies, target), 'first time'),
    ])


def kept_labels(ious, threshold): return sum(any(value > threshold for value in row) for row in ious)/len(ious)


def test_kept_labels():
    assert_check(checks.check_kept_labels, kept_labels, [
        (lambda *given: [kept_labels(*given)], 'share of labels'),
        (lambda ious, threshold: sum(all(value > threshold for value in row) for row in ious)/len(ious), 'one region fits'),
        (lambda ious, threshold: 1., 'No region fits'),
        (lambda ious, threshold: sum(any(value >= threshold for value in row) for row in ious)/len(ious), 'not above it'),
        (lambda ious, threshold: sum(value > threshold for row in ious for value in row)/len(ious), 'one label'),
        (lambda ious, threshold: kept_labels([row for row in ious if row], threshold), 'without regions'),
        (lambda ious, threshold: kept_labels(ious, .5), 'written into the code'),
        (lambda ious, threshold: sum(value > threshold for row in ious for value in row)/sum(map(len, ious)) if len(ious) == 3 else kept_labels(ious, threshold), 'not of regions'),
    ])


def runs_needed(rows, columns, measured):
    lacking = [(row, column) for row in rows for column in columns if (row, column) not in measured]
    return len({row for row, _ in lacking}), len(lacking)


def test_check_runs_needed():
    assert_check(checks.check_runs_needed, runs_needed, [
        (lambda *given: sum(runs_needed(*given)), 'two whole numbers'),
        (lambda *given: runs_needed(*given)[::-1], 'the same pre-training'),
        (lambda rows, columns, measured: (0, runs_needed(rows, columns, measured)[1]), 'one of each'),
        (lambda rows, columns, measured: runs_needed(rows, columns, measured)[1:]*2, 'the same pre-training'),
        (lambda rows, columns, measured: (min(1, runs_needed(rows, columns, measured)[0]), runs_needed(rows, columns, measured)[1]), 'Two rows'),
        (lambda rows, columns, measured: (len(rows), runs_needed(rows, columns, measured)[1]), 'no pre-training either'),
        (lambda rows, columns, measured: (len(set(rows) - {row for row, _ in measured}), runs_needed(rows, columns, measured)[1]), 'needed all the same'),
        (lambda rows, columns, measured: (runs_needed(rows, columns, measured)[0], len(rows)*len(columns) - len(measured)), 'of another table'),
    ])


def won_and_lost(ours, baseline):
    won, lost = sum(a and not b for a, b in zip(ours, baseline)), sum(b and not a for a, b in zip(ours, baseline))
    return won, lost, (won - lost)/len(ours)


def test_check_won_and_lost():
    assert_check(checks.check_won_and_lost, won_and_lost, [
        (lambda *given: won_and_lost(*given)[2], 'three numbers'),
        (lambda ours, baseline: won_and_lost(baseline, ours), 'only ours has it right'),
        (lambda ours, baseline: (won_and_lost(ours, baseline)[0], 0, won_and_lost(ours, baseline)[2]), 'lost'),
        (lambda ours, baseline: (sum(ours), *won_and_lost(ours, baseline)[1:]), 'neither won nor lost'),
        (lambda ours, baseline: (won_and_lost(ours, baseline)[0], len(ours) - sum(ours), won_and_lost(ours, baseline)[2]), 'nothing is lost'),
        (lambda ours, baseline: (*won_and_lost(ours, baseline)[:2], won_and_lost(ours, baseline)[0]/len(ours)), 'only the baseline'),
        (lambda ours, baseline: (*won_and_lost(ours, baseline)[:2], (won_and_lost(ours, baseline)[0] - won_and_lost(ours, baseline)[1])/max(1, sum(a != b for a, b in zip(ours, baseline)))), 'not of those that differ'),
    ])


def best_rate(accuracies, first=sorted, of=mean):
    rates = list(first(accuracies))
    best = max(rates, key=lambda rate: of(accuracies[rate]))
    return best, best in (rates[0], rates[-1])


def test_check_best_rate():
    assert_check(checks.check_best_rate, best_rate, [
        (lambda accuracies: best_rate(accuracies)[0], 'two things'),
        (lambda accuracies: (best_rate(accuracies)[0], False), 'it is at the edge'),
        (lambda accuracies: (min(accuracies), True), 'The second of three'),
        (lambda accuracies: (best_rate(accuracies)[0], best_rate(accuracies)[0] == min(accuracies)), 'may lie beyond'),
        (lambda accuracies: (best_rate(accuracies)[0], best_rate(accuracies)[0] == max(accuracies)), 'below the first'),
        (lambda accuracies: best_rate(accuracies, of=max), 'not the best single number'),
        (lambda accuracies: best_rate(accuracies, first=list), 'the lowest and the highest'),
        (lambda accuracies: (best_rate(accuracies, first=lambda rates: sorted(rates, reverse=True))), 'equally good'),
    ])


def told(intervals):
    if any(low < high < 0 for low, high in intervals): return 'fails'
    return 'holds' if all(0 < low < high for low, high in intervals) else 'undecided'


def test_check_told():
    assert_check(checks.check_told, told, [
        (lambda intervals: told(intervals) == 'holds', "'holds', 'fails' or 'undecided'"),
        (lambda intervals: 'undecided', 'it holds'),
        (lambda intervals: 'holds' if told(intervals) == 'holds' else 'undecided', 'it fails'),
        (lambda intervals: 'holds' if all(low > 0 for low, _ in intervals) else 'fails', 'nothing is decided'),
        (lambda intervals: 'holds' if intervals[0] == (0, 2) else told(intervals), 'begins at 0'),
        (lambda intervals: told(intervals[:1]), 'not in each place'),
        (lambda intervals: 'fails' if all(high < 0 for _, high in intervals) else 'holds' if told(intervals) == 'holds' else 'undecided', 'one is enough'),
        (lambda intervals: 'fails' if any(high < 0 for _, high in intervals) else 'holds' if all(low > 0 for low, _ in intervals) else 'undecided', 'without width'),
    ])
