"""Measures pseudo labels of the small world against the truth: three presets, two extractors, by kind of phrase.

    python tools/label_quality.py --out quality --captions 2000

writes results/labels.json, which lesson 11 shows. The extractor `paper` needs TextBlob's corpora: `python -m textblob.download_corpora`."""
import argparse
from dataclasses import replace
from pathlib import Path

from vlground.core import save_json
from vlground.datasets import read_captions
from vlground.demo import circumstances
from vlground.pseudolabels import PRESETS, measure_labels, read_gold, read_labels
from vlground.scaleout import label_captions
from vlground.shards import read_manifest
from vlground.store import Store, extract_regions
from vlground.worldfiles import write_world

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('quality'), help='folder for what is made on the way')
    parser.add_argument('--results', type=Path, default=Path('results'), help='folder of the results')
    parser.add_argument('--captions', type=int, default=2000, help='captioned pictures')
    parser.add_argument('--seed', type=int, default=0, help='of the world')
    parser.add_argument('--keep', type=int, default=16, help='regions a picture at most')
    parser.add_argument('--workers', type=int, default=2, help='processes')
    args = parser.parse_args()
    W = write_world(args.out/'W', args.captions, 1, 1, args.seed, args.workers)
    store = Store(extract_regions(W/'images', args.out/'regions', keep=args.keep, workers=args.workers))
    items, gold, found = read_captions(W/'captions.tsv', W/'images'), read_gold(W/'gold'/'captions.jsonl'), {}
    for extractor in ('caption', 'paper'):
        labels = label_captions(items, args.out/f'labels-{extractor}', extractor=extractor, workers=args.workers)
        # captions that are left without a label stay, so that every preset is measured on the same captions
        found[extractor] = {name: measure_labels(read_labels(labels, replace(preset, drop_empty=False)), store, gold) for name, preset in PRESETS.items()}
    teacher = read_manifest(labels, 'labels')['teacher']
    save_json(dict(captions=args.captions, seed=args.seed, keep=args.keep, teacher=teacher, extractors=found, made=circumstances()), args.results/'labels.json')
