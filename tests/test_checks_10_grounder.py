"The checks behind the exercises of lesson 10, the grounding model."
import math

import torch
from checking import assert_check

from vlground import checks_labels as checks


def anchor_for(width, height, anchors, measure='iou'):
    shared = [min(width, w)*min(height, h) for w, h in anchors]
    measures = {'iou': [s/(width*height + w*h - s) for s, (w, h) in zip(shared, anchors)], 'shared': shared,
                'area': [-abs(w*h - width*height) for w, h in anchors], 'shape': [-abs(math.log(w/h*height/width)) for w, h in anchors],
                'pixels': [-abs(w - width) - abs(h - height) for w, h in anchors]}[measure]
    return measures.index(max(measures))


def test_check_anchor_for():
    assert_check(checks.check_anchor_for, anchor_for, [
        (lambda *arguments: anchor_for(*arguments, 'shared'), 'largest anchor'),
        (lambda *arguments: anchor_for(*arguments, 'area'), 'area alone'),
        (lambda *arguments: anchor_for(*arguments, 'shape'), 'proportions alone'),
        (lambda *arguments: anchor_for(*arguments, 'pixels'), 'Differences in pixels'),
        (lambda width, height, anchors: anchors[anchor_for(width, height, anchors)], 'index'),
        (lambda width, height, anchors: anchor_for(width, height, anchors[:2]), 'Nine anchors'),
        (lambda width, height, anchors: len(anchors) - 1 - anchor_for(width, height, anchors[::-1]), 'the first of them'),
    ])


def encode_box(box, stride, anchor, point='centre', swap=False, share=True, stretch=math.log, fixed=None, up=False):
    stride = fixed or stride
    x, y = ((box[0] + box[2])/2, (box[1] + box[3])/2) if point == 'centre' else box[:2]
    column, row = (math.ceil(x/stride) - 1, math.ceil(y/stride) - 1) if up else (int(x//stride), int(y//stride))
    shares = (x - column*stride)/(stride if share else 1), (y - row*stride)/(stride if share else 1)
    place = (row, column) if swap else (column, row)
    return *place, *shares, stretch((box[2] - box[0])/anchor[0]), stretch((box[3] - box[1])/anchor[1])


def test_check_encode_box():
    assert_check(checks.check_encode_box, encode_box, [
        (lambda *case: encode_box(*case, point='corner'), 'first cell'),
        (lambda box, stride, anchor: (box[0]//stride, box[1]//stride, *encode_box(box, stride, anchor)[2:]), '*centre*'),
        (lambda *case: encode_box(*case, swap=True), 'along x'),
        (lambda *case: encode_box(*case, share=False), 'first cell'),
        (lambda *case: encode_box(*case, stretch=lambda ratio: ratio - 1), 'logarithm'),
        (lambda *case: encode_box(*case, fixed=32), 'stride is an argument'),
        (lambda *case: encode_box(*case, up=True), 'on the line'),
    ])


def test_check_choice_loss():
    def loss(confidences, right): return torch.nn.functional.cross_entropy(confidences, right)
    def rows(confidences): return torch.arange(len(confidences))
    assert_check(checks.check_choice_loss, loss, [
        (lambda confidences, right: -loss(confidences, right), 'log 2'),
        (lambda confidences, right: loss(-confidences, right), 'nearly 0'),
        (lambda confidences, right: torch.nn.functional.cross_entropy(confidences, right, reduction='sum'), 'mean'),
        (lambda confidences, right: torch.nn.functional.softplus(-confidences[rows(confidences), right]).mean(), 'nearly 0'),
        (lambda confidences, right: (confidences.exp().sum(1)/confidences[rows(confidences), right].exp()).log().mean(), '1,000'),
        (lambda confidences, right: ((confidences - confidences.max()).exp().sum(1).log() - (confidences - confidences.max())[rows(confidences), right]).mean(), 'own largest'),
        (lambda confidences, right: confidences.flatten().logsumexp(0) - confidences[rows(confidences), right].mean(), 'its own softmax'),
    ])


def pick_or_nothing(confidences, nothing, raw=False, column=False, forget=False):
    every = torch.cat([confidences, confidences.new_full((len(confidences), 1), nothing)], 1)
    shares = every.exp()/every.exp().sum(1, keepdim=True) if raw else every.softmax(1)
    score, index = shares.max(1)
    if forget: score = confidences.softmax(1).amax(1)
    return index if column else torch.where(index == confidences.shape[1], -1, index), score


def test_check_pick_or_nothing():
    assert_check(checks.check_pick_or_nothing, pick_or_nothing, [
        (lambda confidences, nothing: (confidences.argmax(1), confidences.softmax(1).amax(1)), '-1'),
        (lambda *case: pick_or_nothing(*case, column=True), '-1'),
        (lambda *case: pick_or_nothing(*case, forget=True), 'takes its share'),
        (lambda *case: pick_or_nothing(*case, raw=True), '1,000'),
        (lambda confidences, nothing: (pick_or_nothing(confidences, nothing)[0], torch.where(confidences.amax(1) > nothing, pick_or_nothing(confidences, nothing)[1], 1.)), 'its own'),
        (lambda confidences, nothing: pick_or_nothing(confidences[:1].expand_as(confidences), nothing), 'Several phrases'),
    ])
