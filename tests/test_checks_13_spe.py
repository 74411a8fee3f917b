"The checks behind the exercises of lesson 13."
import math

import torch
from checking import assert_check

from vlground import checks_backbones as checks


def wave_at(position, wave, waves, temperature, turn=2*math.pi):
    angle = turn*position/temperature**(wave/waves)
    return math.sin(angle), math.cos(angle)


def test_check_wave_at():
    assert_check(checks.check_wave_at, wave_at, [
        (lambda *arguments: wave_at(*arguments)[::-1], 'sine come first'),
        (lambda *arguments: wave_at(*arguments, turn=math.pi), '90 degrees'),
        (lambda *arguments: wave_at(*arguments, turn=360), '90 degrees'),
        (lambda position, wave, waves, temperature: wave_at(position, -wave, waves, temperature), 'do not multiply'),
        (lambda position, wave, waves, temperature: wave_at(position, 2*wave, waves, temperature), 'DETR'),
        (lambda position, wave, waves, temperature: wave_at(position, wave, 2, temperature), 'the exponent is wave / waves'),
        (lambda position, wave, waves, temperature: wave_at(position, wave, waves, 16), 'temperature'),
        (lambda position, wave, waves, temperature: wave_at(position, min(wave, 64), waves, temperature), 'slow'),
        (lambda position, wave, waves, temperature: wave_at(position % 1, wave, waves, temperature), 'right edge'),
        (lambda *arguments: wave_at(*arguments)[:1], 'first'),
    ])


def likeness(dy, dx, width, temperature, scale=1., last=0, sides=(0, 1)):
    waves = width//4
    shifts = [(dy, dx)[side] for side in sides]
    return sum(math.cos(2*math.pi*d/temperature**(j/(waves - last or 1))) for d in shifts for j in range(waves))*scale/waves/len(shifts)


def test_check_likeness_of_shift():
    assert_check(checks.check_likeness_of_shift, likeness, [
        (lambda dy, dx, width, temperature: likeness(dy, dx, width, temperature)*width/2, 'not the sum'),
        (lambda dy, dx, width, temperature: likeness(dy, dx, width, temperature)/2, 'not the sum'),
        (lambda *arguments: likeness(*arguments, sides=[1]), 'together 0'),
        (lambda dy, dx, width, temperature: (1 + likeness(dx, dx, width, temperature))/2, 'as much'),
        (lambda dy, dx, width, temperature: (1 + likeness(dy + dx, dy + dx, width, temperature))/2, 'not added'),
        (lambda *arguments: likeness(*arguments, last=1), 'N = width / 4'),
        (lambda dy, dx, width, temperature: likeness(max(dy, 0), max(dx, 0), width, temperature), 'left'),
        (lambda dy, dx, width, temperature: likeness(dy, dx, width, 16), 'temperature'),
        (lambda dy, dx, width, temperature: likeness(dy, dx, min(width, 64), temperature), 'ViLBERT'),
    ])


def centre_of(codes, temperature, wave=-1, last=1):
    waves = codes.shape[1]//4
    pairs = codes.reshape(len(codes), 2, waves, 2)[:, :, wave]
    exponent = (waves - last)/waves if wave else 0
    return (torch.atan2(pairs[..., 0], pairs[..., 1])*temperature**exponent/(2*math.pi)).flip(1)


def crossed(codes, temperature):
    waves = codes.shape[1]//4
    pairs = codes.reshape(len(codes), 2, waves, 2)[:, :, -1]
    return (torch.atan2(pairs[..., 1], pairs[..., 0])*temperature**((waves - 1)/waves)/(2*math.pi)).flip(1)


def by_sine(codes, temperature):
    waves = codes.shape[1]//4
    return (codes.reshape(len(codes), 2, waves, 2)[:, :, -1, 0].asin()*temperature**((waves - 1)/waves)/(2*math.pi)).flip(1)


def test_check_centre_of():
    assert_check(checks.check_centre_of, centre_of, [
        (lambda codes, temperature: centre_of(codes, temperature)[0], 'row for each code'),
        (crossed, 'sine first'),
        (by_sine, 'the sine alone'),
        (lambda codes, temperature: centre_of(codes, temperature)*2*math.pi, '2 pi'),
        (lambda codes, temperature: centre_of(codes, temperature).flip(1), 'exchanged'),
        (lambda codes, temperature: centre_of(codes, temperature, wave=0), 'ambiguous'),
        (lambda codes, temperature: centre_of(codes, temperature, wave=0) % 1, 'ambiguous'),
        (lambda codes, temperature: centre_of(codes, temperature, last=0), '2 pi'),
        (lambda codes, temperature: centre_of(codes, temperature, last=codes.shape[1]/8), 'four waves'),
        (lambda codes, temperature: centre_of(codes, 16.), 'temperature'),
        (lambda codes, temperature: centre_of(codes[:1], temperature).expand(len(codes), 2), 'ambiguous'),
    ])
