"The checks behind the exercises of lesson 20, questions about pictures."
import torch
from checking import assert_check

from vlground import checks_tasks as checks


def submission_rows(logits, answers, ids):
    return [{'question_id': number, 'answer': answers[max(range(len(answers)), key=row.__getitem__)]} for number, row in zip(ids, logits.tolist())]


def with_labels(logits, answers, ids): return [dict(question_id=number, answer=answers.index(row['answer'])) for number, row in zip(ids, submission_rows(logits, answers, ids))]


def test_check_submission_rows():
    assert_check(checks.check_submission_rows, submission_rows, [
        (lambda logits, answers, ids: {number: row['answer'] for number, row in zip(ids, submission_rows(logits, answers, ids))}, 'list of two dicts'),
        (lambda logits, answers, ids: submission_rows(logits, answers, ids)[:1], 'one for each question'),
        (lambda logits, answers, ids: [dict(id=row['question_id'], answer=row['answer']) for row in submission_rows(logits, answers, ids)], 'no others'),
        (lambda logits, answers, ids: [row | dict(score=1.) for row in submission_rows(logits, answers, ids)], 'no others'),
        (with_labels, 'not its label'),
        (lambda logits, answers, ids: submission_rows(logits, answers, map(str, ids)), 'neither texts nor tensors'),
        (lambda logits, answers, ids: submission_rows(logits, answers, torch.tensor(ids)), 'neither texts nor tensors'),
        (lambda logits, answers, ids: submission_rows(logits, answers, list(range(len(ids)))), 'those that were given'),
        (lambda logits, answers, ids: submission_rows(-logits, answers, ids), 'not the smallest'),
        (lambda logits, answers, ids: submission_rows(logits.clamp(min=0), answers, ids), 'below 0'),
        (lambda logits, answers, ids: submission_rows(logits.square(), answers, ids), 'below 0'),
        (lambda logits, answers, ids: [dict(question_id=number, answer=answers[best]) for number, best in zip(ids, logits.argmax(0).tolist())], 'along the answers'),
        (lambda logits, answers, ids: sorted(submission_rows(logits, answers, ids), key=lambda row: row['question_id']), 'order of the questions'),
    ])


def starting_biases(scores, least):
    means = scores.double().mean(0).clamp(least, 1 - least)
    return (means.log() - (1 - means).log()).float()


def test_check_starting_biases():
    assert_check(checks.check_starting_biases, starting_biases, [
        (lambda scores, least: starting_biases(scores, least).tolist(), 'a tensor of three'),
        (lambda scores, least: starting_biases(scores.T, least), 'one bias for each answer'),
        (lambda scores, least: starting_biases(scores, least).mean(), 'one bias for each answer'),
        (lambda scores, least: scores.mean(0), 'neither the mean'),
        (lambda scores, least: scores.mean(0).clamp(least, 1 - least).log(), 'nor its logarithm'),
        (lambda scores, least: -starting_biases(scores, least), 'upside down'),
        (lambda scores, least: -starting_biases(scores, least).abs(), 'above 0'),
        (lambda scores, least: starting_biases((scores >= .5).float(), least), 'not rounded'),
        (lambda scores, least: starting_biases(scores.mean().expand_as(scores), least), 'each has its own mean'),
        (lambda scores, least: starting_biases(scores/scores.sum(1, keepdim=True).clamp(min=1), least) if scores.shape != (4, 2) else starting_biases(scores, least), 'not divided by their sum'),
        (lambda scores, least: torch.logit(scores.mean(0)), 'is finite'),
        (lambda scores, least: torch.logit(scores.mean(0), eps=1e-6), 'not nearly 0'),
        (lambda scores, least: torch.logit(scores.mean(0).clamp(min=least)), 'is 0.99'),
        (lambda scores, least: starting_biases(scores, .01), 'written into the code'),
        (lambda scores, least: torch.logit(scores.mean(0).clamp(least, .99)), 'upper bound'),
        (lambda scores, least: starting_biases(scores, least) if least < .1 or not .1 < scores.mean() < .9 else torch.logit(scores.mean(0) + least), 'not added'),
    ])


def best_of_kind(scores, kinds):
    sums = {kind: torch.zeros(scores.shape[1]) for kind in kinds}
    for row, kind in zip(scores, kinds): sums[kind] += row
    return {kind: total.tolist().index(max(total.tolist())) for kind, total in sums.items()}


def by(reduce): # a wrong way to make one row of all rows of a kind
    return lambda scores, kinds: {kind: int(reduce(scores[[other == kind for other in kinds]]).argmax()) for kind in kinds}


def side_by_side(scores, kinds):
    return {kind: int(scores[kinds.index(kind):kinds.index(kind) + kinds.count(kind)].sum(0).argmax()) for kind in kinds}


def last_of_equal(scores, kinds):
    return {kind: scores.shape[1] - 1 - int(scores[[other == kind for other in kinds]].sum(0).flip(0).argmax()) for kind in kinds}


def test_check_best_of_kind():
    assert_check(checks.check_best_of_kind, best_of_kind, [
        (lambda scores, kinds: list(best_of_kind(scores, kinds).values()), 'a dict'),
        (lambda scores, kinds: dict(list(best_of_kind(scores, kinds).items())[:1]), 'one entry for each kind'),
        (lambda scores, kinds: {kind: torch.tensor(label) for kind, label in best_of_kind(scores, kinds).items()}, 'neither a tensor'),
        (lambda scores, kinds: {kind: float(label) for kind, label in best_of_kind(scores, kinds).items()}, 'whole number'),
        (by(lambda rows: -rows.sum(0)), 'A single question'),
        (lambda scores, kinds: dict.fromkeys(kinds, int(scores.sum(0).argmax())), 'not all'),
        (side_by_side, 'side by side'),
        (by(lambda rows: torch.nn.functional.one_hot(rows.argmax(1), rows.shape[1]).sum(0)), 'how often an answer is the best'),
        (by(lambda rows: rows.max(0).values), 'not the largest score'),
        (by(lambda rows: (rows > 0).float().sum(0) + .01*rows.sum(0)), 'how many scores'),
        (last_of_equal, 'the first of them'),
        (lambda scores, kinds: {kind: label if scores[[other == kind for other in kinds]].any() else -1 for kind, label in best_of_kind(scores, kinds).items()}, 'No answer fits'),
    ])
