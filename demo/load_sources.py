"""Run by Zope's own `zconsole run`, with `app`: the source tree of Python as OFS folders and files, with a catalogue.

Makes, in the database of the instance:
    /python/...             one Folder per directory, one File per module
    /words                  a PersistentMapping: `files` (IOBTree number -> path), `words` (OOBTree word -> IITreeSet of
                            numbers), `total` (Length: how many words were seen)
Arguments: source directory. One transaction per directory, so that there is a history to copy.
"""

import re
import sys
from pathlib import Path

import transaction
from BTrees.IIBTree import IITreeSet
from BTrees.IOBTree import IOBTree
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree
from OFS.Folder import Folder
from persistent.mapping import PersistentMapping

WORD = re.compile(r"[A-Za-z_]{4,24}")
LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "lib2to3", "idlelib"}


def load(app, source):
    """Load every module below *source*; return how many."""
    catalogue = app.words = PersistentMapping()
    files = catalogue["files"] = IOBTree()
    words = catalogue["words"] = OOBTree()
    total = catalogue["total"] = Length()
    app._setObject("python", Folder("python"))
    transaction.get().note("an empty folder and an empty catalogue")
    transaction.commit()
    for directory, folder in walk(source, app.python):
        modules = sorted(p for p in directory.iterdir() if p.suffix == ".py" and p.is_file())
        for path in modules:
            content = path.read_bytes()
            folder.manage_addFile(zope_id(path.name), file=content, title=path.name, content_type="text/x-python")
            number = len(files) + 1
            files[number] = "/".join(folder.getPhysicalPath()) + "/" + zope_id(path.name)
            found = WORD.findall(content.decode("utf-8", "replace"))
            total.change(len(found))
            for word in set(found):
                numbers = words.get(word)
                if numbers is None:
                    numbers = words[word] = IITreeSet()
                numbers.insert(number)
        if modules:
            transaction.get().note(f"{len(modules)} modules of {directory.name}")
            transaction.commit()
    return len(files)


def walk(directory, folder):
    """Yield (directory, its Folder), parents first, in the order of names."""
    yield directory, folder
    for child in sorted(p for p in directory.iterdir() if p.is_dir() and p.name not in LEFT_OUT):
        if any(child.glob("*.py")):
            folder.manage_addFolder(zope_id(child.name))
            yield from walk(child, folder._getOb(zope_id(child.name)))


def zope_id(name):
    """Return an id that Zope accepts: none begins or ends with an underscore."""
    return "private-" + name.strip("_") if name.startswith("_") else name


if __name__ == "__main__":
    sys.stdout.write(f"{load(app, Path(sys.argv[-1]))} files\n")  # noqa: F821  `app` is given by zconsole
