"The package as setuptools sees it; everything it says comes from settings.ini."
import shlex
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).resolve().parent
config = ConfigParser(delimiters=['='])
config.read(here/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']


def listed(key: str) -> list[str]: return shlex.split(cfg.get(key, ''))


setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=(here/'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    keywords=cfg['keywords'],
    license='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=['Intended Audience :: ' + cfg['audience'], 'Natural Language :: ' + cfg['language'], 'Programming Language :: Python :: 3'],
    packages=find_packages(include=['vlground', 'vlground.*']),
    package_data={'vlground': ['data/*', 'data/**/*']},
    python_requires='>=' + cfg['min_python'],
    install_requires=listed('requirements'),
    extras_require={name: listed(f'{name}_requirements') for name in ('dev', 'hf', 'ray', 'tables', 'transfer')},
    entry_points={'console_scripts': listed('console_scripts'), 'nbdev': [f'{cfg["lib_name"]}={cfg["lib_path"]}._modidx:d']},
    zip_safe=False,
)
