"Small pictures and tars for tests."
import io
import tarfile

from PIL import Image


def jpeg(colour, size=(8, 6), **settings) -> bytes:
    file = io.BytesIO()
    Image.new('RGB', size, colour).save(file, 'JPEG', **settings)
    return file.getvalue()


def write_tar(path, files: dict, form=tarfile.USTAR_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w', format=form) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
