"""Choose the demo's learning rates and steps on the validation split, in a world and with seeds that the demo does not report.

    python tools/tune_demo.py --out DIR    writes results/demo-tuning.json; killed and run again, it goes on

The same search for every arm: learning rates of pre-training (scratch has none), then of fine-tuning, each with so many steps and with twice as
many. What is compared is the validation accuracy, averaged over the demo's fractions of labelled expressions and over seeds.
"""
import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from vlground.core import run_jobs, save_json
from vlground.datasets import read_captions
from vlground.demo import ARMS, FINETUNE, SETTINGS, SIZES, circumstances
from vlground.expressions import read_refer
from vlground.finetuning import open_start
from vlground.pretrain import pretrain
from vlground.scaleout import label_captions
from vlground.refer import finetune_refer
from vlground.store import extract_regions
from vlground.worldfiles import write_world

BEFORE = (5e-4, 1e-3, 2e-3, 4e-3) # learning rates of pre-training, compared with the middle one of fine-tuning
RATES = (2e-3, 4e-3, 8e-3) # of fine-tuning
STEPS = {1.: 350, 1/4: 300, 1/16: 200} # of fine-tuning, by the fraction of the expressions
LENGTHS = (1, 2) # times so many steps


def pretrain_one(out: Path, size: str, arm: str, seed: int, rate: float) -> None:
    "One pre-training."
    config = replace(SETTINGS[arm], steps=SIZES[size].steps, regions=SIZES[size].regions, seed=seed, learning_rate=rate)
    pretrain(out/'regions', out/'labels', out/'runs'/f'{arm}-{seed}-{rate:g}', config, progress='file')


def finetune_one(out: Path, size: str, arm: str, seed: int, before: float, rate: float, length: int, fraction: float) -> tuple:
    "One fine-tuning; what was tried, and its validation accuracy."
    steps, start = length*STEPS[fraction], out/'runs'/f'{"baseline" if arm == "scratch" else arm}-{seed}-{before:g}'
    folder = out/'runs'/f'{arm}-{seed}-{before:g}-refer-{rate:g}-{steps}-{fraction:g}'
    config = replace(FINETUNE, fraction=fraction, steps=steps, seed=seed, learning_rate=rate)
    model = open_start(f'scratch:{start}' if arm == 'scratch' else start, seed)
    found = finetune_refer(read_refer(out/'W'/'refer'), out/'regions', folder, model, config, ('val',), every=0, progress='file')
    return (arm, before, rate, length), fraction, found['val']['accuracy']


def tried(out: Path, size: str, seeds: list[int], trials: list[tuple], workers: int) -> dict[tuple, dict]:
    "The validation accuracies of some trials (arm, learning rate before, learning rate, length)."
    jobs = [(out, size, arm, seed, before, rate, length, fraction) for seed in seeds for arm, before, rate, length in trials for fraction in STEPS]
    found = {}
    for trial, fraction, accuracy in run_jobs(finetune_one, jobs, workers): found.setdefault(trial, {}).setdefault(fraction, []).append(accuracy)
    return found


def row_of(trial: tuple, found: dict[float, list[float]]) -> dict:
    "A trial with its accuracies, for the results file."
    arm, before, rate, length = trial
    spread = {f'{fraction:g}': dict(accuracy=mean(some), sd=stdev(some) if len(some) > 1 else None, n=len(some)) for fraction, some in sorted(found.items(), reverse=True)}
    return dict(arm=arm, pretraining_rate=None if arm == 'scratch' else before, finetuning_rate=rate, length=length,
                mean=mean(mean(some) for some in found.values()), fractions=spread)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, help='folder of the runs')
    parser.add_argument('--size', choices=SIZES, default='full')
    parser.add_argument('--seed', type=int, default=100, help='of the world; the models take seed*1000 and on')
    parser.add_argument('--seeds', type=int, default=1, help='models an arm')
    parser.add_argument('--workers', type=int, default=2, help='processes')
    parser.add_argument('--results', type=Path, default=Path(__file__).resolve().parent.parent/'results'/'demo-tuning.json')
    args = parser.parse_args()
    out, size, seeds = args.out, SIZES[args.size], [args.seed*1000 + i for i in range(args.seeds)]
    W = write_world(out/'W', size.pairs, size.val, size.refer, args.seed, args.workers)
    extract_regions(W/'images', out/'regions', keep=size.regions, workers=args.workers)
    label_captions(read_captions(W/'captions.tsv', W/'images'), out/'labels', workers=args.workers)
    for _ in run_jobs(pretrain_one, [(out, args.size, arm, seed, rate) for seed in seeds for rate in BEFORE for arm in ('baseline', 'ours')], args.workers): pass

    def best(found): return max(found, key=lambda trial: mean(mean(some) for some in found[trial].values()))
    first = tried(out, args.size, seeds, [(arm, before, RATES[1], 1) for arm in ('baseline', 'ours') for before in BEFORE], args.workers)
    before = {arm: best({trial: found for trial, found in first.items() if trial[0] == arm})[1] for arm in ('baseline', 'ours')} | {'scratch': BEFORE[0]}
    second = tried(out, args.size, seeds, [(arm, before[arm], rate, length) for arm in ARMS for rate in RATES for length in LENGTHS], args.workers)
    chosen = {arm: row_of(trial, second[trial]) for arm in ARMS for trial in [best({t: f for t, f in second.items() if t[0] == arm})]}
    rows = [row_of(*each) for each in (first | second).items()]
    about = dict(pairs=size.pairs, steps=size.steps, finetuning_steps={f'{fraction:g}': steps for fraction, steps in STEPS.items()}, world=args.seed, seeds=seeds)
    save_json(dict(what='validation accuracy of referring expressions', **about, trials=rows, chosen=chosen, made=circumstances()), args.results)
    for row in rows:
        print(f'{row["arm"]:9} {row["pretraining_rate"] or 0:<6g} {row["finetuning_rate"]:<6g} x{row["length"]}  mean {row["mean"]:.3f}  '
              + '  '.join(f'{name}: {each["accuracy"]:.3f}' for name, each in row['fractions'].items()))


if __name__ == '__main__': main()
